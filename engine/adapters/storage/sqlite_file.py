"""One SQLite file: who may have it open, whether it is sound, and how it is opened."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from engine.adapters.errors import sqlite_error
from engine.errors import StoreDamaged, StoreError, StoreLocked, StoreUnavailable

PRIVATE = 0o600
MAGIC = b"SQLite format 3\x00"
CHECKED_BYTES_MAX = 64 * 2**20  # larger files are not read through at every start
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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Own the file while the block lasts. The system frees the lock when a process dies."""
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
        _create_private(path)
        yield
    finally:
        os.close(descriptor)


def _create_private(path: Path) -> None:
    """Create the file, if there is none, so that its owner alone can read it: tasks carry
    payloads and credentials. SQLite gives its -wal and -shm files the mode of the database."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    except FileExistsError:
        pass  # with the mode that somebody has chosen
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be created: {error.strerror}") from error


def check_header(path: Path) -> None:
    """Refuse what is not a database, so that nothing is ever written over it."""
    try:
        with path.open("rb") as file:
            header = file.read(len(MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnavailable(f"it cannot be read: {error.strerror}") from error
    if header and header != MAGIC:
        raise StoreDamaged("this is not a SQLite database; it is left as it is")


def check_content(path: Path, connection: sa.Connection) -> None:
    """Refuse a damaged database, as far as that can be told quickly."""
    if path.stat().st_size > CHECKED_BYTES_MAX:
        return
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise StoreDamaged(f"it is damaged: {found}; restore it from a backup")


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
        for name, value in SETTINGS.items():
            connection.execute(f"PRAGMA {name} = {value}").close()

    @sa.event.listens_for(engine, "begin")
    def start(connection: sa.Connection) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None  # noqa: S101  # it begins a transaction
        if driver.in_transaction:  # what a failed rollback left behind
            driver.rollback()
        driver.execute(begin).close()

    return engine


def check_settings(connection: sa.Connection) -> None:
    """Refuse to work with weaker promises than ours."""
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101  # it has just been opened
    for name, wanted in SETTINGS.items():
        found = driver.execute(f"PRAGMA {name}").fetchone()[0]
        if found != wanted:
            raise StoreUnavailable(f"SQLite's {name} is {found}, not {wanted}")


@contextmanager
def our_errors() -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        ours = sqlite_error(error)
        if ours is None:
            raise
        raise ours from error


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """As ``our_errors``; they name the file."""
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


def closing(connection: sa.Connection) -> Callable[[], None]:
    """Closes the connection, so that the file alone holds everything."""

    def close() -> None:
        try:
            if not connection.closed:
                connection.connection.driver_connection.execute(  # type: ignore[union-attr]
                    "PRAGMA wal_checkpoint(TRUNCATE)"
                ).close()
        finally:
            connection.close()

    return close
