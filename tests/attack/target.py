"""What is attacked: the real server in a process of its own, and how it does, seen from outside."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import attrs
import trio

from benchmarks.load import Answer, ask_once, request
from benchmarks.stack import Stack, open_process
from engine.core.lifecycle import ENDED
from tests.attack.target_serve import TASKS

HEALTH: Final = request("GET", "/healthz")
SPARE: Final = 5  # tasks or descriptors that may be there more than before an attack
ANSWER_S: Final = 20.0  # for what a server in order does at once
LOG_TAIL: Final = 2000


class AttackSucceeded(Exception):
    """The server did what no attack may make it do."""


@attrs.frozen
class Vitals:
    """What the server's process holds."""

    descriptors: int  # but for those of callbacks
    calls: int  # connections to callees; idle executors keep theirs until something is called
    tasks: int
    rss_mib: float

    def __str__(self) -> str:
        calls = f" and {self.calls} of callbacks" if self.calls else ""
        return f"{self.descriptors} descriptors{calls}, {self.tasks} tasks, {self.rss_mib:.0f} MiB"


@attrs.frozen
class Target:
    """The attacked server, and a callee beside it."""

    stack: Stack
    place: Path

    @property
    def url(self) -> str:
        return self.stack.server.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.stack.server.pid

    @property
    def database(self) -> str:
        return f"sqlite:///{self.place}/attacked.db"

    def callback(self, path: str) -> str:
        """A URL of the callee; ``web/receiver`` says which paths there are."""
        return self.stack.callback(path)

    def log(self) -> str:
        """All that the server has written to standard error."""
        return (self.place / "server.err").read_text("utf-8", errors="replace")

    # -- asking it ---------------------------------------------------------------------------

    async def health_s(self) -> float:
        """How long it takes to be told that the process lives, on a connection of its own. Raises
        ``AttackSucceeded`` if it is not told so."""
        began = perf_counter()
        try:
            with trio.fail_after(ANSWER_S):
                answer = await ask_once(self.url, HEALTH)
        except Exception as error:
            raise self.lost(f"/healthz is not answered: {error!r}") from error
        if answer.status != 200:
            raise self.lost(f"/healthz is answered with {answer.status}")
        return perf_counter() - began

    async def stats(self) -> dict[str, Any]:
        """What ``/api/v1/stats`` says."""
        found: dict[str, Any] = (await self.ask("GET", "/api/v1/stats", wanted=(200,))).json()
        return found

    async def unfinished(self) -> int:
        """How many tasks have not ended."""
        counts: dict[str, int] = (await self.stats())["counts"]
        return sum(number for status, number in counts.items() if status not in ENDED)

    async def ask(
        self, method: str, path: str, body: object = None, *, wanted: tuple[int, ...] = ()
    ) -> Answer:
        """One request on a connection of its own. Raises ``AttackSucceeded`` if its answer has
        none of the ``wanted`` statuses."""
        answer = await ask_once(self.url, request(method, path, body))
        if wanted and answer.status not in wanted:
            raise self.lost(f"{method} {path}: {answer.status} {answer.body[:200]!r}")
        return answer

    # -- looking at its process --------------------------------------------------------------

    def is_alive(self) -> bool:
        """Whether the process that was started still runs."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text("utf-8")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    def descriptors(self) -> tuple[int, int]:
        """Files and sockets that are open in it: all but connections to callees, and those."""
        inodes = []
        try:
            for entry in os.scandir(f"/proc/{self.pid}/fd"):
                with suppress(FileNotFoundError):  # closed meanwhile
                    inodes.append(os.readlink(entry.path))
            outgoing = self._outgoing()
        except OSError as error:
            raise self.lost("the process has ended") from error
        calls = sum(inode in outgoing for inode in inodes)
        return len(inodes) - calls, calls

    def _outgoing(self) -> set[str]:
        """The sockets of all TCP connections but those to its own port."""
        lines = Path(f"/proc/{self.pid}/net/tcp").read_text("utf-8").splitlines()[1:]
        rows = (line.split() for line in lines)
        own, nobody = f":{self.port:04X}", ":0000"
        return {
            f"socket:[{row[9]}]"
            for row in rows
            if not row[1].endswith(own) and not row[2].endswith(nobody)
        }

    def rss_mib(self) -> float:
        """Its resident memory."""
        return self.stack.server.usage().rss_mib

    async def tasks(self) -> int:
        """Trio tasks that live in it."""
        before = self._told()
        try:
            os.kill(self.pid, signal.SIGUSR1)
        except ProcessLookupError as error:
            raise self.lost("the process has ended") from error
        with trio.move_on_after(ANSWER_S):
            while len(told := self._told()) == len(before):  # noqa: ASYNC110 - a file tells
                await trio.sleep(0.005)
            return told[-1]
        raise self.lost(f"it does not react to a signal within {ANSWER_S:g} s")

    def _told(self) -> list[int]:
        lines = (self.place / "server.out").read_text("utf-8").splitlines(keepends=True)
        whole = (line for line in lines if line.startswith(TASKS) and line.endswith("\n"))
        return [int(line.removeprefix(TASKS)) for line in whole]

    async def vitals(self) -> Vitals:
        """All of it."""
        descriptors, calls = self.descriptors()
        return Vitals(descriptors, calls, await self.tasks(), self.rss_mib())

    async def base(self) -> Vitals:
        """What it holds when nobody wants anything of it: the same twice in a row."""
        with trio.move_on_after(ANSWER_S):
            before = await self.vitals()
            while True:
                await trio.sleep(0.25)
                now = await self.vitals()
                if (now.descriptors, now.tasks) == (before.descriptors, before.tasks):
                    return now
                before = now
        raise self.lost("it does not come to rest")

    async def settle(self, base: Vitals, within_s: float) -> float:
        """Wait until it holds no more than before, but for ``SPARE``; how long that took. Raises
        ``AttackSucceeded`` if it does not come to that."""
        began = perf_counter()
        now = base
        with trio.move_on_after(within_s):
            while True:
                now = await self.vitals()
                if now.descriptors <= base.descriptors + SPARE and now.tasks <= base.tasks + SPARE:
                    return perf_counter() - began
                await trio.sleep(0.1)
        raise self.lost(f"{within_s:g} s later there are {now}, before it were {base}")

    def limit_files(self, number: int) -> None:
        """Let the running process have only so many open files from now on."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (number, hard))

    def lost(self, what: str) -> AttackSucceeded:
        """The error to raise, with the end of the server's log."""
        ended = "" if self.is_alive() else ", and its process has ended"
        return AttackSucceeded(f"{what}{ended}\n{self.log()[-LOG_TAIL:]}")


@asynccontextmanager
async def open_target(
    *arguments: str, executors: int = 100, files: int | None = None
) -> AsyncIterator[Target]:
    """The server on an empty database, ready, and a callee. ``arguments`` are options of
    ``ringback serve``; ``files`` is how many files its process may have open."""
    with tempfile.TemporaryDirectory(prefix="ringback-attack-") as directory:
        place = Path(directory)
        serve = ["-m", "tests.attack.target_serve"]
        serve += [] if files is None else ["--files", str(files)]
        serve += ["serve", "--port", "0", "--database", f"sqlite:///{place}/attacked.db"]
        serve += ["--executors", str(executors), *arguments]
        async with (
            open_process("receiver", ["-m", "web.receiver", "--port", "0"], place) as receiver,
            open_process("server", serve, place) as server,
        ):
            target = Target(Stack(server, receiver), place)
            await target.health_s()
            yield target


async def until(
    condition: Callable[[], Awaitable[bool]], within_s: float, *, every_s: float = 0.1
) -> bool:
    """Whether this comes true in time."""
    with trio.move_on_after(within_s):
        while not await condition():  # noqa: ASYNC110 - another process
            await trio.sleep(every_s)
        return True
    return False
