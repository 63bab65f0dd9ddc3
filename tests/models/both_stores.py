"""The real core on the memory store and on SQLite at once, compared after every transaction."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from engine.adapters.storage.memory import open_memory_store
from engine.adapters.storage.sqlite import open_sqlite_store
from engine.adapters.threads import InlineRunSync
from engine.config import EngineConfig
from engine.core.batch import Records
from engine.core.commands import AnyCommand, Created
from engine.core.queries import TaskQuery
from engine.core.task import Event, Task, Wait
from engine.ports.store import Store
from tests.support.builders import applying

from .lifecycle_model import Lifecycle, Refused, Row

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class CommitFailed(Exception):
    """Raised at the end of a transaction that is to be undone."""


@attrs.frozen
class BothStores:
    """The same transactions on either store."""

    memory: Store
    sqlite: Store
    config: EngineConfig

    async def commit(self, commands: Sequence[AnyCommand], now: datetime) -> list[Any]:
        """What each command answers or raises, on which both stores agree."""
        work = applying(commands, now, self.config)
        found = [told(one) for one in await self.memory.transact(work)]
        assert [told(one) for one in await self.sqlite.transact(work)] == found
        return found

    async def undo(self, commands: Sequence[AnyCommand], now: datetime) -> None:
        """The same, but the commit fails."""

        def work(records: Records) -> None:
            applying(commands, now, self.config)(records)
            raise CommitFailed

        for store in (self.memory, self.sqlite):
            with suppress(CommitFailed):
                await store.transact(work)
                raise AssertionError("the failure was swallowed")

    async def agrees_with(self, model: Lifecycle) -> None:
        """Raise ``AssertionError`` unless either store holds what the model says, and no more."""
        tasks = await self.memory.tasks(TaskQuery(), 10_000)
        assert await self.sqlite.tasks(TaskQuery(), 10_000) == tasks
        for found in map(row_of, tasks):
            told = model.rows.get(found["id"], {})
            assert found == told, f"task {found['id']}: {differing(found, told)}"
        assert len(tasks) == len(model.rows)
        counted = dict.fromkeys(await self.memory.counts(), 0)
        for task in tasks:
            counted[task.status] += 1
            logged = await self.memory.attempts(task.id)
            assert await self.sqlite.attempts(task.id) == logged
            assert [
                (one.number, one.counted, one.result.error_class) for one in logged
            ] == model.attempts[task.id]
        for store in (self.memory, self.sqlite):
            assert await store.counts() == counted
            events = list(await store.events(0, 100_000))
            assert [one.seq for one in events] == list(range(1, len(events) + 1))
            assert [event_of(one) for one in events] == model.events


def told(result: Any) -> Any:
    """A result as the model tells it, errors by kind, task and status."""
    match result:
        case Task():
            return row_of(result)
        case Created(receipts=receipts, replayed=replayed):
            return tuple(one.task_id for one in receipts), replayed
        case Exception():
            task_id, status = getattr(result, "task_id", None), getattr(result, "status", None)
            return type(result).__name__, task_id, status
        case _:
            return result


def expected(model: Lifecycle, command: AnyCommand) -> Any:
    """What the model answers, as ``told`` tells it."""
    try:
        return model.apply(command)
    except Refused as refused:
        return refused.told


def differing(found: Any, foretold: Any) -> str:
    """How two results differ, in as few words as possible."""
    if isinstance(found, dict) and isinstance(foretold, dict):
        names = [name for name in found if found[name] != foretold.get(name)]
        found = {name: found[name] for name in names}
        foretold = {name: foretold.get(name) for name in names}
    return f"it is {found}, the model says {foretold}"


def row_of(task: Task) -> Row:
    """A task as the model tells it."""
    result = task.result
    return {
        "id": task.id, "spec": attrs.evolve(task.spec), "status": task.status,
        "version": task.version, "attempt": task.attempt, "failures": task.failures,
        "recoveries": task.recoveries, "owner": task.owner, "due": task.due_at, "lane": task.lane,
        "blocked": task.wait is Wait.BLOCKED, "ready": task.wait is Wait.READY, "expires": task.expires_at,
        "created": task.created_at, "updated": task.updated_at, "executed": task.executed_at,
        "completed": task.completed_at, "archived": task.archived_at,
        "error": None if result is None else result.error_class,
    }  # fmt: skip


def event_of(event: Event) -> tuple[str, str | None, str, int]:
    """An event as the model tells it."""
    return event.task_id, event.from_status, event.to_status, event.attempt


@asynccontextmanager
async def both_stores(config: EngineConfig) -> AsyncIterator[BothStores]:
    """Two empty stores; SQLite runs in line, on a file of its own: in memory where there is such a
    folder, because no power fails here and waiting for a disk shows nothing."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        async with (
            open_memory_store() as memory,
            open_sqlite_store(f"{folder}/tasks.db", InlineRunSync) as sqlite,
        ):
            yield BothStores(memory, sqlite, config)
