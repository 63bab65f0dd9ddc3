"""The files that a killed server leaves: a database, its -wal with much in it, -shm and .lock."""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import httpx

from tests.support.cli import Site, open_site

NAME: Final = "ringback.db"
FILES: Final = ("", "-wal", "-shm", ".lock")
"""What may be damaged, by what stands behind the database's name."""
QUIET_S: Final = 0.3  # longer than a note in the lock file lags
_SEAL: Final = re.compile(r',?"[^"]{5}":"[0-9a-f]{8}"}$')
Rows = Mapping[tuple[str, int], tuple[Any, ...]]


@attrs.frozen
class Image:
    """Files as they were after a SIGKILL, and what is in them."""

    place: Path
    rows: Rows

    @property
    def ids(self) -> list[str]:
        """All tasks, live and archived."""
        return [
            str(row[0]) for (table, _), row in self.rows.items() if table in ("task", "archive")
        ]

    def copied_to(self, place: Path) -> Path:
        """The database in a copy of the files."""
        place.mkdir()
        for suffix in FILES:
            shutil.copy2(self.place / f"{NAME}{suffix}", place)
        return place / NAME


def make_image(place: Path, tasks: int) -> Image:
    """Half of the tasks end up in the database, as the server is stopped in between; the others
    in the -wal alone, as it is killed. A moment later than the last of them one more is taken, so
    that the lock file knows of all before."""
    running, image = place / "running", place / "image"
    running.mkdir()
    image.mkdir()
    with open_site(running) as site:
        _submit(site, tasks // 2)
        _all_ended(site)
    with open_site(running) as site:
        _submit(site, tasks - tasks // 2)
        _all_ended(site)
        time.sleep(QUIET_S)  # noqa: TID251
        _submit(site, 1)
        site.server.kill()
    for suffix in FILES:
        shutil.copy2(running / f"{NAME}{suffix}", image)
    scratch = place / "scratch"
    made = Image(image, {})
    return attrs.evolve(made, rows=rows_of(made.copied_to(scratch)))


def rows_of(database: Path) -> Rows:
    """Every row of every table but those that say what others hold."""
    found: dict[tuple[str, int], tuple[Any, ...]] = {}
    with closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes  # a damaged text need not be UTF-8
        for table in ("task", "archive", "event", "attempt", "idempotency", "status_count"):
            for rowid, *row in connection.execute(f"SELECT rowid, * FROM {table}"):
                found[table, rowid] = tuple(
                    _said(value) if isinstance(value, bytes) else value for value in row
                )
    return found


def _said(value: bytes) -> str:
    """The text without the name of its checksum, which says nothing: where that is another, there
    is no checksum, as in texts of earlier versions."""
    return _SEAL.sub("", value.decode("utf-8", "replace"))


def _submit(site: Site, tasks: int) -> None:
    with _client(site) as client, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: _submit_one(client, site.receiver, n), range(tasks)))


def _submit_one(client: httpx.Client, receiver: str, n: int) -> None:
    path = ("/good", "/good", "/permanent")[n % 3]
    body = {
        "name": f"task {n}",
        "callbackUrl": receiver + path,
        "payload": {"n": n, "text": "x" * (n * 37 % 3000)},
        "metadata": {"n": str(n)},
        "dispatch": "auto" if n % 4 else "manual",  # one in four goes on waiting
    }
    client.post("/api/v1/tasks", json=body).raise_for_status()


def _all_ended(site: Site) -> None:
    deadline = time.monotonic() + 20
    with _client(site) as client:
        while time.monotonic() < deadline:
            found = client.get("/api/v1/tasks", params={"status": "Processing"}).json()
            if not found["tasks"]:
                return
            time.sleep(0.05)  # noqa: TID251
    raise AssertionError("tasks are still running")


@contextmanager
def _client(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.server.url, timeout=20) as client:
        yield client
