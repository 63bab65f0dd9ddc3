import { QUEUE, start } from './boss.mjs';
import { call, CONCURRENCY } from './callback.mjs';

const BATCH = 50; // jobs fetched together; the slowest of them keeps the next ones waiting

const boss = await start();

await boss.work(
  QUEUE,
  {
    batchSize: BATCH,
    localConcurrency: CONCURRENCY / BATCH,
    pollingIntervalSeconds: 0.5,
    burstWhenBatchFull: true,
    perJobResults: true,
  },
  (jobs) =>
    Promise.all(
      jobs.map(({ id, data }) =>
        call(id, data).then(
          () => ({ id, status: 'completed' }),
          (error) => ({ id, status: 'failed', output: { message: error.message } }),
        ),
      ),
    ),
);
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => boss.stop({ timeout: 5000 }));
