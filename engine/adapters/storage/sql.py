"""The records inside one transaction. The same for all dialects."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa

from engine.core.batch import WriteSet
from engine.core.commands import StoredAnswer
from engine.core.entries import Entry
from engine.core.task import CallbackResult, Event, Lane, Status, Task, TaskId
from engine.errors import StoreConflict, StoreDamaged, TaskDamaged

from . import rows, schema, statements as say
from .known import Known
from .many import Row
from .session import Session

T = TypeVar("T")

_log = logging.getLogger("ringback.store")
_SPEC, _VERSION = map(rows.TASK_COLUMNS.index, ("spec", "version"))


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most ``size``."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def load_tasks(session: Session, ids: Collection[TaskId]) -> dict[TaskId, Task]:
    """The tasks that exist, live or archived, and can be read."""
    found: dict[TaskId, Task] = {}
    for row in load_rows(session, ids):
        try:
            found[row[0]] = rows.task_from(row)
        except TaskDamaged as damaged:
            _log.error("left out: %s; restore the database from a backup", damaged)
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
    """``engine.core.batch.Records`` for one transaction. What is ``known`` is not asked for; that it
    is still true is found out when it is written."""

    def __init__(self, session: Session, known: Known) -> None:
        self._session = session
        self._known = known
        self._say = say.writes(session.connection.dialect)

    # -- reading -----------------------------------------------------------------------------

    def load(self, ids: Collection[TaskId]) -> dict[TaskId, Task | TaskDamaged]:
        """The tasks that exist, live or archived; instead of one that cannot be read, why."""
        found: dict[TaskId, Task | TaskDamaged] = {}
        missing = set()
        for task_id in ids:
            known = self._known.task(task_id)
            if known is None:
                missing.add(task_id)
            else:
                found[task_id] = known
        if missing:
            found |= {row[0]: self._task(row) for row in load_rows(self._session, missing)}
        return found

    def counts(self) -> Mapping[Status, int]:
        """How many tasks have each status, archived ones included."""
        if self._known.counts is None:
            self._known.counts = load_counts(self._session)
        return self._known.counts

    def holder(self, partition_key: str) -> TaskId | None:
        """The task of this key that has not ended and is not blocked."""
        found = self._session.rows(say.holder, {"key": partition_key})
        return found[0][0] if found else None

    def next_blocked(self, partition_key: str) -> Task | None:
        """The oldest blocked task of this key."""
        damaged = None
        while found := self._session.rows(say.next_blocked, {"key": partition_key}):
            task = self._task(found[0])
            if isinstance(task, Task):
                return task
            if task.task_id == damaged:  # it could not be set aside either
                break
            damaged = task.task_id
        return None

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
        for row in self._session.rows(say.promote(limit), values):
            self._known.forget(row[0])

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
        """Without those that cannot be read."""
        return [task for task in map(self._task, found) if isinstance(task, Task)]

    def _task(self, row: Sequence[Any]) -> Task | TaskDamaged:
        task = self._known.task(row[0])
        if task is None or task.version != row[_VERSION]:
            try:
                task = rows.task_from(row)
            except TaskDamaged as damaged:
                self._set_aside(damaged)
                return damaged
            if task.archived_at is None:
                self._known.note(task, row[_SPEC])
        return task

    def _set_aside(self, damaged: TaskDamaged) -> None:
        try:
            if not self._session.change(say.set_aside, {"one": damaged.task_id}):
                return  # it was, or it is an archived one
            done = "it is set aside and does not run"
        except StoreDamaged as error:  # its indexes say something else
            done = f"it cannot be set aside: {error}"
        _log.error("%s; %s; restore the database from a backup", damaged, done)

    # -- writing -----------------------------------------------------------------------------

    def write(self, changes: WriteSet) -> int:
        """Write rows; returns the ``seq`` of the first event, 0 if there is none."""
        text_of = _ResultTexts()
        if changes.inserts:
            self._insert(changes.inserts, text_of)
        if changes.updates:
            self._update(changes.updates, text_of)
        if changes.archived:
            self._archive(changes.archived, text_of)
        if changes.attempts:
            logged = [rows.attempt_row(one, text_of(one.result)) for one in changes.attempts]
            self._session.write(self._say.insert_attempts, logged)
        if changes.answers:
            newest = {answer.key.hash: answer for answer in changes.answers}
            self._delete(say.delete_answers, list(newest))  # older ones that have run out
            answers = [rows.answer_row(answer) for answer in newest.values()]
            self._session.write(self._say.insert_answers, answers)
        self._count(changes.counts)
        return self._log(changes.events, text_of) if changes.events else 0

    def _log(self, events: Sequence[Event], text_of: _ResultTexts) -> int:
        last = self._known.last_seq
        if last is None:
            asked = self._session.rows(say.next_seqs, {"more": len(events)})
            last = asked[0][0] - len(events)
        elif not self._session.write(self._say.count_events, [(last, last + len(events))]):
            raise StoreConflict("somebody else counted events")
        self._known.last_seq = last + len(events)
        numbered = enumerate(events, last + 1)
        logged = [rows.event_row(event, seq, text_of(event.result)) for seq, event in numbered]
        self._session.write(self._say.insert_events, logged)
        return last + 1

    def _count(self, deltas: Mapping[Status, int]) -> None:
        if deltas:
            more = [(status.value, n) for status, n in deltas.items()]
            self._session.write(self._say.add_to_counts, more)
            self._known.add_to_counts(deltas)

    def _insert(self, tasks: Sequence[Task], text_of: _ResultTexts) -> None:
        texts = [rows.spec_text(task.spec) for task in tasks]
        inserted = [
            rows.live_row(task, text, text_of(task.result))
            for task, text in zip(tasks, texts, strict=True)
        ]
        self._session.write(self._say.insert_tasks, inserted)
        self._add_metadata(tasks)
        for task, text in zip(tasks, texts, strict=True):
            self._known.note(task, text)

    def _update(self, updates: Sequence[tuple[Task, int]], text_of: _ResultTexts) -> None:
        states: list[Row] = []
        for task, version in updates:
            text = self._known.text(task.id, task.spec)
            if text is None:
                text = rows.spec_text(task.spec)
                self._rewrite(task, version, text, text_of)
            else:
                states.append((task.id, version, *rows.changed_row(task, text_of(task.result))))
            self._known.note(task, text)
        if self._session.write(self._say.update_states, states) != len(states):
            raise StoreConflict("a task was changed by somebody else")

    def _rewrite(self, task: Task, version: int, text: str, text_of: _ResultTexts) -> None:
        """Write a task whose spec is, or may be, another."""
        row = rows.live_row(task, text, text_of(task.result))
        values = dict(zip(schema.task.columns.keys(), row, strict=True))
        known = {"known_id": task.id, "known_version": version}
        if self._session.change(say.update_task, values | known) != 1:
            raise StoreConflict("a task was changed by somebody else")
        self._delete(say.delete_metadata, [task.id])
        self._add_metadata([task])

    def _archive(self, archived: Sequence[tuple[Task, int | None]], text_of: _ResultTexts) -> None:
        moved = [(task.id, version) for task, version in archived if version is not None]
        if self._session.write(self._say.delete_tasks, moved) != len(moved):
            raise StoreConflict("a task was changed by somebody else")
        moved_rows = [
            rows.archived_row(task, self._text(task), text_of(task.result)) for task, _ in archived
        ]
        self._session.write(self._say.insert_archived, moved_rows)
        self._add_metadata([task for task, version in archived if version is None])
        for task, _ in archived:
            self._known.forget(task.id)

    def _add_metadata(self, tasks: Iterable[Task]) -> None:
        labels = [
            (key, value, task.id) for task in tasks for key, value in task.spec.metadata.items()
        ]
        self._session.write(self._say.insert_metadata, labels)

    def _text(self, task: Task) -> str:
        return self._known.text(task.id, task.spec) or rows.spec_text(task.spec)

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
            for task_id in ids:
                self._known.forget(task_id)
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


class _ResultTexts:
    """Results as text. Task, attempt and event often share one, which is then encoded once. Lives
    no longer than the write it is for, as it goes by identity."""

    def __init__(self) -> None:
        self._texts: dict[int, str | None] = {}

    def __call__(self, result: CallbackResult | None) -> str | None:
        key = id(result)
        if key not in self._texts:
            self._texts[key] = rows.result_text(result)
        return self._texts[key]
