"""Ringback with a database that can be made full: ``python -m tests.murder.disk_server serve …``.

At SIGUSR1 no connection of it may add a page any more, at SIGUSR2 as many as it likes.
"""

from __future__ import annotations

import signal
import sqlite3
from types import FrameType
from typing import Final

import sqlalchemy as sa

from web.cli import main

FULL: Final = signal.SIGUSR1
FREE: Final = signal.SIGUSR2
_UNLIMITED: Final = 2**30
_connections: list[sqlite3.Connection] = []


def _limit(number: int, _frame: FrameType | None) -> None:
    for connection in _connections:
        pages = 1 if number == FULL else _UNLIMITED  # SQLite never goes below what there is
        connection.execute(f"PRAGMA max_page_count = {pages}").close()


if __name__ == "__main__":
    sa.event.listen(
        sa.Engine, "connect", lambda connection, _record: _connections.append(connection)
    )
    for one in (FULL, FREE):
        signal.signal(one, _limit)
    main(prog_name="ringback")
