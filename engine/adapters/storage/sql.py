"""The records inside one transaction, over one SQLAlchemy connection. The same for all dialects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa

from engine.adapters.codec import encode_spec
from engine.core.batch import WriteSet
from engine.core.commands import StoredAnswer
from engine.core.entries import Entry
from engine.core.task import Lane, Status, Task, TaskId, TaskSpec
from engine.errors import StoreConflict, StoreError

from . import rows, statements as say

T = TypeVar("T")
Translate: TypeAlias = Callable[[Exception], StoreError | None]


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most ``size``."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


class Session:
    """A connection that speaks of trouble in our errors."""

    def __init__(self, connection: sa.Connection, translate: Translate) -> None:
        self.connection = connection
        self._translate = translate

    def rows(self, statement: sa.Executable, values: Mapping[str, Any] | None = None) -> list[Any]:
        """Every row of the answer."""
        try:
            return list(self.connection.execute(statement, values).all())
        except Exception as error:
            raise self._ours(error) from error

    def change(
        self, statement: sa.Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> int:
        """How many rows were changed. With a sequence, once for each of its members."""
        try:
            return self.connection.execute(statement, values).rowcount
        except Exception as error:
            raise self._ours(error) from error

    def _ours(self, error: Exception) -> Exception:
        return self._translate(error) or error


def load_tasks(session: Session, ids: Collection[TaskId]) -> dict[TaskId, Task]:
    """The tasks that exist, live or archived."""
    found: dict[TaskId, Task] = {}
    for row in load_rows(session, ids):
        task = rows.task_from(row)
        found[task.id] = task
    return found


def load_rows(session: Session, ids: Collection[TaskId]) -> Iterator[Sequence[Any]]:
    """The rows of the tasks that exist, live ones first."""
    missing = set(ids)
    if len(missing) == 1:
        one = {"one": next(iter(missing))}
        yield from session.rows(say.live_by_id, one) or session.rows(say.archived_by_id, one)
        return
    for statement in (say.live_by_ids, say.archived_by_ids):
        for chunk in chunks(sorted(missing), say.ID_LIST_MAX):
            for row in session.rows(statement, {"ids": chunk}):
                missing.discard(row[0])
                yield row


def load_counts(session: Session) -> dict[Status, int]:
    """How many tasks have each status."""
    return {Status(status): n for status, n in session.rows(say.all_counts)}


class SqlRecords:
    """``engine.core.batch.Records`` for one transaction.

    Tasks are changed by ``attrs.evolve``, so a spec that did not change is the same object as when
    it was read. Then its text is neither made nor written again.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._texts: dict[TaskId, tuple[TaskSpec, str]] = {}

    # -- reading -----------------------------------------------------------------------------

    def load(self, ids: Collection[TaskId]) -> dict[TaskId, Task]:
        """The tasks that exist, live or archived."""
        found = self._tasks(load_rows(self._session, ids)) if ids else []
        return {task.id: task for task in found}

    def counts(self) -> Mapping[Status, int]:
        """How many tasks have each status, archived ones included."""
        return load_counts(self._session)

    def holder(self, partition_key: str) -> TaskId | None:
        """The task of this key that has not ended and is not blocked."""
        found = self._session.rows(say.holder, {"key": partition_key})
        return found[0][0] if found else None

    def next_blocked(self, partition_key: str) -> Task | None:
        """The oldest blocked task of this key."""
        found = self._tasks(self._session.rows(say.next_blocked, {"key": partition_key}))
        return found[0] if found else None

    def answer(self, key_hash: str, since: datetime) -> StoredAnswer | None:
        """What a key was answered, if that was not before ``since``."""
        asked = {"hash": key_hash, "since": rows.micros(since)}
        found = self._session.rows(say.answer, asked)
        return rows.answer_from(found[0]) if found else None

    def expired(self, now: datetime, limit: int) -> list[Task]:
        """Tasks whose ``expires_at`` is not after ``now``, earliest first."""
        return self._tasks(self._session.rows(say.expired(limit), {"now": rows.micros(now)}))

    def running(self, but_not: str, limit: int) -> list[Task]:
        """Processing tasks of owners other than ``but_not``."""
        return self._tasks(self._session.rows(say.running(limit), {"owner": but_not}))

    def promote(self, lane: Lane, now: datetime, limit: int) -> None:
        """Make tasks ready that have become due."""
        values = {"of_lane": lane.value, "now": rows.micros(now)}
        self._session.change(say.promote(limit), values)

    def ready(self, lane: Lane, limit: int, without: Collection[str] = ()) -> list[Entry]:
        """The head of a lane, without what goes to some destinations."""
        if without:
            values = {"lane": lane.value, "destinations": list(without)}
            return self._entries(say.ready_without(limit), values)
        return self._entries(say.ready(limit), {"lane": lane.value})

    def ready_at(self, destination: str, limit: int) -> list[Entry]:
        """The first ready tasks that go to a destination."""
        return self._entries(say.ready_at(limit), {"destination": destination})

    def scheduled(self, lane: Lane, limit: int) -> list[Entry]:
        """What becomes due next in a lane."""
        return self._entries(say.scheduled(limit), {"lane": lane.value})

    def _entries(self, statement: sa.Executable, values: Mapping[str, Any]) -> list[Entry]:
        return [
            Entry(task_id, rank, rows.moment(due_at), destination)
            for task_id, rank, due_at, destination in self._session.rows(statement, values)
        ]

    def _tasks(self, found: Iterable[Sequence[Any]]) -> list[Task]:
        tasks = []
        for row in found:
            task = rows.task_from(row)
            self._texts[task.id] = (task.spec, row[4])
            tasks.append(task)
        return tasks

    # -- writing -----------------------------------------------------------------------------

    def write(self, changes: WriteSet) -> int:
        """Write rows; returns the ``seq`` of the first event, 0 if there is none."""
        change = self._session.change
        if changes.inserts:
            change(say.insert_task, [self._live_row(task) for task in changes.inserts])
            self._add_metadata(changes.inserts)
        if changes.updates:
            self._update(changes.updates)
        if changes.archived:
            self._archive(changes.archived)
        if changes.attempts:
            change(say.insert_attempt, [rows.attempt_values(a) for a in changes.attempts])
        if changes.answers:
            newest = {answer.key.hash: answer for answer in changes.answers}
            change(say.delete_answers, {"ids": list(newest)})  # older ones that have run out
            change(say.insert_answer, [rows.answer_values(a) for a in newest.values()])
        self._count(changes.counts)
        return self._log(changes)

    def _log(self, changes: WriteSet) -> int:
        if not changes.events:
            return 0
        more = len(changes.events)
        first: int = self._session.rows(say.next_seqs, {"more": more})[0][0] - more + 1
        values = [rows.event_values(e, seq) for seq, e in enumerate(changes.events, first)]
        self._session.change(say.insert_event, values)
        return first

    def _count(self, deltas: Mapping[Status, int]) -> None:
        if deltas:
            values = [{"of": status.value, "delta": n} for status, n in deltas.items()]
            self._session.change(say.add_to_count, values)

    def _update(self, updates: Sequence[tuple[Task, int]]) -> None:
        states, wholes, described = [], [], []
        for task, version in updates:
            known = {"known_id": task.id, "known_version": version}
            values = rows.state_values(task) | known
            if self._knows(task):
                states.append(values)
            else:
                described_as = rows.spec_values(task, self._text(task)) | rows.live_values(task)
                wholes.append(values | described_as)
                described.append(task)
        for group in (states, wholes):
            if group and self._session.change(say.update_task, group) != len(group):
                raise StoreConflict("a task was changed by somebody else")
        if described:
            self._delete(say.delete_metadata, [task.id for task in described])
            self._add_metadata(described)

    def _archive(self, archived: Sequence[tuple[Task, int | None]]) -> None:
        moved = [
            {"known_id": task.id, "known_version": version}
            for task, version in archived
            if version is not None
        ]
        if moved and self._session.change(say.delete_known_task, moved) != len(moved):
            raise StoreConflict("a task was changed by somebody else")
        values = [self._row(task) | rows.archived_values(task) for task, _ in archived]
        self._session.change(say.insert_archived, values)
        self._add_metadata([task for task, version in archived if version is None])

    def _add_metadata(self, tasks: Iterable[Task]) -> None:
        values = [
            {"key": key, "value": value, "task_id": task.id}
            for task in tasks
            for key, value in task.spec.metadata.items()
        ]
        if values:
            self._session.change(say.insert_metadata, values)

    def _row(self, task: Task) -> rows.Values:
        return rows.task_values(task, self._text(task))

    def _live_row(self, task: Task) -> rows.Values:
        return self._row(task) | rows.live_values(task)

    def _knows(self, task: Task) -> bool:
        known = self._texts.get(task.id)
        return known is not None and known[0] is task.spec

    def _text(self, task: Task) -> str:
        """The spec as JSON; remembered, as most specs never change."""
        known = self._texts.get(task.id)
        if known is not None and known[0] is task.spec:
            return known[1]
        text = encode_spec(task.spec)
        self._texts[task.id] = (task.spec, text)
        return text

    # -- removing ----------------------------------------------------------------------------

    def prune(self, events_before: datetime, tasks_before: datetime, answers_before: datetime,
              limit: int) -> int:  # fmt: skip
        """Remove what is old. Events go from the front, so that the rest has no gaps."""
        return (
            self._prune_events(rows.micros(events_before), limit)
            + self._prune_tasks(rows.micros(tasks_before), limit)
            + self._prune_answers(rows.micros(answers_before), limit)
        )

    def _prune_events(self, before: int, limit: int) -> int:
        old = 0
        last = 0
        for seq, at in self._session.rows(say.oldest_events(limit)):
            if at >= before:
                break
            old, last = old + 1, seq
        if old:
            self._session.change(say.delete_events, {"last": last})
        return old

    def _prune_tasks(self, before: int, limit: int) -> int:
        gone: dict[Status, int] = {}
        removed = 0
        for find, delete in (
            (say.old_archived, say.delete_archived),
            (say.old_ended, say.delete_live),
        ):
            if removed == limit:
                break
            old = self._session.rows(find(limit - removed), {"before": before})
            ids = [task_id for task_id, _ in old]
            for statement in (delete, say.delete_attempts, say.delete_metadata):
                self._delete(statement, ids)
            for _, status in old:
                gone[Status(status)] = gone.get(Status(status), 0) - 1
            removed += len(old)
        self._count(gone)
        return removed

    def _prune_answers(self, before: int, limit: int) -> int:
        old = [row[0] for row in self._session.rows(say.old_answers(limit), {"before": before})]
        self._delete(say.delete_answers, old)
        return len(old)

    def _delete(self, statement: sa.Executable, ids: Sequence[str]) -> None:
        for chunk in chunks(ids, say.ID_LIST_MAX):
            self._session.change(statement, {"ids": chunk})
