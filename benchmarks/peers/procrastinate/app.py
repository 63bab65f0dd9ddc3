"""FastAPI in front of procrastinate."""

from __future__ import annotations

import tasks
from dialect import Task, serve
from procrastinate.exceptions import NoResult

STATUS = {"succeeded": "Completed", "failed": "Failed", "doing": "Processing"}


class Queue:
    async def add(self, task: Task) -> str:
        return str(await tasks.callback.defer_async(task=task.model_dump()))

    async def add_all(self, found: list[Task]) -> list[str]:
        ids = await tasks.callback.batch_defer_async(*({"task": t.model_dump()} for t in found))
        return [str(task_id) for task_id in ids]

    async def status(self, task_id: str) -> str | None:
        if not task_id.isdecimal():
            return None
        try:
            status = await tasks.app.job_manager.get_job_status_async(int(task_id))
        except NoResult:
            return None
        return STATUS.get(status.value, "Queued")


app = serve(Queue(), tasks.app.open_async())
