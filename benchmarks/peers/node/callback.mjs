// The callback that every Node worker makes, over keep-alive connections.
import { Agent, request } from 'undici';

export const CONCURRENCY = 100;
export const ATTEMPTS = 3;

const dispatcher = new Agent({ connections: CONCURRENCY, headersTimeout: 30_000 });

// Throws unless the answer is 2xx.
export async function call(taskId, { name, callbackUrl, payload }) {
  const { statusCode, body } = await request(callbackUrl, {
    dispatcher,
    method: 'POST',
    headers: { 'content-type': 'application/json', 'webhook-id': taskId },
    body: JSON.stringify({ taskId, name, payload }),
  });
  await body.dump();
  if (statusCode < 200 || statusCode > 299) throw new Error(`answered ${statusCode}`);
}
