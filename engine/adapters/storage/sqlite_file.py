"""One SQLite file: who may have it open, whether it is sound, and how it is opened."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy as sa

from engine.adapters.errors import sqlite_error
from engine.errors import (
    StoreDamaged,
    StoreError,
    StoreIncomplete,
    StoreLocked,
    StoreUnavailable,
    TaskDamaged,
)

from . import migrations, rows
from .sqlite_mark import Mark, Noted

PRIVATE = 0o600
MAGIC = b"SQLite format 3\x00"
CHECKED_BYTES_MAX = 64 * 2**20  # larger files are not read through at every start
CHECKED_TASKS_MAX = 5_000
SETTINGS = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: a commit survives a power cut
    "busy_timeout": 5000,
    "foreign_keys": 1,
    "journal_size_limit": 64 * 2**20,
    "wal_autocheckpoint": 4000,  # pages: 16 MB, so that the same page is seldom copied back twice
    "trusted_schema": 0,
}
"""On every connection; the store does not open unless all of them are in force."""
_RESTORE = "; restore it from a backup"
_HOW_TO_GO_ON = (
    ". Put back the files that are missing or a newer backup; to go on with what is there, run "
    "`ringback migrate --accept-loss` on it"
)


@contextmanager
def locked(path: Path) -> Iterator[Mark]:
    """Own the file while the block lasts. The system frees the lock when a process dies. In the
    lock file stands what is known of the database."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise StoreUnavailable(f"{lock_path} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreLocked(
                f"{path} is in use by another server. Stop that one, or give this one its own file."
            ) from error
        yield Mark(descriptor)
    finally:
        os.close(descriptor)


def create_private(path: Path) -> None:
    """Create the file, if there is none, so that its owner alone can read it: tasks carry
    payloads and credentials. SQLite gives its -wal and -shm files the mode of the database."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    except FileExistsError:
        pass  # with the mode that somebody has chosen
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be created: {error.strerror}") from error


def has_content(path: Path) -> bool:
    """Whether there is a database. Refuses what is none, so that nothing is ever written over it."""
    try:
        with path.open("rb") as file:
            header = file.read(len(MAGIC))
    except FileNotFoundError:
        header = b""
    except OSError as error:
        raise StoreUnavailable(f"it cannot be read: {error.strerror}") from error
    if header and header != MAGIC:
        raise StoreDamaged("this is not a SQLite database; it is left as it is")
    wal = path.with_name(path.name + "-wal")
    if not header and wal.exists() and wal.stat().st_size:  # SQLite would remove it
        raise StoreIncomplete(
            "it is gone or empty, but its -wal file is there; put the database back, or remove "
            "that file too if nothing in it is wanted"
        )
    return bool(header)


def inspect(path: Path) -> Noted | None:
    """Refuse a damaged database, as far as that can be told quickly; which one it is, and how far
    it has come, if it is one of ours.

    Changes nothing, so that everything is still there for whoever has to mend it: a connection
    that may write would move the -wal file into the database when it is closed.
    """
    if not has_content(path):
        return None
    try:
        with our_errors(), read_only(path) as connection:
            if path.stat().st_size <= CHECKED_BYTES_MAX:
                _check_content(connection)
            return noted(connection) if _has(connection, "meta", "counter") else None
    except StoreDamaged as error:
        raise StoreDamaged(f"it is damaged: {error}{_RESTORE}") from error


def _check_content(connection: sqlite3.Connection) -> None:
    """Pages, rows against their indexes, and the first tasks, which will run soon: SQLite has no
    checksum of what is in them."""
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreDamaged(found)
    if _revision(connection) == migrations.HEAD:
        columns = ", ".join(rows.READ_COLUMNS[:-1])
        first = f"SELECT {columns}, NULL FROM task LIMIT {CHECKED_TASKS_MAX}"  # noqa: S608  # our names
        for row in connection.execute(first):
            rows.task_from(row)


@contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that leaves the files as they are; but for what only a writer can finish, if the
    file was cut off while it was made."""
    unfinished = path.with_name(path.name + "-journal").exists()
    address = f"{path.absolute().as_uri()}?mode={'rw' if unfinished else 'ro'}"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA busy_timeout = {SETTINGS['busy_timeout']}").close()
        yield connection


def revision(path: Path) -> str | None:
    """The revision of the file's tables; ``None`` if there are none, or no file."""
    if not has_content(path):
        return None
    with read_only(path) as connection:
        return _revision(connection)


def _revision(connection: sqlite3.Connection) -> str | None:
    if not _has(connection, "alembic_version"):
        return None
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return found and str(found[0])


def _has(connection: sqlite3.Connection, *tables: str) -> bool:
    known = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in known}.issuperset(tables)


def noted(connection: sqlite3.Connection) -> Noted:
    """Which database this is, and its newest event."""
    uuid = "SELECT value FROM meta WHERE name = 'uuid'"
    seq = "SELECT value FROM counter WHERE name = 'event'"
    found = connection.execute(f"SELECT ({uuid}), ({seq})").fetchone()
    if not isinstance(found[0], str) or not isinstance(found[1], int):
        raise StoreDamaged("its name or its counter is gone")
    return Noted(*found)


def check_complete(found: Noted | None, mark: Mark) -> None:
    """Refuse a database that holds less than it is known to have held, or that is another one."""
    try:
        known = mark.read()
    except ValueError as error:
        raise StoreIncomplete(
            "its lock file is damaged, so it cannot be told whether anything is missing; "
            f"the database's newest event is {found.seq if found else 0}{_HOW_TO_GO_ON}"
        ) from error
    if known is None:
        return
    if found is None:
        what = f"there are no tasks in it, though it is known to have had {known.seq} events"
    elif found.uuid != known.uuid:
        what = f"it is another database ({found.uuid}) than was here before ({known.uuid})"
    elif found.seq < known.seq:
        missing = known.seq - found.seq
        what = (
            f"{missing} events are missing: its newest is {found.seq}, and {known.seq} was on disk"
        )
    else:
        return
    raise StoreIncomplete(f"{what}{_HOW_TO_GO_ON}")


def _text(stored: bytes) -> str:
    """A damaged text must not hide the whole rows around it; checksums tell of it."""
    return stored.decode(errors="replace")


def make_engine(path: Path, begin: str) -> sa.Engine:
    """Connections with our settings, whose transactions start with ``begin``."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.NullPool,
        hide_parameters=True,  # payloads do not belong into logs
        connect_args={
            "check_same_thread": False,
            "isolation_level": None,
            "cached_statements": 256,  # those about many rows come in many sizes
        },
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.text_factory = _text
        for name, value in SETTINGS.items():
            connection.execute(f"PRAGMA {name} = {value}").close()

    @sa.event.listens_for(engine, "begin")
    def start(connection: sa.Connection) -> None:
        driver = driver_of(connection)
        if driver.in_transaction:  # what a failed rollback left behind
            driver.rollback()
        driver.execute(begin).close()

    return engine


def check_settings(connection: sa.Connection) -> None:
    """Refuse to work with weaker promises than ours."""
    driver = driver_of(connection)
    for name, wanted in SETTINGS.items():
        found = driver.execute(f"PRAGMA {name}").fetchone()[0]
        if found != wanted:
            raise StoreUnavailable(f"SQLite's {name} is {found}, not {wanted}")


@contextmanager
def our_errors(path: Path | None = None) -> Iterator[None]:
    """Turn the driver's errors into ours. Damage names the file, if it is given."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error, StoreDamaged) as error:
        ours = error if isinstance(error, StoreDamaged) else sqlite_error(error)
        if ours is None:
            raise
        if path is not None and isinstance(ours, StoreDamaged):
            why = f"{path}: it is damaged: {ours}{_RESTORE}"
            ours = (
                TaskDamaged(ours.task_id, why)
                if isinstance(ours, TaskDamaged)
                else StoreDamaged(why)
            )
        raise ours from error


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """As ``our_errors``; all of them name the file."""
    try:
        with our_errors():
            yield
    except StoreError as error:
        raise type(error)(f"{path}: {error}") from error


def connected(path: Path, begin: str) -> sa.Connection:
    """A connection whose settings are in force."""
    connection = make_engine(path, begin).connect()
    try:
        check_settings(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def finishing(connection: sa.Connection, mark: Mark) -> Callable[[], None]:
    """Closes the connection, so that the file alone holds everything. If that cannot be, as on a
    full disk, nothing is lost: it stays in the -wal file."""

    def close() -> None:
        try:
            if not connection.closed:
                driver = driver_of(connection)
                busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy:
                    mark.note(noted(driver).seq)
        except (sqlite3.Error, StoreError):
            pass
        finally:
            connection.close()

    return close


def driver_of(connection: sa.Connection) -> sqlite3.Connection:
    """What is below SQLAlchemy."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101  # the only dialect here
    return driver
