// The API that every stack of the comparison offers, on Fastify. `queue` is the peer's own part:
//   add(task) -> id, addAll(tasks) -> ids, status(id) -> 'Queued' | 'Completed' | 'Failed' | null
import Fastify from 'fastify';

const task = {
  type: 'object',
  required: ['name', 'callbackUrl'],
  properties: {
    name: { type: 'string', minLength: 1, maxLength: 200 },
    callbackUrl: { type: 'string', maxLength: 2000, pattern: '^https?://' },
    payload: { type: 'object' },
  },
};
const tasks = {
  type: 'object',
  required: ['tasks'],
  properties: { tasks: { type: 'array', minItems: 1, maxItems: 1000, items: task } },
};
const created = { type: 'object', properties: { taskId: { type: 'string' } } };
const allCreated = { type: 'object', properties: { tasks: { type: 'array', items: created } } };
const found = {
  type: 'object',
  properties: { taskId: { type: 'string' }, status: { type: 'string' } },
};

export async function serve(queue) {
  const app = Fastify({ logger: false });

  const one = { schema: { body: task, response: { 201: created } } };
  app.post('/api/v1/tasks', one, async (request, reply) => {
    reply.code(201);
    return { taskId: await queue.add(request.body) };
  });

  const many = { schema: { body: tasks, response: { 201: allCreated } } };
  app.post('/api/v1/tasks/batch', many, async (request, reply) => {
    reply.code(201);
    return { tasks: (await queue.addAll(request.body.tasks)).map((taskId) => ({ taskId })) };
  });

  app.get('/api/v1/tasks/:id', { schema: { response: { 200: found } } }, async (request, reply) => {
    const status = await queue.status(request.params.id);
    return status ? { taskId: request.params.id, status } : reply.code(404).send();
  });

  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => process.exit(0));
  await app.listen({ host: '127.0.0.1', port: Number(process.argv[2]) });
}
