"""What is asked outside of transactions that write. The same for all dialects."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs
import sqlalchemy as sa

from engine.core.lifecycle import FINAL
from engine.core.queries import Kept, TaskQuery
from engine.core.task import Attempt, Event, Status, Task, TaskId
from engine.errors import TaskDamaged

from . import rows, statements as say
from .schema import archive, task, task_metadata
from .session import Session
from .sql import load_counts, load_tasks

LIVE = frozenset(Status) - FINAL

_MERGED_MAX = 100  # databases limit how many selects they merge


def task_of(session: Session, task_id: TaskId) -> Task | None:
    """The task, live or archived. Needs no transaction."""
    row = session.look_up(task_id)
    return None if row is None else rows.task_from(row)


def tasks(session: Session, query: TaskQuery, limit: int, offset: int) -> list[Task]:
    """Matching tasks, newest first. Ids come first, from indexes; rows only for what is shown."""
    matching = ids_matching(query)
    if limit <= 0 or not matching:
        return []
    found = sa.union_all(*matching) if len(matching) > 1 else matching[0]
    newest = found.order_by(sa.literal_column("id").desc())
    read: list[Task] = []
    while wanted := limit - len(read):  # more than once only if some cannot be read
        ids = [row[0] for row in session.rows(newest.limit(wanted).offset(offset))]
        by_id = load_tasks(session, ids) if ids else {}
        read += [by_id[task_id] for task_id in ids if task_id in by_id]
        offset += len(ids)
        if len(ids) < wanted:
            break
    return read


def snapshot(session: Session, query: TaskQuery, limit: int) -> tuple[int, list[Task]]:
    """Matching tasks, and the newest event they show: of one moment, being one transaction."""
    newest: int = session.rows(say.last_seq)[0][0]
    return newest, tasks(session, query, limit, 0)


def count(session: Session, query: TaskQuery) -> int:
    """How many tasks match, from the counters if they can tell."""
    query = attrs.evolve(query, before=None)
    if query.by_status_only:
        counts = load_counts(session)
        return sum(
            counts[status]
            for table, statuses in _places(query)
            for status in statuses or (FINAL if table is archive else LIVE)
        )
    matching = [
        sa.select(sa.func.count()).select_from(one.subquery()) for one in ids_matching(query)
    ]
    return sum(session.rows(one)[0][0] for one in matching)


def ids_matching(query: TaskQuery) -> list[sa.Select[TaskId]]:
    """Selects of ids that each walk one index in order of id. The database merges them, so that
    nothing is ever sorted: one for each name, or else for each status, of each table."""
    found = []
    for table, statuses in _places(query):
        one = _Walk(table, statuses, query.names, query)
        found += one.split()
    return [walk.select() for walk in found]


def _places(query: TaskQuery) -> list[tuple[sa.Table, frozenset[Status]]]:
    """The tables to look at, and for which statuses; no statuses: for all."""
    tables = {Kept.LIVE: (task,), Kept.ARCHIVE: (archive,), Kept.ANYWHERE: (task, archive)}
    places = []
    for table in tables[query.kept]:
        statuses = query.statuses & (FINAL if table is archive else LIVE)
        if statuses or not query.statuses:
            places.append((table, statuses))
    return places


@attrs.frozen
class _Walk:
    """A select of ids in one table."""

    table: sa.Table
    statuses: frozenset[Status]
    names: frozenset[str]
    query: TaskQuery

    def split(self) -> list[_Walk]:
        """One walk for each value of what is indexed, unless something else leads the way."""
        if self.query.task_ids or self.query.metadata or len(self.names) > _MERGED_MAX:
            return [self]
        if self.names:
            return [attrs.evolve(self, names=frozenset({name})) for name in sorted(self.names)]
        if self.statuses:
            return [attrs.evolve(self, statuses=frozenset({one})) for one in sorted(self.statuses)]
        return [self]

    def select(self) -> sa.Select[TaskId]:
        """Its statement, not yet ordered."""
        columns, query = self.table.c, self.query
        task_id: sa.ColumnElement[TaskId] = columns.id
        conditions: list[sa.ColumnElement[bool]] = []
        for key, value in sorted(query.metadata.items()):
            label = task_metadata.alias()
            if task_id is columns.id:
                task_id = label.c.task_id  # walk the first label's index; its order is the same
            conditions += [label.c.task_id == columns.id, label.c.key == key]
            conditions.append(label.c.value == value)
        if query.task_ids:
            conditions.append(columns.id.in_(sorted(query.task_ids)))
        conditions += _is_one_of(columns.status, [status.value for status in self.statuses])
        conditions += _is_one_of(columns.name, self.names)
        if query.priority is not None:
            conditions.append(columns.priority == query.priority)
        if query.created_after is not None:
            conditions.append(columns.created_at > rows.micros(query.created_after))
        if query.created_before is not None:
            conditions.append(columns.created_at < rows.micros(query.created_before))
        if query.before is not None:
            conditions.append(task_id < query.before)
        return sa.select(task_id.label("id")).where(*conditions)


def _is_one_of(
    column: sa.ColumnElement[str], values: Collection[str]
) -> list[sa.ColumnElement[bool]]:
    if len(values) == 1:
        return [column == next(iter(values))]  # an equality keeps the index's order, a list not
    return [column.in_(sorted(values))] if values else []


def oldest_waiting(session: Session) -> Task | None:
    """The Queued task that was created first, unless it cannot be read."""
    found = session.rows(say.oldest_queued)
    try:
        return rows.task_from(found[0]) if found else None
    except TaskDamaged:  # whoever is to run it will say so
        return None


def partition_holder(session: Session, partition_key: str) -> TaskId | None:
    """The task that goes before all others of this key."""
    found = session.rows(say.holder, {"key": partition_key})
    return found[0][0] if found else None


def attempts(session: Session, task_id: TaskId) -> list[Attempt]:
    """The task's attempts, first one first."""
    return [rows.attempt_from(row) for row in session.rows(say.attempts_of, {"one": task_id})]


def task_events(session: Session, task_id: TaskId) -> list[Event]:
    """The task's events that are still kept, first one first."""
    return [rows.event_from(row) for row in session.rows(say.events_of, {"one": task_id})]


def events(session: Session, after: int, limit: int) -> Sequence[Event]:
    """Events after ``after``, in order."""
    found = session.rows(say.events_after(limit), {"after": after})
    return [rows.event_from(row) for row in found]


def event_range(session: Session) -> tuple[int, int]:
    """``seq`` of the oldest event kept and of the newest ever written."""
    newest: int = session.rows(say.last_seq)[0][0]
    oldest = session.rows(say.first_seq)
    return (oldest[0][0] if oldest else newest + 1, newest)
