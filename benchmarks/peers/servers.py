"""The databases that peers stand on: private, fresh, on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final, Protocol

import attrs
import trio

from benchmarks.peers.processes import NotInstallable, free_port, program, start

POSTGRES: Final = "postgresql"
"""The package that has PostgreSQL's programs."""


@attrs.frozen
class Server:
    """A running database: where its clients find it, and the root of its processes."""

    url: str
    pid: int


class Database(Protocol):
    """What a peer keeps its tasks in."""

    @property
    def durability(self) -> str: ...

    def version(self) -> str:
        """Its name and version. Raises NotInstallable if its programs are missing."""

    def open(self, place: Path) -> AbstractAsyncContextManager[Server]:
        """An empty one in ``place``, ended with the block. Raises NotInstallable, StartError."""


@attrs.frozen
class Redis:
    """Durable by its append-only file alone; snapshots beside it would only cost it time."""

    appendfsync: str  # "everysec" or "always"

    @property
    def durability(self) -> str:
        return f"appendonly yes, appendfsync {self.appendfsync}"

    def version(self) -> str:
        return f"Redis {_version_of(self._program())}"

    @asynccontextmanager
    async def open(self, place: Path) -> AsyncIterator[Server]:
        port, data = free_port(), place / "redis"
        data.mkdir()
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(data),
            "appendonly": "yes",
            "appendfsync": self.appendfsync,
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        options = [part for key, value in settings.items() for part in (f"--{key}", value)]
        async with start([self._program(), *options], place, name="redis") as redis:
            await redis.until(lambda: _redis_answers(port))
            yield Server(f"redis://127.0.0.1:{port}", redis.pid)

    def _program(self) -> str:
        return program("redis-server", "redis-server")


@attrs.frozen
class Postgres:
    """A cluster with the settings that ``initdb`` writes, fsync and synchronous_commit among them."""

    durability: ClassVar[str] = "fsync on, synchronous_commit on"

    def version(self) -> str:
        return f"PostgreSQL {_version_of(program('postgres', POSTGRES))}"

    @asynccontextmanager
    async def open(self, place: Path) -> AsyncIterator[Server]:
        initdb, postgres = program("initdb", POSTGRES), program("postgres", POSTGRES)
        ready = [
            program("pg_isready", "postgresql-client"),
            "-q",
            "-U",
            "bench",
            "-h",
            "127.0.0.1",
            "-p",
        ]
        port, data, owner = free_port(), place / "postgres", _unprivileged()
        data.mkdir(mode=0o700)
        if owner is not None:
            os.chown(data, owner, -1)
        create = [initdb, "-D", str(data), "-U", "bench", "-E", "UTF8", "-A", "trust"]
        async with start(create, place, name="initdb", user=owner) as creating:
            await creating.success()
        serve = [postgres, "-D", str(data), "-p", str(port)]
        serve += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]

        async def is_ready() -> bool:
            asked = await trio.run_process([*ready, str(port)], check=False)
            return asked.returncode == 0

        # SIGINT is its fast shutdown; SIGTERM would wait until all clients have left.
        async with start(serve, place, name="postgres", user=owner, stop=signal.SIGINT) as server:
            await server.until(is_ready)
            yield Server(f"postgresql://bench@127.0.0.1:{port}/postgres", server.pid)


def _version_of(path: str) -> str:
    """The first thing like a version in what a program says of itself."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else said.strip()


def _unprivileged() -> int | None:
    """Who runs PostgreSQL where we are root, as whom it refuses to run."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise NotInstallable("PostgreSQL does not run as root, and there is no other user for it")


async def _redis_answers(port: int) -> bool:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"PING\r\n")
            return bytes(await stream.receive_some(64)).startswith(b"+PONG")
    except (OSError, trio.BrokenResourceError):
        return False
