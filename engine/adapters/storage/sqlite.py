"""Tasks in one SQLite file, for one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import attrs
import sqlalchemy as sa
import trio

from engine.adapters.errors import sqlite_error
from engine.adapters.threads import ThreadRunSync
from engine.core.batch import Records
from engine.core.queries import TaskQuery
from engine.core.task import Attempt, Event, Status, Task, TaskId
from engine.errors import StoreUnavailable
from engine.ports.run_sync import RunSync
from engine.ports.store import Store, StoreCapabilities

from . import migrations, reads
from .known import Known
from .session import Session
from .sql import SqlRecords, load_counts
from .sqlite_file import (
    check_complete,
    connected,
    create_private,
    driver_of,
    finishing,
    inspect,
    locked,
    noted,
    opening,
    our_errors,
    revision as revision_of,
)
from .sqlite_mark import Mark, Noted

R = TypeVar("R")

READERS = 2
CLOSE_TIMEOUT_S = 30.0

Readers: TypeAlias = list[tuple[RunSync, sa.Connection]]


class SqliteStore:
    """One connection writes, a few others read. Reads never wait for writes, nor writes for reads."""

    capabilities = StoreCapabilities(durable=True, exclusive=True)

    def __init__(
        self,
        run_write: RunSync,
        writer: sa.Connection,
        readers: Readers,
        committed: Callable[[int | None], None] = lambda _seq: None,
    ) -> None:
        """``committed`` is told the newest event after a commit, if it is known."""
        self._run_write = run_write
        self._writer = writer
        self._committed = committed
        self._path = Path(writer.engine.url.database or "")
        self._known = Known()
        self._idle = list(readers)
        self._turns = trio.CapacityLimiter(len(readers))

    def __repr__(self) -> str:
        return f"<SqliteStore {self._writer.engine.url.database}>"

    async def transact(self, work: Callable[[Records], R]) -> R:
        """Run ``work`` in one transaction and commit it."""

        def transaction() -> R:
            try:
                with our_errors(self._path), self._writer.begin():
                    result = work(SqlRecords(Session(self._writer, sqlite_error), self._known))
            except BaseException:
                self._known.clear()  # whether it was undone or, perhaps, not
                raise
            self._committed(self._known.last_seq)
            return result

        return await self._run_write(transaction)

    async def get(self, task_id: TaskId) -> Task | None:
        """The task, live or archived."""
        return await self._ask(partial(reads.task_of, task_id=task_id))

    async def tasks(self, query: TaskQuery, limit: int, offset: int = 0) -> list[Task]:
        """Matching tasks, newest first."""
        return await self._read(partial(reads.tasks, query=query, limit=limit, offset=offset))

    async def snapshot(self, query: TaskQuery, limit: int) -> tuple[int, list[Task]]:
        """Matching tasks, and the newest event they show."""
        return await self._read(partial(reads.snapshot, query=query, limit=limit))

    async def count(self, query: TaskQuery) -> int:
        """How many tasks match."""
        return await self._read(partial(reads.count, query=query))

    async def counts(self) -> Mapping[Status, int]:
        """How many tasks have each status."""
        return await self._read(load_counts)

    async def oldest_waiting(self) -> Task | None:
        """The Queued task that was created first."""
        return await self._read(reads.oldest_waiting)

    async def partition_holder(self, partition_key: str) -> TaskId | None:
        """The task that goes before all others of this key."""
        return await self._read(partial(reads.partition_holder, partition_key=partition_key))

    async def attempts(self, task_id: TaskId) -> list[Attempt]:
        """The task's attempts."""
        return await self._read(partial(reads.attempts, task_id=task_id))

    async def task_events(self, task_id: TaskId) -> list[Event]:
        """The task's events that are still kept."""
        return await self._read(partial(reads.task_events, task_id=task_id))

    async def events(self, after: int, limit: int) -> Sequence[Event]:
        """Events after ``after``."""
        return await self._read(partial(reads.events, after=after, limit=limit))

    async def event_range(self) -> tuple[int, int]:
        """``seq`` of the oldest event kept and of the newest ever written."""
        return await self._read(reads.event_range)

    async def _read(self, question: Callable[[Session], R]) -> R:
        def transaction(session: Session) -> R:
            with session.connection.begin():
                return question(session)

        return await self._ask(transaction)

    async def _ask(self, question: Callable[[Session], R]) -> R:
        async with self._turns:
            run, connection = self._idle.pop()

            def answer() -> R:
                with our_errors(self._path):
                    return question(Session(connection, sqlite_error))

            try:
                return await run(answer)
            finally:
                self._idle.append((run, connection))


@asynccontextmanager
async def open_sqlite_store(
    path: str, make_run_sync: Callable[[], RunSync] = ThreadRunSync
) -> AsyncIterator[Store]:
    """The store in this file, which is made if there is none. Every connection gets its own
    ``RunSync``. Raises ``StoreLocked``, ``StoreDamaged`` or ``StoreUnavailable``."""
    file = Path(path)
    run_write = make_run_sync()
    with locked(file) as mark:
        writer = await run_write(partial(_open_writer, file, mark))
        readers: Readers = []
        try:
            for _ in range(READERS):
                run = make_run_sync()
                readers.append((run, await run(partial(_open_reader, file))))
            yield SqliteStore(run_write, writer, readers, mark.committed)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT_S):
                for run, connection in readers:
                    await run(connection.close)
                await run_write(finishing(writer, mark))


def _open_writer(path: Path, mark: Mark, *, accept_loss: bool = False) -> sa.Connection:
    with opening(path):
        found = inspect(path)
        if not accept_loss:
            check_complete(found, mark)
        create_private(path)
        connection = connected(path, "BEGIN IMMEDIATE")
        try:
            with connection.begin():
                migrations.upgrade(connection)
            _begin(mark, noted(driver_of(connection)), accept_loss=accept_loss)
        except BaseException:
            connection.close()
            raise
    return connection


def _begin(mark: Mark, now: Noted, *, accept_loss: bool) -> None:
    """Note which database this is. That its newest events are on disk is not known yet: a process
    that was killed may have left them to the system alone."""
    known = None if accept_loss else mark.read()
    try:
        mark.begin(known or attrs.evolve(now, seq=0))
    except OSError as error:
        raise StoreUnavailable(f"its lock file cannot be written: {error.strerror}") from error


def _open_reader(path: Path) -> sa.Connection:
    with opening(path):
        return connected(path, "BEGIN")


def migrate(path: str, *, accept_loss: bool = False) -> None:
    """Make the file's tables those this code needs; with ``accept_loss``, whatever is missing."""
    file = Path(path)
    with locked(file) as mark:
        finishing(_open_writer(file, mark, accept_loss=accept_loss), mark)()


def revision(path: str) -> str | None:
    """The revision of the file's tables; ``None`` if there are none, or no file."""
    file = Path(path)
    with opening(file):
        return revision_of(file)
