"""The database of a run: the real tables and the real SQL, in memory, with a disk that fails.

Faults lie below SQLAlchemy, where SQLite's own would come from. What is committed, and nothing else,
survives a crash: the image is taken from the connection with what it has not committed undone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
import trio

from engine.adapters.storage import migrations
from engine.adapters.storage.sqlite import READERS, SqliteStore
from engine.adapters.storage.sqlite_file import make_engine
from engine.adapters.threads import InlineRunSync
from engine.ports.store import Store

from .faults import Luck

T = TypeVar("T")

_FAULTS = {
    "store.busy": (sqlite3.SQLITE_BUSY, "database is locked"),
    "store.full": (sqlite3.SQLITE_FULL, "database or disk is full"),
    "store.io_before": (sqlite3.SQLITE_IOERR, "disk I/O error"),
    "store.io_after": (sqlite3.SQLITE_IOERR, "disk I/O error"),
    "store.read": (sqlite3.SQLITE_IOERR, "disk I/O error"),
}


class Dead(BaseException):
    """Raised to a process that has been killed, by whatever it asks of the world."""


class Process(Protocol):
    """Who has the disk open."""

    dead: bool

    def crash(self, how: str) -> None:
        """It is killed, now."""
        ...

    def waiting(self) -> AbstractContextManager[object]:
        """A scope for a wait that nothing but being killed can cut short."""
        ...


class Witness(Protocol):
    """Who is told what happens to the data."""

    def committed(self, connection: sqlite3.Connection, *, unknown: bool) -> None:
        """A transaction has taken effect; if ``unknown``, whoever committed it is told it failed."""
        ...

    def failed(self, kind: str) -> None:
        """A transaction has failed, and left nothing."""
        ...


class _Cursor(sqlite3.Cursor):
    """Says before each statement that it comes."""

    connection: _Connection

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:
        self.connection.before(sql)
        super().execute(sql, parameters)
        return self

    def executemany(self, sql: str, parameters: Any, /) -> _Cursor:
        self.connection.before(sql)
        super().executemany(sql, parameters)
        return self


class _Connection(sqlite3.Connection):
    """The one connection of a process. Decides at the beginning of each transaction how it ends."""

    disk: Disk
    process: Process
    doom: str | None = None  # how the transaction that runs will fail
    writes: bool = False
    changes: int = 0  # of all that is committed

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith("BEGIN"):
            self._begin(writes="IMMEDIATE" in sql)
        return super().execute(sql, parameters)

    def commit(self) -> None:
        if self.process.dead:
            raise Dead
        doom, self.doom = self.doom, None
        if not self.writes:
            super().commit()
            return
        if doom == "crash.before_commit":
            self.disk.luck.struck(doom)
            self.process.crash("before a commit")
            raise Dead
        if doom == "store.io_before":
            self.rollback()  # as SQLite does after such an error
            raise self.disk.error(doom)
        super().commit()
        if self.total_changes != self.changes:
            self.changes = self.total_changes
            self.disk.witness.committed(self, unknown=doom == "store.io_after")
        if doom == "store.io_after":
            raise self.disk.error(doom)
        if doom == "crash.after_commit":
            self.disk.luck.struck(doom)
            self.process.crash("after a commit")
            raise Dead

    def rollback(self) -> None:
        if not self.process.dead:  # else its disk has been taken away
            super().rollback()
            self.changes = self.total_changes

    def close(self) -> None:
        """SQLAlchemy closes it once for each of its connections; the disk closes it once."""

    def _begin(self, *, writes: bool) -> None:
        self.writes = writes
        if self.process.dead:
            raise Dead
        self.doom = self.disk.doom() if writes else None
        if self.doom == "store.busy":
            self.doom = None
            raise self.disk.error("store.busy")
        if not writes and self.disk.luck.strikes("store.read"):
            raise self.disk.error("store.read")

    def before(self, sql: str) -> None:
        """A statement comes."""
        if self.process.dead:
            raise Dead
        if not self.in_transaction and self.disk.luck.strikes("store.read"):
            raise self.disk.error("store.read")
        if self.doom == "store.full" and not sql.startswith("SELECT"):
            self.doom = None
            self.rollback()  # SQLite undoes all of it by itself
            raise self.disk.error("store.full")


class Disk:
    """What outlives a process."""

    def __init__(self, luck: Luck, witness: Witness) -> None:
        self.luck = luck
        self.witness = witness
        self.out_until = 0.0  # every transaction fails
        self._image = _empty_database()
        self._open: _Connection | None = None

    def __repr__(self) -> str:
        return f"<Disk {len(self._image)} bytes, {'open' if self._open else 'closed'}>"

    @asynccontextmanager
    async def open(self, process: Process) -> AsyncIterator[Store]:
        """The store, for one process."""
        await trio.lowlevel.checkpoint()
        connection = self._open = sqlite3.connect(
            ":memory:", isolation_level=None, cached_statements=256, factory=_Connection
        )
        connection.disk, connection.process = self, process
        connection.deserialize(self._image)
        connection.changes = connection.total_changes
        writer, *readers = (_connected(connection, begin) for begin in _BEGINNINGS)
        run = [_RunSync(self.luck, process) for _ in _BEGINNINGS]
        try:
            yield SqliteStore(run[0], writer, list(zip(run[1:], readers, strict=True)))
        finally:
            for one in (writer, *readers):
                one.close()
            self.keep()

    def keep(self) -> None:
        """The process is gone, and with it what it has not committed."""
        if self._open is not None:
            connection, self._open = self._open, None
            sqlite3.Connection.rollback(connection)
            self._image = connection.serialize()
            sqlite3.Connection.close(connection)

    def look(self) -> sqlite3.Connection:
        """A copy of what is durable, to look at."""
        copy = sqlite3.connect(":memory:")
        copy.deserialize(self._image if self._open is None else self._open.serialize())
        return copy

    def doom(self) -> str | None:
        """How a transaction that begins now will fail."""
        if trio.current_time() < self.out_until and not self.luck.calm:
            return "store.io_before"
        for kind in ("store.busy", "store.full", "store.io_before", "store.io_after"):
            if self.luck.strikes(kind):
                return kind
        for kind in ("crash.before_commit", "crash.after_commit"):
            if self.luck.strikes(kind):
                return kind
        return None

    def error(self, kind: str) -> sqlite3.OperationalError:
        """SQLite's error."""
        if kind not in ("store.io_after", "store.read"):
            self.witness.failed(kind)
        code, text = _FAULTS[kind]
        error = sqlite3.OperationalError(text)
        error.sqlite_errorcode = code
        return error


class _RunSync:
    """Calls in line, each after the time that a disk takes."""

    def __init__(self, luck: Luck, process: Process) -> None:
        self._luck = luck
        self._process = process
        self._turn = trio.Lock()
        self._run = InlineRunSync()

    async def __call__(self, function: Callable[[], T]) -> T:
        """The function's result or exception."""
        async with self._turn:
            await self._latency()
            with trio.CancelScope(shield=True):
                try:
                    result = await self._run(partial(self._alive, function))
                finally:
                    await self._latency()
            if self._process.dead:
                raise Dead
        return result

    def _alive(self, function: Callable[[], T]) -> T:
        if self._process.dead:
            raise Dead
        return function()

    async def _latency(self) -> None:
        seconds = 0.0
        if self._luck.strikes("store.latency"):
            seconds = self._luck.stream("store.latency").choice([0.001, 0.05, 0.5, 5.0])
        if self._luck.strikes("store.stall"):
            seconds = self._luck.stream("store.stall").uniform(30.0, 120.0)
        if seconds:
            with self._process.waiting():
                with trio.move_on_after(seconds):
                    await self._luck.calmed.wait()


_BEGINNINGS = ("BEGIN IMMEDIATE", *(["BEGIN"] * READERS))
_opening: list[sqlite3.Connection] = []


def _connected(connection: _Connection, begin: str) -> sa.Connection:
    return _opened(_engine(begin), connection)


def _opened(engine: sa.Engine, connection: sqlite3.Connection) -> sa.Connection:
    _opening.append(connection)
    try:
        return engine.connect()
    finally:
        _opening.clear()


@lru_cache
def _engine(begin: str) -> sa.Engine:
    """The product's, one for all runs: it keeps the compiled statements. It is given connections
    instead of making them."""
    engine = make_engine(Path(":memory:"), begin)

    @sa.event.listens_for(engine, "do_connect")
    def give(*_: object) -> sqlite3.Connection:
        return _opening[0]

    # A new engine has questions to its first connection. They must not meet a disk that fails, or the
    # first run of a process would be another than the same seed later.
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as first:
        _opened(engine, first).close()
    return engine


@lru_cache
def _empty_database() -> bytes:
    """The tables of the newest revision, made by the product's migrations."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.connect() as connection:
        with connection.begin():
            migrations.upgrade(connection)
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        image = driver.serialize()
    engine.dispose()
    return image
