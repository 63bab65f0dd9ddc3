"""Drivers' errors as ours, one function per driver."""

from __future__ import annotations

import sqlite3

import sqlalchemy.exc

from engine.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreRejected,
    StoreUnavailable,
)

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_MAY_PASS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_INTERRUPT,
}
_NEVER = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH}


def sqlite_error(error: BaseException) -> StoreError | None:
    """Our error for one of SQLite's driver; ``None`` if it is a mistake of the program."""
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None:
        error = error.orig
    if isinstance(error, (OverflowError, UnicodeEncodeError)):  # raised while binding a value
        return StoreRejected(str(error))
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what only refines it
    kind: type[StoreError] | None = None
    if code == sqlite3.SQLITE_FULL:
        kind = StoreFull
    elif code in _DAMAGED or str(error).startswith("Could not decode to UTF-8"):
        kind = StoreDamaged
    elif code in _MAY_PASS:
        kind = StoreUnavailable
    elif code in _NEVER or _is_about_values(error):
        kind = StoreRejected
    return kind(str(error)) if kind else None


def _is_about_values(error: sqlite3.Error) -> bool:
    if isinstance(error, sqlite3.ProgrammingError):  # of the driver, for a value of a foreign type
        return str(error).startswith("Error binding")
    return isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError))
