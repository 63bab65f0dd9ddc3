"""The working set of one transaction: reads through, collects changes, writes them together.

Several changes of one task become one row write, and all new rows of a kind one statement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import attrs

from engine.errors import TaskDamaged, TaskNotFound

from .commands import StoredAnswer
from .entries import Entry
from .task import Attempt, Event, Lane, Status, Task, TaskId, evolved


@attrs.frozen(kw_only=True)
class WriteSet:
    """Rows to write. ``updates`` and ``archived`` carry the version the row must still have;
    an archived task without one was never stored before."""

    inserts: Sequence[Task] = ()
    updates: Sequence[tuple[Task, int]] = ()
    archived: Sequence[tuple[Task, int | None]] = ()
    events: Sequence[Event] = ()  # not numbered yet
    attempts: Sequence[Attempt] = ()
    answers: Sequence[StoredAnswer] = ()
    counts: Mapping[Status, int] = attrs.field(factory=dict)  # what to add to the counters


class Records(Protocol):
    """The store inside one transaction. Synchronous; sees its own writes."""

    def load(self, ids: Collection[TaskId]) -> Mapping[TaskId, Task | TaskDamaged]:
        """The tasks that exist, live or archived; instead of one that cannot be read, why.

        Whichever method meets such a task sets it aside: from then on no search finds it.
        """
        ...

    def counts(self) -> Mapping[Status, int]:
        """How many tasks have each status, archived ones included."""
        ...

    def holder(self, partition_key: str) -> TaskId | None:
        """The task of this key that has not ended and is not blocked."""
        ...

    def next_blocked(self, partition_key: str) -> Task | None:
        """The oldest blocked task of this key."""
        ...

    def answer(self, key_hash: str, since: datetime) -> StoredAnswer | None:
        """What a key was answered, if that was not before ``since``."""
        ...

    def expired(self, now: datetime, limit: int) -> list[Task]:
        """Tasks whose ``expires_at`` is not after ``now``, earliest first."""
        ...

    def running(self, but_not: str, limit: int) -> list[Task]:
        """Processing tasks of owners other than ``but_not``."""
        ...

    def promote(self, lane: Lane, now: datetime, limit: int) -> None:
        """Make scheduled tasks of a lane ready that have become due, at most ``limit``, earliest
        first. Changes ``wait`` and no version."""
        ...

    def ready(self, lane: Lane, limit: int, without: Collection[str] = ()) -> list[Entry]:
        """The first ``limit`` ready tasks of a lane by (rank, id) that do not go to one of the
        destinations ``without``. Costs no more than reading through an index once."""
        ...

    def ready_at(self, destination: str, limit: int) -> list[Entry]:
        """The first ``limit`` ready tasks of the lane ``run`` by (rank, id) that go to this
        destination. Costs what it gives."""
        ...

    def scheduled(self, lane: Lane, limit: int) -> list[Entry]:
        """The first ``limit`` scheduled tasks of a lane by (due time, rank, id)."""
        ...

    def write(self, changes: WriteSet) -> int:
        """Write rows; returns the ``seq`` of the first event (0 without any), the others follow
        without a gap. ``inserts`` have ids that were never used, else ``StoreRejected``.
        Raises ``StoreConflict`` if a row no longer has the version it must have."""
        ...

    def prune(self, events_before: datetime, tasks_before: datetime, answers_before: datetime,
              limit: int) -> int:  # fmt: skip
        """Remove old events, old ended tasks with all that belongs to them, and old answers, at
        most ``limit`` of each; returns how many rows of the three kinds went."""
        ...


class Batch:
    """The working set of one transaction over ``Records``."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.changed: dict[TaskId, Task] = {}  # every task written, as it now is
        self.events: list[Event] = []  # every event written, with its seq
        self.attempts: list[Attempt] = []
        self._current: dict[TaskId, Task | TaskDamaged | None] = {}
        self._stored: dict[TaskId, int | None] = {}  # version in the store of each dirty task
        self._new_events: list[Event] = []
        self._new_attempts: list[Attempt] = []
        self._new_answers: list[StoredAnswer] = []
        self._deltas = dict.fromkeys(Status, 0)
        self._counts: dict[Status, int] | None = None

    def prefetch(self, ids: Iterable[TaskId]) -> None:
        """Read these tasks now, in one go."""
        missing = {task_id for task_id in ids if task_id not in self._current}
        if missing:
            found = self.records.load(missing)
            self._current.update({task_id: found.get(task_id) for task_id in missing})

    def task(self, task_id: TaskId) -> Task:
        """The task as it now is; raises ``TaskNotFound`` or ``TaskDamaged``."""
        if task_id not in self._current:
            self.prefetch((task_id,))
        task = self._current[task_id]
        if task is None:
            raise TaskNotFound(task_id)
        if isinstance(task, TaskDamaged):
            raise task
        return task

    def add(self, task: Task) -> None:
        """A task that did not exist."""
        self._current[task.id] = self.changed[task.id] = task
        self._stored[task.id] = None
        self._deltas[task.status] += 1

    def put(self, task: Task) -> None:
        """A task that exists, changed."""
        before = self.task(task.id)
        self._stored.setdefault(task.id, before.version)
        self._current[task.id] = self.changed[task.id] = task
        self._deltas[before.status] -= 1
        self._deltas[task.status] += 1

    def show(self, task: Task) -> None:
        """A task somebody had a wrong idea of: announce how it is, without changing it."""
        self.changed.setdefault(task.id, task)

    def log(self, event: Event) -> None:
        """Add an event."""
        self._new_events.append(event)

    def log_attempt(self, attempt: Attempt) -> None:
        """Add an attempt."""
        self._new_attempts.append(attempt)
        self.attempts.append(attempt)

    def answered(self, answer: StoredAnswer) -> None:
        """Remember an answer for its idempotency key."""
        self._new_answers.append(answer)

    def answer(self, key_hash: str, since: datetime) -> StoredAnswer | None:
        """What an idempotency key was answered before."""
        for answer in self._new_answers:
            if answer.key.hash == key_hash:
                return answer
        return self.records.answer(key_hash, since)

    def count(self, status: Status) -> int:
        """How many tasks have this status now."""
        if self._counts is None:
            self._counts = dict(self.records.counts())
        return self._counts.get(status, 0) + self._deltas[status]

    def flushed(self) -> Records:
        """The records, with everything written: for reads that search."""
        self.flush()
        return self.records

    def forget(self) -> None:
        """Read everything again from now on. Only right after ``flush``."""
        self._current.clear()

    def adopt(self, task: Task) -> Task:
        """A task that a search found; returns it as it now is."""
        if self._current.get(task.id) is None:
            self._current[task.id] = task
        return self.task(task.id)

    def flush(self) -> None:
        """Write what has been collected."""
        changes = self._changes()
        first = self.records.write(changes)
        self.events += [evolved(event, seq=seq) for seq, event in enumerate(changes.events, first)]
        if self._counts is not None:
            for status, delta in changes.counts.items():
                self._counts[status] = self._counts.get(status, 0) + delta
        self._stored.clear()
        self._new_events, self._new_attempts, self._new_answers = [], [], []
        self._deltas = dict.fromkeys(Status, 0)

    def _changes(self) -> WriteSet:
        inserts: list[Task] = []
        updates: list[tuple[Task, int]] = []
        archived: list[tuple[Task, int | None]] = []
        for task_id, version in self._stored.items():
            task = self.task(task_id)
            if task.archived_at is not None:
                archived.append((task, version))
            elif version is None:
                inserts.append(task)
            else:
                updates.append((task, version))
        return WriteSet(
            inserts=inserts,
            updates=updates,
            archived=archived,
            events=self._new_events,
            attempts=self._new_attempts,
            answers=self._new_answers,
            counts={status: delta for status, delta in self._deltas.items() if delta},
        )
