import { Worker } from 'bullmq';
import { call, CONCURRENCY } from './callback.mjs';
import { connect, QUEUE } from './connection.mjs';

const worker = new Worker(QUEUE, (job) => call(job.id, job.data), {
  connection: connect({ maxRetriesPerRequest: null }),
  concurrency: CONCURRENCY,
});
worker.on('error', (error) => console.error(error));
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => worker.close(true));
