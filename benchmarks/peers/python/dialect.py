"""The API that every stack of the comparison offers, on FastAPI; ``Queue`` is the peer's own part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Protocol

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field


class Task(BaseModel):
    name: str = Field(min_length=1, max_length=200)
    callbackUrl: str = Field(max_length=2000, pattern="^https?://")  # noqa: N815  (as in JSON)
    payload: dict[str, Any] = {}


class Tasks(BaseModel):
    tasks: list[Task] = Field(min_length=1, max_length=1000)


class Created(BaseModel):
    taskId: str  # noqa: N815


class AllCreated(BaseModel):
    tasks: list[Created]


class Found(Created):
    status: str


class Queue(Protocol):
    async def add(self, task: Task) -> str: ...

    async def add_all(self, tasks: list[Task]) -> list[str]: ...

    async def status(self, task_id: str) -> str | None: ...


def serve(queue: Queue, resource: AbstractAsyncContextManager[Any] | None = None) -> FastAPI:
    """The API over ``queue``; ``resource`` is open while it serves."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with resource or nullcontext():
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/api/v1/tasks", status_code=201)
    async def create(task: Task) -> Created:
        return Created(taskId=await queue.add(task))

    @app.post("/api/v1/tasks/batch", status_code=201)
    async def create_all(batch: Tasks) -> AllCreated:
        ids = await queue.add_all(batch.tasks)
        return AllCreated(tasks=[Created(taskId=task_id) for task_id in ids])

    @app.get("/api/v1/tasks/{task_id}")
    async def find(task_id: str) -> Found:
        status = await queue.status(task_id)
        if status is None:
            raise HTTPException(404)
        return Found(taskId=task_id, status=status)

    return app
