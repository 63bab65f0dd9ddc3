// A create is committed to PostgreSQL before it is answered. LISTEN/NOTIFY stays off, as is its
// default: PostgreSQL commits transactions that notify one after the other, and each create would.
import { PgBoss } from 'pg-boss';
import { ATTEMPTS } from './callback.mjs';

export const QUEUE = 'tasks';

export async function start() {
  const boss = new PgBoss({ connectionString: process.env.DATABASE_URL, max: 20 });
  boss.on('error', (error) => console.error(error));
  await boss.start();
  await boss.createQueue(QUEUE, {
    retryLimit: ATTEMPTS - 1,
    retryDelay: 1,
    retryBackoff: true,
  });
  return boss;
}
