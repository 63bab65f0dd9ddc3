import { Queue } from 'bullmq';
import { ATTEMPTS } from './callback.mjs';
import { connect, QUEUE } from './connection.mjs';
import { serve } from './dialect.mjs';

const queue = new Queue(QUEUE, {
  connection: connect({ enableOfflineQueue: false, maxRetriesPerRequest: 1, lazyConnect: true }),
  defaultJobOptions: {
    attempts: ATTEMPTS,
    backoff: { type: 'exponential', delay: 1000 },
    removeOnComplete: { count: 100_000 }, // kept for a while, so that a status can be asked for
    removeOnFail: { count: 100_000 },
  },
});
await queue.waitUntilReady();

const STATUS = { completed: 'Completed', failed: 'Failed', active: 'Processing', unknown: null };

await serve({
  add: async (task) => (await queue.add('call', task)).id,
  addAll: async (tasks) => {
    const jobs = await queue.addBulk(tasks.map((data) => ({ name: 'call', data })));
    return jobs.map((job) => job.id);
  },
  status: async (id) => {
    const state = await queue.getJobState(id);
    return state in STATUS ? STATUS[state] : 'Queued';
  },
});
