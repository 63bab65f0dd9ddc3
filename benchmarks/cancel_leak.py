"""Does anything leak when callbacks are cut off? Half of them are, at random points of their way.

The engine runs in this process, so that its descriptors and its memory can be counted; the callee
runs in another, and counts the connections that it sees.
"""

from __future__ import annotations

import gc
import math
import os
import random
import re
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Final

import attrs
import trio

from benchmarks.load import ask_once, request
from benchmarks.report import Figure
from benchmarks.stack import open_process
from benchmarks.tasks import STALL_S, Settings
from engine import (
    Attempt,
    Engine,
    EngineConfig,
    ErrorClass,
    Event,
    RetryPolicy,
    Status,
    TaskSpec,
    open_engine,
)
from engine.core.lifecycle import ENDED
from engine.errors import IllegalTransition

QUESTION: Final = "cutting off"
EXECUTORS: Final = 100
OUTSTANDING: Final = 1_000  # tasks that are submitted and have not ended
BATCH: Final = 50
SEED: Final = 20260102
WAYS: Final = {"/fast": 20, "/slow": 30, "/never": 23, "/drip": 23, "/reset": 4}  # in percent
CUT: Final = frozenset({"/never", "/drip"})  # these time out, unless they are cancelled before
CANCELLED: Final = 0.4  # of all, whatever their way; some too late
CUT_MIN_PERCENT: Final = 45.0  # with fewer, it was no test
EXPIRY_S: Final = 3.0  # idle connections are kept for two
DESCRIPTORS_MAX: Final = 5  # more than before: sockets of the store's threads, signals
MEMORY_MIB_MAX: Final = 64


@attrs.frozen
class Plan:
    """What is to become of a task."""

    timeout_s: float
    cancel_after_s: float | None  # counted from the beginning of its attempt


@attrs.frozen(kw_only=True)
class Leaks:
    """What a run came to, and what it left behind."""

    callbacks: int
    seconds: float
    ends: Counter[str]
    not_ended: int
    not_one_attempt: int  # tasks whose log does not hold exactly one attempt
    late_results: int
    busy: int
    alive: int  # executors that could all call at once afterwards
    overrun_s: float  # the most that an attempt, if not cancelled, took beyond its timeout
    descriptors: int  # more than before, as many executors having a connection each
    descriptors_closed: int  # more than before the engine was opened, after it is closed
    connections: float  # that the callee sees after the engine is closed
    memory_mib: float


class Run:
    """One engine, its tasks and what becomes of them."""

    def __init__(self, url: str, count: int) -> None:
        self._url, self._count = url, count
        self._chance = random.Random(SEED)
        self._room = trio.Semaphore(OUTSTANDING)
        self._plans: list[Plan] = []  # by the number that is the task's name
        self._task_ids: list[str] = []  # in the same order
        self._attempts: Counter[str] = Counter()
        self._durations: dict[str, float] = {}
        self._ends: Counter[str] = Counter()
        self._ended = 0

    async def measure(self, directory: Path) -> Leaks:
        """Run it all. The engine is closed before the answer."""
        config = EngineConfig(
            executors=EXECUTORS,
            dispatch="auto",
            grace_s=5.0,
            watcher_buffer=100_000,
            breaker_attempts_min=1_000_000_000,  # the callee is meant to fail, and to be called
        )
        at_first = _descriptors()
        with tempfile.TemporaryDirectory(dir=directory, prefix="ringback-leak-") as place:
            database = f"sqlite:///{place}/leak.db"
            async with open_engine(config, database=database, observe_attempt=self._note) as engine:
                await self._all_at_once(engine)
                before, memory = _descriptors(), _memory_mib()
                began = perf_counter()
                await self._flow(engine)
                seconds = perf_counter() - began
                stats = await engine.stats()
                alive = await self._all_at_once(engine)
                # More executors than may call at once have called of late. Of their connections
                # those that expire are closed by the next call.
                await trio.sleep(EXPIRY_S)
                await self._all_at_once(engine)
                leaks = Leaks(
                    callbacks=self._count,
                    seconds=seconds,
                    ends=self._ends,
                    not_ended=self._count - self._ended,
                    not_one_attempt=sum(self._attempts[i] != 1 for i in self._task_ids),
                    late_results=stats.late_results,
                    busy=stats.executors_busy,
                    alive=alive,
                    overrun_s=self._overrun_s(),
                    descriptors=_descriptors() - before,
                    descriptors_closed=0,
                    connections=0,
                    memory_mib=_memory_mib() - memory,
                )
        return attrs.evolve(
            leaks,
            descriptors_closed=_descriptors() - at_first,
            connections=await _open_connections(self._url),
        )

    async def _flow(self, engine: Engine) -> None:
        """All tasks, until they have ended or nothing moves any more."""
        async with engine.watch() as watch, trio.open_nursery() as nursery:
            nursery.start_soon(self._submit_all, engine)
            while self._ended < self._count:
                with trio.move_on_after(STALL_S) as patience:
                    for event in await watch.receive():
                        self._follow(event, engine, nursery)
                if patience.cancelled_caught:
                    break
            nursery.cancel_scope.cancel(reason="all have ended, or will not")
        with trio.move_on_after(STALL_S):
            while (await engine.stats()).executors_busy:  # noqa: ASYNC110 - it is not ours to signal
                await trio.sleep(0.01)

    async def _submit_all(self, engine: Engine) -> None:
        for first in range(0, self._count, BATCH):
            specs = [self._spec(n) for n in range(first, min(first + BATCH, self._count))]
            for _ in specs:
                await self._room.acquire()
            created = await engine.submit(specs)
            self._task_ids += [receipt.task_id for receipt in created.receipts]

    def _spec(self, number: int) -> TaskSpec:
        """The task of a number; its name leads to what is planned with it."""
        chance = self._chance
        way = chance.choices(list(WAYS), list(WAYS.values()))[0]
        timeout_s = chance.uniform(0.1, 0.5) if way in CUT else 10.0
        wait_s = chance.uniform(0, 0.08) if chance.random() < CANCELLED else None
        self._plans.append(Plan(timeout_s, wait_s))
        return TaskSpec(
            name=f"{number}",
            callback_url=self._url + way,
            timeout_s=timeout_s,
            retry_policy=RetryPolicy(max_attempts=1),
        )

    def _follow(self, event: Event, engine: Engine, nursery: trio.Nursery) -> None:
        plan = self._plans[int(event.name)]
        if event.to_status is Status.PROCESSING and plan.cancel_after_s is not None:
            nursery.start_soon(self._cancel, engine, event.task_id, plan.cancel_after_s)
        elif event.to_status in ENDED:
            self._ended += 1
            self._room.release()
            why = ""
            if event.to_status is Status.FAILED and event.result is not None:
                why = f", {event.result.error_class}"
            self._ends[f"{event.to_status}{why}"] += 1

    async def _cancel(self, engine: Engine, task_id: str, wait_s: float) -> None:
        await trio.sleep(wait_s)
        try:
            await engine.cancel(task_id, in_flight=True)
        except IllegalTransition:
            self._ends["(cancelled too late)"] += 1

    async def _all_at_once(self, engine: Engine) -> int:
        """How many calls can be in flight together: each is answered when all are there."""
        spec = TaskSpec(
            name="together",
            callback_url=f"{self._url}/together/{EXECUTORS}",
            timeout_s=20.0,
            retry_policy=RetryPolicy(max_attempts=1),
        )
        created = await engine.submit([spec] * EXECUTORS)
        ids = [receipt.task_id for receipt in created.receipts]
        ended: list[Status] = []
        while len(ended) < len(ids):
            await trio.sleep(0.05)
            tasks = [await engine.get(task_id) for task_id in ids]
            ended = [task.status for task in tasks if task.status in ENDED]
        return ended.count(Status.COMPLETED)

    def _note(self, attempt: Attempt) -> None:
        self._attempts[attempt.task_id] += 1
        if (
            attempt.result.error_class is not ErrorClass.CANCELLED
        ):  # else it ends when that is stored
            self._durations[attempt.task_id] = attempt.duration_s

    def _overrun_s(self) -> float:
        planned = zip(self._task_ids, self._plans, strict=False)
        return max(self._durations.get(i, 0.0) - plan.timeout_s for i, plan in planned)


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def _memory_mib() -> float:
    gc.collect()
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


async def _open_connections(url: str) -> float:
    """What the callee still sees, after some time to see it; not a number, which keeps no limit, if
    it does not say."""
    left = math.nan
    with trio.move_on_after(5):
        while left:
            left = (await ask_once(url, request("GET", "/_open"))).json()["open"]
            await trio.sleep(0.05)
    return left


async def measure(settings: Settings) -> list[Figure]:
    count = 2_000 if settings.quick else 20_000
    async with open_process(
        "callee", ["-m", "benchmarks.rude_callee"], settings.directory
    ) as callee:
        settings.say(f"{count:,} callbacks by {EXECUTORS} executors, half of them cut off")
        leaks = await Run(callee.url, count).measure(settings.directory)
    return figures(leaks)


def figures(leaks: Leaks) -> list[Figure]:
    cut = sum(
        number
        for end, number in leaks.ends.items()
        if end.startswith("Cancelled") or "timeout" in end
    )
    rate = leaks.callbacks / leaks.seconds
    return [
        Figure(QUESTION, "callbacks/s, half of them cut off", rate, "/s"),
        Figure(
            QUESTION, "cut off: cancelled or timed out", 100 * cut / leaks.callbacks, "%",
            limit=CUT_MIN_PERCENT, better="higher",
        ),
        *(Figure(QUESTION, f"  {end}", number) for end, number in sorted(leaks.ends.items())),
        Figure(QUESTION, "tasks that have not ended", leaks.not_ended, limit=0),
        Figure(QUESTION, "tasks without exactly one attempt", leaks.not_one_attempt, limit=0),
        Figure(QUESTION, "longest attempt beyond its timeout", leaks.overrun_s, "s", limit=1),
        Figure(QUESTION, "executors busy afterwards", leaks.busy, limit=0),
        Figure(
            QUESTION, "executors calling at once afterwards", leaks.alive,
            limit=EXECUTORS, better="higher",
        ),
        Figure(QUESTION, "descriptors more than before", leaks.descriptors, limit=DESCRIPTORS_MAX),
        Figure(
            QUESTION, "descriptors left when the engine is closed", leaks.descriptors_closed,
            limit=DESCRIPTORS_MAX,
        ),
        Figure(QUESTION, "connections the callee still sees", leaks.connections, limit=0),
        Figure(QUESTION, "memory more than before", leaks.memory_mib, "MiB", limit=MEMORY_MIB_MAX),
        Figure(QUESTION, "results that came too late", leaks.late_results),
    ]  # fmt: skip
