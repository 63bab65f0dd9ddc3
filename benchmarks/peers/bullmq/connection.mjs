import { Redis } from 'ioredis';

export const QUEUE = 'tasks';

// `maxRetriesPerRequest: null` is what BullMQ asks of workers; an API fails fast instead.
export const connect = (options) => new Redis(process.env.DATABASE_URL, options);
