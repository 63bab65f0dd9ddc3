"""What is said to the database, named. One set for all dialects.

Limits are plain numbers, not parameters: SQL Server turns a parameter into a numbered subquery.
Conditions of partial indexes are literals: a parameter would hide the index from the planner.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy import bindparam

from engine.core.task import Status

from .many import Convert, Many, converter, given, inserting, many
from .rows import BLOCKED, CHANGED_COLUMNS, HOLDS, READ_COLUMNS
from .schema import (
    READY,
    READY_TO_RUN,
    SCHEDULED,
    archive,
    attempt,
    counter,
    event,
    idempotency,
    status_count,
    task,
    task_metadata,
)

ID_LIST_MAX = 500
"""Most ids in one statement; databases limit the number of parameters."""

_EVENT: sa.ColumnElement[str] = sa.literal_column("'event'")
"""The counter of events."""

_ids: sa.BindParameter[Any] = bindparam("ids", expanding=True)

# -- reading ---------------------------------------------------------------------------------

_live, _archived = (
    sa.select(*(table.c.get(name, sa.null()) for name in READ_COLUMNS)) for table in (task, archive)
)
live_by_ids = _live.where(task.c.id.in_(_ids))
archived_by_ids = _archived.where(archive.c.id.in_(_ids))
live_by_id = _live.where(task.c.id == bindparam("one"))
archived_by_id = _archived.where(archive.c.id == bindparam("one"))
all_counts = sa.select(status_count.c.status, status_count.c.n)
holder = sa.select(task.c.id).where(
    task.c.partition_key == bindparam("key"), task.c.turn == sa.literal_column(f"'{HOLDS}'")
)
next_blocked = (
    _live.where(
        task.c.partition_key == bindparam("key"),
        task.c.turn == sa.literal_column(f"'{BLOCKED}'"),
    )
    .order_by(task.c.id)
    .limit(1)
)
oldest_queued = (
    _live.where(
        task.c.status == sa.literal_column(f"'{Status.QUEUED.value}'"),
        task.c.lane.is_not(None),  # else it was set aside
    )
    .order_by(task.c.id)
    .limit(1)
)
answer = sa.select(idempotency).where(
    idempotency.c.hash == bindparam("hash"), idempotency.c.created_at >= bindparam("since")
)
attempts_of = (
    sa.select(attempt).where(attempt.c.task_id == bindparam("one")).order_by(attempt.c.number)
)
events_of = sa.select(event).where(event.c.task_id == bindparam("one")).order_by(event.c.seq)
# "From the first" is what tells SQLite to look for it instead of walking.
first_seq = sa.select(event.c.seq).where(event.c.seq >= 1).order_by(event.c.seq).limit(1)
last_seq = sa.select(counter.c.value).where(counter.c.name == _EVENT)


@attrs.frozen(eq=False)
class LookUp:
    """How to find a task, live or archived."""

    text: str  # its only parameters: the id, twice
    id_to: Convert  # what the database calls it,
    id_from: Convert  # and we


@lru_cache(maxsize=8)
def look_up(dialect: sa.Dialect) -> LookUp:
    """Rendered once for each database opened."""
    one: sa.BindParameter[Any] = bindparam("one")
    live = _live.where(task.c.id == one)
    anywhere = sa.union_all(live, _archived.where(archive.c.id == one))
    text, id_to = str(anywhere.compile(dialect=dialect)), converter(task.c.id, dialect)
    return LookUp(text, id_to, converter(task.c.id, dialect, back=True))


@lru_cache(maxsize=64)
def events_after(limit: int) -> sa.Select[Any]:
    """The next events of the whole log."""
    return (
        sa.select(event).where(event.c.seq > bindparam("after")).order_by(event.c.seq).limit(limit)
    )


@lru_cache(maxsize=64)
def expired(limit: int) -> sa.Select[Any]:
    """Tasks whose lease or deadline has passed."""
    return (
        _live.where(task.c.expires_at <= bindparam("now"))
        .order_by(task.c.expires_at, task.c.id)
        .limit(limit)
    )


@lru_cache(maxsize=64)
def running(limit: int) -> sa.Select[Any]:
    """Attempts under way that are not ours."""
    return (
        _live.where(
            task.c.status == sa.literal_column(f"'{Status.PROCESSING.value}'"),
            task.c.owner != bindparam("owner"),
        )
        .order_by(task.c.id)
        .limit(limit)
    )


_entries = sa.select(task.c.id, task.c.rank, task.c.due_at, task.c.destination)
_IN_LANE = task.c.lane == bindparam("lane")


@lru_cache(maxsize=64)
def ready(limit: int) -> sa.Select[Any]:
    """The head of a lane."""
    return _entries.where(_IN_LANE, sa.text(READY)).order_by(task.c.rank, task.c.id).limit(limit)


@lru_cache(maxsize=64)
def ready_without(limit: int) -> sa.Select[Any]:
    """The head of a lane, without what goes to some destinations. Reads one index alone."""
    elsewhere = task.c.destination.not_in(bindparam("destinations", expanding=True))
    return ready(limit).where(elsewhere)


@lru_cache(maxsize=64)
def ready_at(limit: int) -> sa.Select[Any]:
    """What goes to one destination."""
    goes_there = task.c.destination == bindparam("destination")
    return (
        _entries.where(goes_there, sa.text(READY_TO_RUN))
        .order_by(task.c.rank, task.c.id)
        .limit(limit)
    )


@lru_cache(maxsize=64)
def scheduled(limit: int) -> sa.Select[Any]:
    """What becomes due next in a lane."""
    return (
        _entries.where(_IN_LANE, sa.text(SCHEDULED))
        .order_by(task.c.due_at, task.c.rank, task.c.id)
        .limit(limit)
    )


# -- writing ---------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Writes:
    """What is written for every task, for many at once."""

    insert_tasks: Many
    insert_archived: Many
    insert_events: Many
    insert_attempts: Many
    insert_metadata: Many
    insert_answers: Many
    update_states: Many  # id and version as they must be, and ``CHANGED_COLUMNS``
    delete_tasks: Many  # id and version as they must be
    add_to_counts: Many  # status and what to add
    count_events: Many  # the last event's number as it must be, and as it will be


@lru_cache(maxsize=8)
def writes(dialect: sa.Dialect) -> Writes:
    """Rendered once for each database opened."""
    states = {name: task.c[name] for name in CHANGED_COLUMNS}
    changed = given("changed", known_id=task.c.id, known_version=task.c.version, **states)
    update = (
        sa.update(task)
        .where(task.c.id == changed.c.known_id, task.c.version == changed.c.known_version)
        .values({name: changed.c[name] for name in states})
    )
    ended = given("ended", id=task.c.id, version=task.c.version)
    found = task.alias("found")  # no database has an index for pairs of id and version
    as_known = sa.and_(found.c.id == ended.c.id, found.c.version == ended.c.version)
    delete = sa.delete(task).where(task.c.id.in_(sa.select(found.c.id).join(ended, as_known)))
    more = given("more", status=status_count.c.status, n=status_count.c.n)
    count = (
        sa.update(status_count)
        .where(status_count.c.status == more.c.status)
        .values(n=status_count.c.n + more.c.n)
    )
    moved = given("moved", before=counter.c.value, after=counter.c.value)
    count_events = (
        sa.update(counter)
        .where(counter.c.name == _EVENT, counter.c.value == moved.c.before)
        .values(value=moved.c.after)
    )
    return Writes(
        insert_tasks=inserting(task, dialect),
        insert_archived=inserting(archive, dialect),
        insert_events=inserting(event, dialect),
        insert_attempts=inserting(attempt, dialect),
        insert_metadata=inserting(task_metadata, dialect),
        insert_answers=inserting(idempotency, dialect),
        update_states=many(update, changed, dialect),
        delete_tasks=many(delete, ended, dialect),
        add_to_counts=many(count, more, dialect),
        count_events=many(count_events, moved, dialect),
    )


# What is not in the indexes of what waits, runs or expires is not found there. A partition key it
# holds it goes on holding: order goes before progress.
set_aside = (
    sa.update(task)
    .where(
        task.c.id == bindparam("one"),
        sa.or_(
            *(one.is_not(None) for one in (task.c.lane, task.c.expires_at, task.c.owner)),
            task.c.turn == sa.literal_column(f"'{BLOCKED}'"),
        ),
    )
    .values(
        lane=sa.null(),
        wait=sa.null(),
        turn=sa.case(
            (task.c.turn == sa.literal_column(f"'{HOLDS}'"), task.c.turn), else_=sa.null()
        ),
        expires_at=sa.null(),
        owner=sa.null(),
    )
)
update_task = sa.update(task).where(  # sets the columns it is given values for
    task.c.id == bindparam("known_id"), task.c.version == bindparam("known_version")
)
next_seqs = (
    sa.update(counter)
    .where(counter.c.name == _EVENT)
    .values(value=counter.c.value + bindparam("more"))
    .returning(counter.c.value)
)


@lru_cache(maxsize=64)
def promote(limit: int) -> sa.Executable:
    """Make scheduled tasks that have become due ready; gives their ids."""
    due = (
        sa.select(task.c.id)
        .where(
            task.c.lane == bindparam("of_lane"),
            sa.text(SCHEDULED),
            task.c.due_at <= bindparam("now"),
        )
        .order_by(task.c.due_at, task.c.rank, task.c.id)
        .limit(limit)
    )
    ready = sa.update(task).where(task.c.id.in_(due)).values(wait=sa.literal_column("'ready'"))
    return ready.returning(task.c.id)


# -- removing --------------------------------------------------------------------------------

delete_live = sa.delete(task).where(task.c.id.in_(_ids))
delete_archived = sa.delete(archive).where(archive.c.id.in_(_ids))
delete_attempts = sa.delete(attempt).where(attempt.c.task_id.in_(_ids))
delete_metadata = sa.delete(task_metadata).where(task_metadata.c.task_id.in_(_ids))
delete_answers = sa.delete(idempotency).where(idempotency.c.hash.in_(_ids))
delete_events = sa.delete(event).where(event.c.seq <= bindparam("last"))


@lru_cache(maxsize=64)
def oldest_events(limit: int) -> sa.Select[Any]:
    """The events that go first."""
    from_the_first = sa.select(event.c.seq, event.c.at).where(event.c.seq >= 1)
    return from_the_first.order_by(event.c.seq).limit(limit)


@lru_cache(maxsize=64)
def old_archived(limit: int) -> sa.Select[Any]:
    """Archived tasks that have been there for long."""
    return _ended_before(archive, archive.c.archived_at, limit)


@lru_cache(maxsize=64)
def old_ended(limit: int) -> sa.Select[Any]:
    """Live tasks that ended long ago: given up, and nobody asked for another round."""
    return _ended_before(task, task.c.completed_at, limit)


def _ended_before(table: sa.Table, moment: sa.Column[Any], limit: int) -> sa.Select[Any]:
    old = sa.select(table.c.id, table.c.status).where(moment < bindparam("before"))
    return old.order_by(moment, table.c.id).limit(limit)


@lru_cache(maxsize=64)
def old_answers(limit: int) -> sa.Select[Any]:
    """Answers that are no longer repeated."""
    return (
        sa.select(idempotency.c.hash)
        .where(idempotency.c.created_at < bindparam("before"))
        .order_by(idempotency.c.created_at, idempotency.c.hash)
        .limit(limit)
    )
