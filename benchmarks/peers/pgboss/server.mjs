import { randomUUID } from 'node:crypto';
import { QUEUE, start } from './boss.mjs';
import { serve } from './dialect.mjs';

const boss = await start();

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const STATUS = { completed: 'Completed', failed: 'Failed', active: 'Processing' };

await serve({
  add: (task) => boss.send(QUEUE, task),
  addAll: async (tasks) => {
    const jobs = tasks.map((data) => ({ id: randomUUID(), data }));
    await boss.insert(QUEUE, jobs);
    return jobs.map((job) => job.id);
  },
  status: async (id) => {
    const job = UUID.test(id) ? await boss.getJobById(QUEUE, id) : null;
    return job && (STATUS[job.state] ?? 'Queued');
  },
});
