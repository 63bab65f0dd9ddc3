"""A herd of retries: thousands of tasks for one host fail within seconds. Their second attempts must
come spread out, and the host must never see more calls at once than its limit: a few while it fails,
one for each executor when it answers well.

While first attempts go out, retries that have become due wait behind them, and come as fast as they
can be made when the last is done. Those are the fewer, the longer the interval is in which all come.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any, Final, NoReturn

import attrs
import click
import trio

from benchmarks.load import Connection, request
from tests.attack.target import Target, open_target, until
from tests.attack.verdict import RECORD, Came, claims, conclude, progress
from tests.support.callees import open_callee
from tests.support.raw_server import Connection as Caller, answer
from tests.support.receivers import headers_of

BAR: Final = "retry herd"
TASKS: Final = 10_000
INTERVAL_S: Final = 420.0
SHARE_MAX: Final = 0.03
EXECUTORS: Final = 100
LIMIT: Final = 20  # of a host that answers badly
KNOWN_AFTER: Final = 2 * EXECUTORS  # calls, the host is known to answer badly
HELD_S: Final = 0.01  # how long each call takes
FAILING_S: Final = 300.0
BATCH: Final = 500
PAGE: Final = 250


@attrs.define
class Host:
    """Fails the first attempt of every task."""

    in_flight: int = 0
    peak: int = 0
    peak_known: int = 0  # once it was known to answer badly, until the last first attempt
    peak_retries: int = 0  # from then on, whenever a retry came, to the end
    firsts: int = 0
    seconds: list[float] = attrs.field(factory=list)  # when second attempts came
    tasks: int = 0

    async def serve(self, caller: Caller) -> None:
        while (seen := await caller.request()) is not None:
            first = headers_of(seen)["x-task-attempt"] == "1"
            self.in_flight += 1
            try:
                self._note(first=first)
                await trio.sleep(HELD_S)
            finally:
                self.in_flight -= 1  # who has the answer may call again before the send returns
            await caller.send(answer(b"", 503 if first else 200))

    def _note(self, *, first: bool) -> None:
        self.peak = max(self.peak, self.in_flight)
        if first:
            self.firsts += 1
        else:
            self.seconds.append(perf_counter())
        if self.firsts <= KNOWN_AFTER:
            return
        if first:
            self.peak_known = max(self.peak_known, self.in_flight)
        else:
            self.peak_retries = max(self.peak_retries, self.in_flight)


@attrs.frozen(kw_only=True)
class Herd:
    """What came of it. ``planned`` and ``came``: how many second attempts each second holds."""

    host: Host
    planned: Counter[int]
    came: Counter[int]
    left: int

    def fullest(self, seconds: Counter[int]) -> float:
        """What part of the herd the fullest second holds."""
        return max(seconds.values(), default=0) / self.host.tasks

    def misses(self) -> list[str]:
        """What is not as it has to be."""
        tasks = self.host.tasks
        found = {
            f"only {self.planned.total()} retries planned": self.planned.total() < tasks / 2,
            f"{self.fullest(self.planned):.1%} planned for one second": self.fullest(self.planned)
            > SHARE_MAX,
            f"{self.fullest(self.came):.1%} came in one second": self.fullest(self.came)
            > SHARE_MAX,
            f"{self.host.peak} calls at once": self.host.peak > EXECUTORS,
            f"{self.host.peak_known} at once while it failed": self.host.peak_known > LIMIT,
            f"{self.left} tasks not Completed": self.left,
        }
        return [what for what, is_so in found.items() if is_so]


async def attack(tasks: int = TASKS) -> Came:
    """Let so many fail, and wait for all of their retries."""
    herd = await run(tasks, INTERVAL_S, to_the_end=True)
    host = herd.host
    return Came(
        tried=f"{tasks:,} tasks of one host fail, to be retried within {INTERVAL_S:g} s",
        seen=f"the fullest second holds {herd.fullest(herd.planned):.1%} of the retries as planned, {herd.fullest(herd.came):.1%} as "
        f"they came; at most {host.peak} calls at once, {host.peak_known} once it was known to fail, "
        f"{host.peak_retries} when retries came; "
        f"{herd.left} not Completed",
        misses=herd.misses(),
    )


async def run(tasks: int, interval_s: float, *, to_the_end: bool) -> Herd:
    """Make them fail, and look when they are to be tried again; and, to the end, when they are."""
    # A breaker would let few of them fail at once; open for next to no time, it stops none.
    options = ("--dispatch", "auto", "--breaker-open", "0.001")
    host = Host(tasks=tasks)
    async with (
        open_callee(host.serve) as callee,
        open_target(*options, executors=EXECUTORS) as target,
    ):
        await _create(target, callee.url(), tasks, interval_s)
        progress(f"{tasks:,} tasks accepted")
        failed = partial(_is_so, lambda: host.firsts >= tasks and host.in_flight == 0)
        if not await until(failed, FAILING_S):
            raise target.lost(f"after {FAILING_S:g} s only {host.firsts} first attempts")
        planned, came = await _planned(target), len(host.seconds)
        progress(f"all have failed once; {came:,} were tried again meanwhile")
        left = 0
        if to_the_end:
            await until(partial(_is_so, lambda: len(host.seconds) >= tasks), interval_s + FAILING_S)
            await until(partial(_completed, target, tasks), 30.0)
            left = tasks - (await target.stats())["counts"].get("Completed", 0)
        return Herd(host=host, planned=planned, came=Counter(map(int, host.seconds)), left=left)


async def _create(target: Target, url: str, tasks: int, interval_s: float) -> None:
    policy = {
        "maxAttempts": 3,
        "initialIntervalSeconds": interval_s,
        "maxIntervalSeconds": interval_s,
    }
    task: dict[str, Any] = {"name": "herd", "callbackUrl": url, "retryPolicy": policy}
    for first in range(0, tasks, BATCH):
        batch = {"tasks": [task] * min(BATCH, tasks - first)}
        await target.ask("POST", "/api/v1/tasks/batch", batch, wanted=(201,))


async def _planned(target: Target) -> Counter[int]:
    """In which second each task is to be tried again; what is tried already does not say."""
    found: Counter[int] = Counter()
    path: str | None = f"/api/v1/tasks?limit={PAGE}"
    with Connection(target.url) as connection:
        while path is not None:
            page = (await connection.ask(request("GET", path))).json()
            planned = (task["nextAttemptAt"] for task in page["tasks"])
            found.update(_second(moment) for moment in planned if moment is not None)
            cursor = page["nextCursor"]
            path = f"/api/v1/tasks?limit={PAGE}&cursor={cursor}" if cursor else None
    return found


def _second(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())


async def _is_so(condition: Any) -> bool:
    await trio.lowlevel.checkpoint()
    return bool(condition())


async def _completed(target: Target, tasks: int) -> bool:
    return bool((await target.stats())["counts"].get("Completed", 0) >= tasks)


@click.command()
@click.option("--tasks", default=TASKS, show_default=True)
@RECORD
def command(*, tasks: int, record: bool) -> NoReturn:
    """Let thousands of tasks for one host fail at once."""
    claims(record=record, tasks=(tasks, TASKS))
    conclude(BAR, f"herd --tasks {tasks}", partial(attack, tasks), record=record)
