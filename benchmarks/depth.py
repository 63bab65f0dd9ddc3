"""Does a deep queue slow it down? The same calls with ever more tasks queued, and starting with them.

A second server with the first depth answers in turn with each deeper one, so that a ratio compares
what was measured at the same time.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count, repeat
from pathlib import Path
from time import perf_counter
from typing import Final

import attrs
import trio

from benchmarks.load import Answer, CutOffError, Request, ask_once, closed_loop, request
from benchmarks.report import Figure, latency_figures, percentile
from benchmarks.seed import seed
from benchmarks.stack import Running, Stack, StartError, open_process
from benchmarks.tasks import Settings, create, wait_until_completed

QUESTION: Final = "queue depth"
DEPTHS: Final = (1_000, 10_000, 100_000, 1_000_000)
RATIO_MAX: Final = 1.5
MEMORY_MAX_MIB: Final = 250.0
READY_MAX_S: Final = 3.0
CONNECTIONS: Final = 4
ROUNDS: Final = 6
AUTO: Final = "auto create to callback"
CALLS: Final = ("create", "get", "dequeue", AUTO)
IDS_ASKED: Final = 2_000


@attrs.define
class Pool:
    """A database with this many tasks queued, and their ids, first come first."""

    place: Path
    depth: int = 0
    ids: list[str] = attrs.field(factory=list)

    @property
    def database(self) -> str:
        return f"sqlite:///{self.place}/bench.db"

    async def deepen(self, depth: int, callback_url: str, settings: Settings) -> None:
        """Fill up with no server on it."""
        began = perf_counter()
        self.ids += await seed(self.database, callback_url, range(self.depth, depth))
        settings.say(f"{depth:,} queued, the last after {perf_counter() - began:.1f} s")
        self.depth = depth

    def spread(self) -> list[str]:
        """Some of the ids, evenly."""
        return self.ids[:: max(1, len(self.ids) // IDS_ASKED)]


@attrs.frozen
class Ready:
    """How long a server took from its process's start until it said that it is ready."""

    how: str
    seconds: float
    cpu_s: float


@attrs.define
class Calls:
    """What the calls of one kind took: each its latency, all together their CPU."""

    latencies: list[float] = attrs.field(factory=list)
    unwanted: Counter[str] = attrs.field(factory=Counter)
    cpu_s: float = 0.0

    @property
    def cpu_us(self) -> float:
        return self.cpu_s * 1e6 / len(self.latencies)

    def keep_called(
        self, sent: Mapping[str, float], answered: Mapping[str, float], *, all_completed: bool
    ) -> None:
        """How long after they were sent auto tasks were called, and what is wrong with them."""
        called = [
            answered[task_id] - began for task_id, began in sent.items() if task_id in answered
        ]
        self.latencies += called
        if missing := len(sent) - len(called):
            self.unwanted["never called"] += missing
        if not all_completed:
            self.unwanted["rounds not all Completed"] += 1


@attrs.define
class Side:
    """A server on a pool, and what its rounds came to."""

    stack: Stack
    pool: Pool
    ready: Ready
    calls: dict[str, Calls] = attrs.field(factory=dict)
    autos: int = 0  # tasks for executors, of all rounds

    def __attrs_post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.calls = {call: Calls() for call in CALLS}

    @property
    def what(self) -> str:
        return f"{self.pool.depth:,} queued"


async def measure(settings: Settings) -> list[Figure]:
    figures: list[Figure] = []
    first, *deeper = _depths(settings)
    with tempfile.TemporaryDirectory(prefix="ringback-depth-", dir=settings.directory) as name:
        base, deep = Pool(Path(name) / "base"), Pool(Path(name) / "deep")
        for pool in (base, deep):
            pool.place.mkdir()
        await base.deepen(first, _NOWHERE, settings)
        shutil.copytree(base.place, deep.place, dirs_exist_ok=True)
        deep.depth, deep.ids = base.depth, list(base.ids)
        async with _open_side(base) as control:
            await _rounds([control], 1, settings)  # once unmeasured
            for depth in deeper:
                await deep.deepen(depth, _NOWHERE, settings)
                figures += await _measure_depth(control, deep, settings)
            head = [*_answers(control), *_memory(control), *_ready(control.what, control.ready)]
    return [*head, *figures]


_NOWHERE: Final = "http://127.0.0.1:9/good"  # nobody ever calls what clients take


def _depths(settings: Settings) -> list[int]:
    most = settings.queued or (1_000_000 if settings.full else 100_000)
    if settings.quick and settings.queued is None:
        most = 10_000
    return [*(depth for depth in DEPTHS if depth < most), most]


async def _measure_depth(control: Side, pool: Pool, settings: Settings) -> list[Figure]:
    async with _started(pool, "started") as (server, started):
        await kill(server)
    async with _started(pool, "started after SIGKILL") as (_, restarted):
        pass  # stopped as one should
    async with _open_side(pool) as deep:
        await _rounds([deep], 1, settings)
        control.forget()
        deep.forget()
        await _rounds([control, deep], 2 if settings.quick else ROUNDS, settings)
        return [
            *_answers(deep),
            *ratios(deep.what, deep.calls, control.calls),
            *_memory(deep),
            *_ready(deep.what, started, restarted),
        ]


async def kill(server: Running) -> None:
    """End it as a power cut would; waits until it is gone."""
    os.kill(server.pid, signal.SIGKILL)
    with trio.fail_after(10):
        while await _answers_ready(server):  # noqa: ASYNC110 - it cannot signal any more
            await trio.sleep(0.01)


async def _answers_ready(server: Running) -> bool:
    try:
        return (await ask_once(server.url, request("GET", "/readyz"))).status == 200
    except CutOffError:
        return False


@asynccontextmanager
async def _started(pool: Pool, how: str) -> AsyncIterator[tuple[Running, Ready]]:
    """A server on the pool, which is ready."""
    serve = ["-m", "web", "serve", "--port", "0", "--database", pool.database]
    began = perf_counter()
    async with open_process("server", serve, pool.place) as server:
        if not await _answers_ready(server):
            raise StartError("the server printed its URL and is not ready")
        yield server, Ready(how, perf_counter() - began, server.usage().cpu_s or 0.0)


@asynccontextmanager
async def _open_side(pool: Pool) -> AsyncIterator[Side]:
    async with (
        open_process("receiver", ["-m", "web.receiver", "--port", "0"], pool.place) as receiver,
        _started(pool, "started") as (server, ready),
    ):
        yield Side(Stack(server, receiver), pool, ready)


async def _rounds(sides: Sequence[Side], rounds: int, settings: Settings) -> None:
    """Every call on every side in turn; as many are created as are taken, so the depths stay."""
    each = 150 if settings.quick else 200
    settings.say(f"{rounds} x {each} of every call with {' and '.join(s.what for s in sides)}")
    for number in range(rounds):
        for call in CALLS:
            for side in sides if number % 2 else reversed(sides):
                await _one_round(side, call, each, settings)


async def _one_round(side: Side, call: str, each: int, settings: Settings) -> None:
    done, server = side.calls[call], side.stack.server
    began: dict[str, float] = {}  # task id -> when it was asked for

    def keep(answer: Answer, asked: float) -> None:
        began[answer.json()["taskId"]] = asked

    before = server.usage().cpu_s or 0.0
    load = await closed_loop(
        server.url, _requests(side, call, each), connections=CONNECTIONS, on_answer=keep
    )
    all_completed = True
    if call == AUTO:
        side.autos += len(began)
        ended = await wait_until_completed(side.stack, side.autos, settings)
        all_completed = ended is not None
    done.cpu_s += (server.usage().cpu_s or 0.0) - before
    done.unwanted += load.unwanted
    if call == AUTO:
        done.keep_called(began, await side.stack.answered(), all_completed=all_completed)
    else:
        done.latencies += load.latencies
    if call == "create":
        side.pool.ids += began
    if call == "dequeue":
        del side.pool.ids[: len(began)]


def _requests(side: Side, call: str, each: int) -> Iterator[Request]:
    if call == "get":
        ids, turn = side.pool.spread(), count(len(side.calls[call].latencies))
        return (request("GET", f"/api/v1/tasks/{ids[next(turn) % len(ids)]}") for _ in range(each))
    if call == "dequeue":
        return repeat(request("POST", "/api/v1/tasks/dequeue", {}), each)
    if call == "create":
        return (create(_NOWHERE, number, "manual") for number in range(each))
    return (create(side.stack.callback("/good"), number, "auto") for number in range(each))


def _answers(side: Side) -> Iterator[Figure]:
    for call, done in side.calls.items():
        what = f"{side.what}: {call}"
        yield from latency_figures(QUESTION, what, done.latencies, done.unwanted)
        if done.latencies:
            yield Figure(QUESTION, f"{what}, server CPU", done.cpu_us, "us", note="a call")


def _memory(side: Side) -> list[Figure]:
    memory = side.stack.server.usage().rss_mib
    what = f"{side.what}: server memory"
    return [Figure(QUESTION, what, memory, "MiB", MEMORY_MAX_MIB)] if memory else []


def _ready(what: str, *all_ready: Ready) -> Iterator[Figure]:
    for ready in all_ready:
        said = f"{what}: {ready.how}, ready after"
        yield Figure(
            QUESTION, said, ready.seconds, "s", READY_MAX_S, note=f"{ready.cpu_s:.2f} s of CPU"
        )


def ratios(what: str, deep: Mapping[str, Calls], beside: Mapping[str, Calls]) -> Iterator[Figure]:
    """Against the same calls at the first depth, measured in turn with these."""
    note = f"against {DEPTHS[0]:,} queued, measured in turn"
    for call, done in deep.items():
        base = beside[call]
        if not (done.latencies and base.latencies):
            continue
        for percent in (50, 95):
            ratio = percentile(done.latencies, percent) / percentile(base.latencies, percent)
            limit = RATIO_MAX if percent == 95 and call != AUTO else None
            yield Figure(
                QUESTION, f"{what}: {call}, ratio", ratio, "x", limit, note=note, stat=f"p{percent}"
            )
        if base.cpu_s:
            yield Figure(QUESTION, f"{what}: {call}, ratio of CPU", done.cpu_us / base.cpu_us, "x")
