"""Tasks in memory, for tests, simulations and throw-away servers. Nothing survives the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from engine.core.batch import Records
from engine.core.lifecycle import FINAL
from engine.core.queries import Kept, TaskQuery
from engine.core.task import Attempt, Event, Status, Task, TaskId
from engine.ports.store import Store, StoreCapabilities

from .memory_records import MemoryRecords

R = TypeVar("R")


class MemoryStore:
    """Runs in line, so nothing can come between the parts of a transaction."""

    capabilities = StoreCapabilities(durable=False, exclusive=True)

    def __init__(self) -> None:
        self._records = MemoryRecords()

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._records.rows)} tasks>"

    async def transact(self, work: Callable[[Records], R]) -> R:
        """Run ``work`` in one transaction."""
        await trio.lowlevel.checkpoint()
        try:
            result = work(self._records)
        except BaseException:
            self._records.undo()
            raise
        self._records.keep()
        return result

    async def get(self, task_id: TaskId) -> Task | None:
        """The task, live or archived."""
        await trio.lowlevel.checkpoint()
        return self._records.rows.by_id.get(task_id)

    async def tasks(self, query: TaskQuery, limit: int, offset: int = 0) -> list[Task]:
        """Matching tasks, newest first."""
        await trio.lowlevel.checkpoint()
        return self._matching(query, limit, offset)

    async def snapshot(self, query: TaskQuery, limit: int) -> tuple[int, list[Task]]:
        """Matching tasks, and the newest event they show."""
        await trio.lowlevel.checkpoint()
        return self._records.last_seq, self._matching(query, limit, 0)

    def _matching(self, query: TaskQuery, limit: int, offset: int) -> list[Task]:
        ids = self._records.rows.by_id
        found: list[Task] = []
        if limit <= 0:
            return found
        for task_id in ids.irange(maximum=query.before, reverse=True):
            if task_id != query.before and _matches(ids[task_id], query):
                found.append(ids[task_id])
                if len(found) == offset + limit:
                    break
        return found[offset:]

    async def count(self, query: TaskQuery) -> int:
        """How many tasks match."""
        await trio.lowlevel.checkpoint()
        return sum(_matches(task, query) for task in self._records.rows.by_id.values())

    async def counts(self) -> Mapping[Status, int]:
        """How many tasks have each status."""
        await trio.lowlevel.checkpoint()
        return self._records.counts()

    async def oldest_waiting(self) -> Task | None:
        """The Queued task that was created first."""
        await trio.lowlevel.checkpoint()
        rows = self._records.rows
        return rows.by_id[rows.queued[0]] if rows.queued else None

    async def partition_holder(self, partition_key: str) -> TaskId | None:
        """The task that goes before all others of this key."""
        await trio.lowlevel.checkpoint()
        return self._records.holder(partition_key)

    async def attempts(self, task_id: TaskId) -> list[Attempt]:
        """The task's attempts, first one first."""
        await trio.lowlevel.checkpoint()
        return [one for _, one in sorted(self._records.attempts.get(task_id, {}).items())]

    async def task_events(self, task_id: TaskId) -> list[Event]:
        """The task's events that are still kept."""
        await trio.lowlevel.checkpoint()
        return [event for event in self._records.events if event.task_id == task_id]

    async def events(self, after: int, limit: int) -> Sequence[Event]:
        """Events after ``after``, in order."""
        await trio.lowlevel.checkpoint()
        start = max(0, after + 1 - self._records.first_seq)
        return self._records.events[start : start + limit]

    async def event_range(self) -> tuple[int, int]:
        """``seq`` of the oldest event kept and of the newest ever written."""
        await trio.lowlevel.checkpoint()
        return self._records.first_seq, self._records.last_seq


def _matches(task: Task, query: TaskQuery) -> bool:
    spec = task.spec
    after, before = query.created_after, query.created_before
    return (
        (query.kept is Kept.ANYWHERE or (task.status in FINAL) == (query.kept is Kept.ARCHIVE))
        and (not query.statuses or task.status in query.statuses)
        and (not query.task_ids or task.id in query.task_ids)
        and (not query.names or spec.name in query.names)
        and (query.priority is None or spec.priority == query.priority)
        and (after is None or task.created_at > after)
        and (before is None or task.created_at < before)
        and all(spec.metadata.get(key) == value for key, value in query.metadata.items())
    )


@asynccontextmanager
async def open_memory_store() -> AsyncIterator[Store]:
    """An empty store."""
    await trio.lowlevel.checkpoint()
    yield MemoryStore()
    await trio.lowlevel.checkpoint()
