"""A server that runs out of space under load, goes on reading, and recovers."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import trio

from benchmarks.running import usage_of
from tests.murder.disk_causes import Cause
from tests.murder.target import integrity
from tests.support.server import ServerProcess, running_server
from web.receiver import Receiver, open_receiver

BEFORE: Final = 60  # tasks that have ended when the space does
RUNNING: Final = 20  # attempts that run then, and whose results cannot be stored
_SLOW_MS: Final = 1200
_QUIET_S: Final = 1.5
_WAIT_S: Final = 40.0
_RECOVER_S: Final = 5.0
_LINES_MAX: Final = 20
_READS_MIN: Final = 10
_TASKS: Final = "/api/v1/tasks"


@attrs.define(kw_only=True)
class Starved:
    """What was seen."""

    cause: str
    accepted: dict[str, str] = attrs.field(factory=dict)  # id to path
    refused: Counter[int] = attrs.field(factory=Counter)
    improper: list[str] = attrs.field(factory=list)
    """Answers that are none of 201, 503 and 507, or lack what these have to have."""
    reads_s: list[float] = attrs.field(factory=list)
    cpu_share: float = 0.0
    recovered_s: float = 0.0  # until a task was accepted again, and called
    complaints: int = 0  # lines in the server's log
    integrity: str = ""  # what SQLite says of the file in the end
    statuses: Counter[str] = attrs.field(factory=Counter)
    """Of the accepted tasks, in the end."""
    calls: Counter[str] = attrs.field(factory=Counter)

    @property
    def read_p95_s(self) -> float:
        return statistics.quantiles(self.reads_s, n=20)[-1]

    @property
    def twice(self) -> list[str]:
        """No process ended, no lease did, no callback failed: nothing explains a second call."""
        return [task_id for task_id, n in self.calls.items() if n > 1]

    @property
    def unexpected(self) -> list[str]:
        """Called, though their client was told that they were not accepted."""
        return [task_id for task_id in self.calls if task_id not in self.accepted]

    def problems(self) -> list[str]:
        """What a server must not do."""
        wrong = [f"answered {text}" for text in self.improper[:5]]
        if not self.refused:
            wrong.append("the disk was never full")
        if len(self.reads_s) <= _READS_MIN:
            wrong.append(f"was read only {len(self.reads_s)} times")
        if self.integrity != "ok":
            wrong.append(f"integrity: {self.integrity}")
        if self.statuses != {"Completed": len(self.accepted)}:
            wrong.append(f"{len(self.accepted)} accepted, in the end {dict(self.statuses)}")
        if self.twice or self.unexpected:
            wrong.append(f"{len(self.twice)} called twice, {len(self.unexpected)} unexpected")
        if self.recovered_s > _RECOVER_S:
            wrong.append(f"took {self.recovered_s:.1f} s to recover")
        if self.complaints > _LINES_MAX:
            wrong.append(f"wrote {self.complaints} lines to its log")
        return wrong

    def __str__(self) -> str:
        refusals = ", ".join(f"{n} × {status}" for status, n in sorted(self.refused.items()))
        return (
            f"{len(self.accepted)} accepted, all ended {dict(self.statuses)}, {refusals}; GET p95 "
            f"{self.read_p95_s * 1000:.0f} ms, {self.cpu_share:.0%} CPU when idle, recovered in "
            f"{self.recovered_s:.1f} s, {len(self.twice)} called twice"
        )


async def starve(cause: Cause, place: Path, full_s: float) -> Starved:
    """Everything, for one cause. ``full_s`` is how long there is no space under load; the server's
    output, and the database unless the cause has another place for it, go to ``place``."""
    seen = Starved(cause=cause.name)
    database = f"sqlite:///{cause.database(place)}"
    async with open_receiver() as receiver:
        with running_server(place, "--database", database, program=cause.program) as server:
            limits = httpx.Limits(max_connections=50)
            async with httpx.AsyncClient(base_url=server.url, timeout=30, limits=limits) as client:
                await _Run(cause, server, receiver, client, seen).everything(full_s)
            seen.complaints = len(server.log().splitlines())
        seen.integrity = integrity(cause.database(place))
        seen.calls.update(receiver.counts())
    return seen


@attrs.define
class _Run:
    cause: Cause
    server: ServerProcess
    receiver: Receiver
    client: httpx.AsyncClient
    seen: Starved
    dice: random.Random = attrs.field(factory=lambda: random.Random(0))

    async def everything(self, full_s: float) -> None:
        for path in ["/good"] * BEFORE:
            await self._create(path)
        await self._until(self._all_ended)
        for path in [f"/slow?ms={_SLOW_MS}"] * RUNNING:
            await self._create(path)
        await self._until(self._all_called)
        self.cause.fill(self.server)
        await self._under_load(full_s)
        before = usage_of([self.server.process.pid]).cpu_s
        await trio.sleep(_QUIET_S)
        used = usage_of([self.server.process.pid]).cpu_s - before
        self.seen.cpu_share = used / _QUIET_S
        self.cause.free(self.server)
        freed = trio.current_time()
        while await self._create("/good") != 201:
            assert trio.current_time() < freed + _WAIT_S, "it does not recover"
            await trio.sleep(0.05)
        await self._until(self._all_called)
        self.seen.recovered_s = trio.current_time() - freed
        await self._until(self._all_ended)
        await self._count()

    async def _under_load(self, full_s: float) -> None:
        with trio.move_on_after(full_s + _SLOW_MS / 1000):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(self._again, self._create_good, 0.02)
                nursery.start_soon(self._again, self._read, 0.01)

    async def _again(self, ask: Callable[[], Awaitable[object]], pause_s: float) -> None:
        while True:
            with trio.CancelScope(shield=True):  # an answer that is cut off would be unknown
                await ask()
            await trio.sleep(pause_s)

    async def _create_good(self) -> int:
        return await self._create("/good")

    async def _create(self, path: str) -> int:
        body = {
            "name": "starved",
            "callbackUrl": self.receiver.url + path,
            "payload": "x" * self.dice.randrange(6000),
            "dispatch": "auto",
        }
        answer = await self.client.post(_TASKS, json=body)
        if answer.status_code == 201:
            self.seen.accepted[answer.json()["taskId"]] = path
        else:
            self.seen.refused[answer.status_code] += 1
            if fault := _fault_of(answer):
                self.seen.improper.append(fault)
        return answer.status_code

    async def _read(self) -> None:
        task_id = self.dice.choice(list(self.seen.accepted))
        began = trio.current_time()
        answer = await self.client.get(f"{_TASKS}/{task_id}")
        self.seen.reads_s.append(trio.current_time() - began)
        if answer.status_code != 200:
            self.seen.improper.append(f"{answer.status_code} to a GET: {answer.text[:200]}")

    async def _all_called(self) -> bool:
        called = self.receiver.counts()
        return all(task_id in called for task_id in self.seen.accepted)

    async def _all_ended(self) -> bool:
        stats: dict[str, Any] = (await self.client.get("/api/v1/stats")).json()
        return not any(stats["counts"].get(status) for status in _LIVE)

    async def _until(self, question: Callable[[], Awaitable[bool]]) -> None:
        with trio.fail_after(_WAIT_S):
            while not await question():  # noqa: ASYNC110 - it is asked outside
                await trio.sleep(0.05)

    async def _count(self) -> None:
        for task_id in self.seen.accepted:
            answer = await self.client.get(f"{_TASKS}/{task_id}")
            found = answer.json().get("status") if answer.status_code == 200 else "lost"
            self.seen.statuses[found] += 1


_LIVE: Final = ("Queued", "Pending", "Processing", "Retrying")


def _fault_of(answer: httpx.Response) -> str | None:
    """What is wrong with a refusal."""
    kind = answer.headers.get("content-type", "")
    if answer.status_code not in (503, 507) or kind != "application/problem+json":
        return f"{answer.status_code} {kind}: {answer.text[:200]}"
    if not answer.headers.get("retry-after", "").isdigit():
        return f"{answer.status_code} without Retry-After"
    return None
