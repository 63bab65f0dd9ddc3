"""The records of the memory store: dictionaries, sorted sets for each order that is asked for, and
a list of what undoes the transaction under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sortedcontainers import SortedDict, SortedSet

from engine.core.batch import WriteSet
from engine.core.commands import StoredAnswer
from engine.core.entries import Entry, entry_of
from engine.core.lifecycle import ENDED
from engine.core.suspects import queued_for
from engine.core.task import Attempt, Event, Lane, Status, Task, TaskId, Wait, evolved
from engine.errors import StoreConflict, StoreRejected


class TaskRows:
    """The tasks, and the orders in which they are asked for."""

    def __init__(self) -> None:
        self.by_id: SortedDict[TaskId, Task] = SortedDict()
        self.queued: SortedSet[TaskId] = SortedSet()
        self.processing: SortedSet[TaskId] = SortedSet()
        self.expiring: SortedSet[tuple[datetime, TaskId]] = SortedSet()
        self.ended: SortedSet[tuple[datetime, TaskId]] = SortedSet()
        self.archived: SortedSet[tuple[datetime, TaskId]] = SortedSet()
        self.ready = {lane: SortedSet[tuple[int, TaskId]]() for lane in Lane}
        self.ready_at: SortedSet[tuple[str, int, TaskId]] = SortedSet()  # of the lane run
        self.scheduled = {lane: SortedSet[tuple[datetime, int, TaskId]]() for lane in Lane}
        self.holders: SortedSet[tuple[str, TaskId]] = SortedSet()
        self.blocked: SortedSet[tuple[str, TaskId]] = SortedSet()

    def __len__(self) -> int:
        return len(self.by_id)

    def replace(self, task_id: TaskId, task: Task | None) -> Task | None:
        """Put the task in the place of the one that has its id, which is returned."""
        before = self.by_id.pop(task_id, None)
        if before is not None:
            self._index(before, "discard")
        if task is not None:
            self.by_id[task_id] = task
            self._index(task, "add")
        return before

    def _index(self, task: Task, change: str) -> None:
        for order, key in self._orders(task):
            getattr(order, change)(key)

    def _orders(self, task: Task) -> list[tuple[SortedSet[Any], object]]:
        """Every order the task stands in, with its key there."""
        found: list[tuple[SortedSet[Any], object]] = []
        if task.archived_at is not None:
            return [(self.archived, (task.archived_at, task.id))]
        if task.status is Status.QUEUED:
            found.append((self.queued, task.id))
        if task.status is Status.PROCESSING:
            found.append((self.processing, task.id))
        if task.expires_at is not None:
            found.append((self.expiring, (task.expires_at, task.id)))
        if task.completed_at is not None:
            found.append((self.ended, (task.completed_at, task.id)))
        if task.lane is not None and task.wait is Wait.READY:
            found.append((self.ready[task.lane], (task.rank, task.id)))
            if task.lane is Lane.RUN:
                found.append((self.ready_at, (queued_for(task), task.rank, task.id)))
        if task.lane is not None and task.wait is Wait.SCHEDULED:
            found.append((self.scheduled[task.lane], (task.due_at, task.rank, task.id)))
        key = task.spec.partition_key
        if key is not None and task.status not in ENDED:
            turns = self.blocked if task.wait is Wait.BLOCKED else self.holders
            found.append((turns, (key, task.id)))
        return found


class MemoryRecords:
    """``engine.core.batch.Records`` over dictionaries."""

    def __init__(self) -> None:
        self.rows = TaskRows()
        self.events: list[Event] = []
        self.first_seq = 1
        self.attempts: dict[TaskId, dict[int, Attempt]] = {}
        self._answers: dict[str, StoredAnswer] = {}
        self._answer_times: SortedSet[tuple[datetime, str]] = SortedSet()
        self._counts: Counter[Status] = Counter()
        self._undo: list[Callable[[], object]] = []

    @property
    def last_seq(self) -> int:
        """The newest event's number."""
        return self.first_seq + len(self.events) - 1

    def keep(self) -> None:
        """End the transaction; what it did stays."""
        self._undo.clear()

    def undo(self) -> None:
        """End the transaction as if it had never been."""
        while self._undo:
            self._undo.pop()()

    # -- reading -----------------------------------------------------------------------------

    def load(self, ids: Collection[TaskId]) -> dict[TaskId, Task]:
        """The tasks that exist, live or archived."""
        return {task_id: self.rows.by_id[task_id] for task_id in ids if task_id in self.rows.by_id}

    def counts(self) -> Mapping[Status, int]:
        """How many tasks have each status, archived ones included."""
        return {status: self._counts[status] for status in Status}

    def holder(self, partition_key: str) -> TaskId | None:
        """The task of this key that has not ended and is not blocked."""
        return _first_of(self.rows.holders, partition_key)

    def next_blocked(self, partition_key: str) -> Task | None:
        """The oldest blocked task of this key."""
        found = _first_of(self.rows.blocked, partition_key)
        return self.rows.by_id[found] if found is not None else None

    def answer(self, key_hash: str, since: datetime) -> StoredAnswer | None:
        """What a key was answered, if that was not before ``since``."""
        found = self._answers.get(key_hash)
        return found if found is not None and found.created_at >= since else None

    def expired(self, now: datetime, limit: int) -> list[Task]:
        """Tasks whose ``expires_at`` is not after ``now``, earliest first."""
        found = []
        for expires_at, task_id in islice(self.rows.expiring, limit):
            if expires_at > now:
                break
            found.append(self.rows.by_id[task_id])
        return found

    def running(self, but_not: str, limit: int) -> list[Task]:
        """Processing tasks of owners other than ``but_not``."""
        tasks = (self.rows.by_id[task_id] for task_id in self.rows.processing)
        return list(islice((task for task in tasks if task.owner != but_not), limit))

    def promote(self, lane: Lane, now: datetime, limit: int) -> None:
        """Make tasks ready that have become due."""
        for due_at, _, task_id in list(islice(self.rows.scheduled[lane], limit)):
            if due_at > now:
                break
            self._replace(task_id, evolved(self.rows.by_id[task_id], wait=Wait.READY))

    def ready(self, lane: Lane, limit: int, without: Collection[str] = ()) -> list[Entry]:
        """The head of a lane, without what goes to some destinations."""
        entries = (entry_of(self.rows.by_id[task_id]) for _, task_id in self.rows.ready[lane])
        return list(islice((entry for entry in entries if entry.destination not in without), limit))

    def ready_at(self, destination: str, limit: int) -> list[Entry]:
        """The first ready tasks that go to a destination."""
        found = []
        first = (destination, -(2**63), "")
        for goes_to, _, task_id in islice(self.rows.ready_at.irange(minimum=first), limit):
            if goes_to != destination:
                break
            found.append(entry_of(self.rows.by_id[task_id]))
        return found

    def scheduled(self, lane: Lane, limit: int) -> list[Entry]:
        """What becomes due next in a lane."""
        first = islice(self.rows.scheduled[lane], limit)
        return [entry_of(self.rows.by_id[task_id]) for *_, task_id in first]

    # -- writing -----------------------------------------------------------------------------

    def write(self, changes: WriteSet) -> int:
        """Write rows; returns the ``seq`` of the first event, 0 if there is none."""
        for task in changes.inserts:
            self._insert(task)
        for task, version in changes.updates:
            self._change(task, version)
        for task, known in changes.archived:
            if known is None:
                self._insert(task)
            else:
                self._change(task, known)
        for attempt in changes.attempts:
            self._add_attempt(attempt)
        for answer in changes.answers:
            self._replace_answer(answer.key.hash, answer)
        self._count(changes.counts)
        return self._log(changes.events)

    def _insert(self, task: Task) -> None:
        if task.id in self.rows.by_id:
            raise StoreRejected(f"there is a task {task.id} already")
        self._replace(task.id, task)

    def _change(self, task: Task, version: int) -> None:
        known = self.rows.by_id.get(task.id)
        if known is None or known.version != version or known.archived_at is not None:
            raise StoreConflict("a task was changed by somebody else")
        self._replace(task.id, task)

    def _replace(self, task_id: TaskId, task: Task | None) -> None:
        before = self.rows.replace(task_id, task)
        self._undo.append(lambda: self.rows.replace(task_id, before))

    def _add_attempt(self, attempt: Attempt) -> None:
        attempts = self.attempts.setdefault(attempt.task_id, {})
        if attempt.number in attempts:
            raise StoreRejected(f"attempt {attempt.number} of {attempt.task_id} is there already")
        attempts[attempt.number] = attempt
        self._undo.append(lambda: attempts.pop(attempt.number))

    def _replace_answer(self, key_hash: str, answer: StoredAnswer | None) -> None:
        before = self._swap_answer(key_hash, answer)
        self._undo.append(lambda: self._swap_answer(key_hash, before))

    def _swap_answer(self, key_hash: str, answer: StoredAnswer | None) -> StoredAnswer | None:
        before = self._answers.pop(key_hash, None)
        if before is not None:
            self._answer_times.discard((before.created_at, key_hash))
        if answer is not None:
            self._answers[key_hash] = answer
            self._answer_times.add((answer.created_at, key_hash))
        return before

    def _count(self, deltas: Mapping[Status, int]) -> None:
        before = self._counts.copy()
        self._counts.update(deltas)
        self._undo.append(lambda: setattr(self, "_counts", before))

    def _log(self, events: Sequence[Event]) -> int:
        if not events:
            return 0
        first = self.last_seq + 1
        kept = len(self.events)
        self.events += [evolved(event, seq=seq) for seq, event in enumerate(events, first)]
        self._undo.append(lambda: self.events.__delitem__(slice(kept, None)))
        return first

    # -- removing ----------------------------------------------------------------------------

    def prune(self, events_before: datetime, tasks_before: datetime, answers_before: datetime,
              limit: int) -> int:  # fmt: skip
        """Remove what is old. Events go from the front, so that the rest has no gaps."""
        events = 0
        while events < min(limit, len(self.events)) and self.events[events].at < events_before:
            events += 1
        self._forget_events(events)
        old: list[TaskId] = []
        for order in (self.rows.archived, self.rows.ended):
            found = islice(order, limit - len(old))
            old += [task_id for moment, task_id in found if moment < tasks_before]
        for task_id in old:
            self._remove(task_id)
        answers = [
            key for moment, key in islice(self._answer_times, limit) if moment < answers_before
        ]
        for key in answers:
            self._replace_answer(key, None)
        return events + len(old) + len(answers)

    def _forget_events(self, number: int) -> None:
        gone = self.events[:number]

        def restore() -> None:
            self.events[:0] = gone
            self.first_seq -= number

        del self.events[:number]
        self.first_seq += number
        self._undo.append(restore)

    def _remove(self, task_id: TaskId) -> None:
        self._count({self.rows.by_id[task_id].status: -1})
        self._replace(task_id, None)
        attempts = self.attempts.pop(task_id, None)
        if attempts is not None:
            self._undo.append(lambda: self.attempts.__setitem__(task_id, attempts))


def _first_of(turns: SortedSet[tuple[str, TaskId]], key: str) -> TaskId | None:
    for found, task_id in turns.irange(minimum=(key, "")):
        return task_id if found == key else None
    return None
