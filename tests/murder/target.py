"""The server under violence: ``ringback serve``, started again and again on one file and port."""

from __future__ import annotations

import errno
import random
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

import trio

from tests.murder.progress import tell
from tests.support.server import ServerProcess, running_server

PORTS: Final = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections: one of these might otherwise take the
server's port while it is down."""

DATABASE: Final = "ringback.db"
"""What ``running_server`` calls it."""

CALLEE_FAILS: Final = ("--breaker-ratio", "2")
"""The callee fails on purpose and is to be tried again at once: no breaker may ever open."""

_LOG_SHOWN: Final = 4000  # characters


def free_port() -> int:
    """A port nobody listens on."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
    raise AssertionError("no free port")


@asynccontextmanager
async def open_server(place: Path, *options: str, port: int = 0) -> AsyncIterator[ServerProcess]:
    """The server, started and stopped without holding up what runs in this process. If the block
    has not ended it, SIGTERM does."""
    manager = running_server(place, *options, port=port)
    server = await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield server
        if server.exit_code is None:
            await trio.to_thread.run_sync(server.stop)
            assert server.exit_code == 0, server.log()
    except Exception:
        tell(f"the server said:\n{server.log()[-_LOG_SHOWN:]}")  # its directory is about to go
        raise
    finally:
        with trio.CancelScope(shield=True):
            if server.exit_code is None:
                await trio.to_thread.run_sync(server.kill)
            manager.__exit__(None, None, None)


def integrity(database: Path) -> str:
    """What SQLite says of the stopped server's file; ``ok`` if it is whole."""
    # An existing one: SQLite would make one that is empty, and find it whole.
    existing = f"{database.as_uri()}?mode=rw"
    with closing(sqlite3.connect(existing, uri=True)) as connection:
        try:
            return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
        except sqlite3.DatabaseError as error:
            return str(error)
