"""Where tasks are kept, as a port. ``tests/contracts/store.py`` checks every adapter against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import attrs

from engine.core.batch import Records
from engine.core.queries import TaskQuery
from engine.core.task import Attempt, Event, Status, Task, TaskId

R = TypeVar("R")


@attrs.frozen(kw_only=True)
class StoreCapabilities:
    """What a store can promise."""

    durable: bool  # what is committed survives the process
    exclusive: bool  # no other process can have it open, so its orphans are ours to recover


class Store(Protocol):
    """Tasks, attempts, events and idempotency answers.

    Every method is a checkpoint on every call. Raises ``StoreUnavailable`` (or ``StoreFull``) when
    the store cannot answer now, ``StoreRejected`` when it never will take the values.
    Reads see every transaction that ended before they began.
    """

    @property
    def capabilities(self) -> StoreCapabilities:
        """What this store promises."""
        ...

    async def transact(self, work: Callable[[Records], R]) -> R:
        """Run ``work`` in one transaction and commit it.

        Atomic: if ``work`` or the commit raises, nothing is kept, and the exception passes on.
        When it returns, all is as durable as the store can make it. Transactions run one after the
        other. ``work`` may run in another thread. Cancelling waits for a transaction that has
        begun: it is then committed or undone as if not cancelled.
        """
        ...

    async def get(self, task_id: TaskId) -> Task | None:
        """The task, live or archived."""
        ...

    async def tasks(self, query: TaskQuery, limit: int, offset: int = 0) -> list[Task]:
        """Matching tasks, newest (greatest id) first."""
        ...

    async def snapshot(self, query: TaskQuery, limit: int) -> tuple[int, list[Task]]:
        """What ``tasks`` gives, and the ``seq`` of the newest event at that same moment: the tasks
        show every event up to it and none after."""
        ...

    async def count(self, query: TaskQuery) -> int:
        """How many tasks match, without regard to ``query.before``."""
        ...

    async def counts(self) -> Mapping[Status, int]:
        """How many tasks have each status; at a cost that does not grow with their number."""
        ...

    async def oldest_waiting(self) -> Task | None:
        """The Queued task that was created first."""
        ...

    async def partition_holder(self, partition_key: str) -> TaskId | None:
        """The task that goes before all others of this key: not ended, not blocked."""
        ...

    async def attempts(self, task_id: TaskId) -> list[Attempt]:
        """The task's attempts, first one first."""
        ...

    async def task_events(self, task_id: TaskId) -> list[Event]:
        """The task's events that are still kept, first one first."""
        ...

    async def events(self, after: int, limit: int) -> Sequence[Event]:
        """Events with ``seq`` greater than ``after``, in order, without gaps."""
        ...

    async def event_range(self) -> tuple[int, int]:
        """``seq`` of the oldest event kept and of the newest ever written. The oldest is one more
        than the newest if none is kept."""
        ...


class StoreOpener(Protocol):
    """Opens a store; it is closed at the end of the block."""

    def __call__(self) -> AbstractAsyncContextManager[Store]:
        """Raises ``StoreLocked``, ``StoreDamaged`` or ``StoreUnavailable`` if it cannot be opened."""
        ...
