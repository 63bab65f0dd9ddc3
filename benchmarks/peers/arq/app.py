"""FastAPI in front of arq."""

from __future__ import annotations

import asyncio  # noqa: TID251  (a program of its own, not under Trio)
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arq import create_pool
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus
from dialect import Task, serve
from queue_settings import REDIS


class Queue:
    pool: ArqRedis

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.pool = await create_pool(REDIS)
        yield
        await self.pool.aclose()

    async def add(self, task: Task) -> str:
        job = await self.pool.enqueue_job("callback", task.model_dump())
        return job.job_id

    async def add_all(self, tasks: list[Task]) -> list[str]:
        return await asyncio.gather(*map(self.add, tasks))  # arq has no bulk call

    async def status(self, task_id: str) -> str | None:
        job = Job(task_id, self.pool)
        match await job.status():
            case JobStatus.complete:
                result = await job.result_info()
                return "Completed" if result and result.success else "Failed"
            case JobStatus.in_progress:
                return "Processing"
            case JobStatus.not_found:
                return None
        return "Queued"


queue = Queue()
app = serve(queue, queue.running())
