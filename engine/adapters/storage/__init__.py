"""Where tasks are kept. Drivers are imported when they are needed."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import attrs

from engine.ports.store import Store

SUPPORTED = "memory:, sqlite:///relative/file.db and sqlite:////absolute/file.db"


def open_store(url: str) -> AbstractAsyncContextManager[Store]:
    """The store of a URL; raises ``ValueError`` for one that names none."""
    scheme, _, rest = url.partition(":")
    if scheme == "memory" and not rest:
        from .memory import open_memory_store

        return open_memory_store()
    if scheme == "sqlite":
        from .sqlite import open_sqlite_store

        return open_sqlite_store(sqlite_path(url))
    raise ValueError(f"no store is known for {_shown(url)!r}; supported are {SUPPORTED}")


@attrs.frozen
class Revisions:
    """Of a database's tables: what it has (``None``: no tables yet), and what this code needs."""

    current: str | None
    head: str


def revisions(url: str) -> Revisions:
    """What a database has and needs; changes nothing. Blocks; for the command line."""
    from . import migrations, sqlite

    return Revisions(sqlite.revision(sqlite_path(url)), migrations.HEAD)


def migrate(url: str, *, accept_loss: bool = False) -> Revisions:
    """Bring a database's tables up to date, as opening it does; tells what it had before. With
    ``accept_loss``, go on although it holds less than it is known to have held. Blocks; for the
    command line. Raises as opening it does."""
    from . import sqlite

    before = revisions(url)
    sqlite.migrate(sqlite_path(url), accept_loss=accept_loss)
    return before


def sqlite_path(url: str) -> str:
    """The file a SQLite URL names; raises ``ValueError`` if it names none."""
    prefix = "sqlite:///"
    path = url[len(prefix) :]
    if not url.startswith(prefix) or not path or path.endswith("/") or path == ":memory:":
        raise ValueError(f"{url!r} names no file; supported are {SUPPORTED}")
    return path


def _shown(url: str) -> str:
    """The URL without what may be a password."""
    scheme, found, _ = url.partition(":")
    return f"{scheme}:…" if found else url
