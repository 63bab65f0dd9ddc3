"""FastAPI in front of Celery, whose client blocks: its calls run in the server's threads."""

from __future__ import annotations

from uuid import UUID

from dialect import Task, serve
from fastapi.concurrency import run_in_threadpool
from tasks import callback

STATUS = {"SUCCESS": "Completed", "FAILURE": "Failed", "STARTED": "Processing"}


def _add(task: Task) -> str:
    return callback.delay(task.model_dump()).id


class Queue:
    async def add(self, task: Task) -> str:
        return await run_in_threadpool(_add, task)

    async def add_all(self, tasks: list[Task]) -> list[str]:
        return await run_in_threadpool(lambda: [_add(task) for task in tasks])  # no bulk call

    async def status(self, task_id: str) -> str | None:
        """Celery calls pending what it does not know: only what is no id at all is not found."""
        try:
            UUID(task_id)
        except ValueError:
            return None
        state = await run_in_threadpool(lambda: callback.AsyncResult(task_id).state)
        return STATUS.get(state, "Queued")


app = serve(Queue())
