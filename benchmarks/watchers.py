"""What does watching cost? Ever more websocket watchers of everything: what they get, and when."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from time import perf_counter
from typing import Any, Final

import attrs
import trio

from benchmarks.load import Connection, CutOffError, Request, closed_loop
from benchmarks.report import Figure, latency_figures
from benchmarks.stack import ROOT, Stack, StartError, open_stack
from benchmarks.tasks import Settings, create, wait_until_completed

QUESTION: Final = "watchers"
WATCHERS: Final = (1, 10, 100, 1_000)
THROUGHPUT_WITH: Final = (0, 1, 100, 1_000, 0)
EVENTS_EACH: Final = 4  # of a task that is called once: Queued, Pending, Processing, Completed
EVENTS_PER_S: Final = 500
RATE: Final = EVENTS_PER_S / EVENTS_EACH
CONNECTIONS: Final = 100
SENDERS: Final = 50  # of an open loop: more than are ever needed at once
LAG_MAX_MS: Final = 250.0
SUBSCRIBE_TIMEOUT_S: Final = 120.0
FINISH_TIMEOUT_S: Final = 120.0


@attrs.define
class Run:
    """A server and a receiver, and what was done with them so far."""

    stack: Stack
    settings: Settings
    tasks: int = 0
    numbers: Iterator[int] = attrs.field(factory=count)

    def next_create(self) -> Request:
        return create(self.stack.callback("/good"), next(self.numbers), "auto")


@attrs.define
class Crowd:
    """Watchers in a process of their own, and in the end what they got."""

    events: int = 0  # at least so many must come
    found: dict[str, Any] = attrs.field(factory=dict)


async def measure(settings: Settings) -> list[Figure]:
    figures: list[Figure] = []
    seconds, tasks = (3.0, 500) if settings.quick else (8.0, 1_500)
    async with open_stack(settings.directory) as stack:
        run = Run(stack, settings)
        _, unwanted = await closed(run, 300)  # once unmeasured
        if unwanted:
            raise StartError(f"creates were not accepted: {dict(unwanted)}")
        for watchers in WATCHERS:
            settings.say(f"{watchers:,} watchers of {EVENTS_PER_S} events/s for {seconds:.0f} s")
            figures += await _lag(run, watchers, seconds)
        rates: dict[int, list[float]] = {}
        for watchers in THROUGHPUT_WITH:
            settings.say(f"{tasks:,} tasks in a closed loop with {watchers:,} watchers")
            async with open_crowd(stack, watchers) as crowd:
                rate, unwanted = await closed(run, tasks)
                crowd.events = EVENTS_EACH * (tasks - unwanted.total())
            rates.setdefault(watchers, []).append(rate)
            figures += _closed_figures(watchers, rates, unwanted, crowd.found)
    return figures


@asynccontextmanager
async def open_crowd(stack: Stack, watchers: int) -> AsyncIterator[Crowd]:
    """Watchers who have all subscribed; at the end of the block they tell what they got."""
    crowd = Crowd()
    if not watchers:
        yield crowd
        return
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "benchmarks.watch_client", stack.server.url, str(watchers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = b""
        with trio.move_on_after(SUBSCRIBE_TIMEOUT_S):
            while not said.endswith(b"\n") and (more := await process.stdout.receive_some()):
                said += more
        if said != b"subscribed\n":
            raise StartError(f"{watchers:,} watchers could not subscribe")
        yield crowd
        with suppress(trio.BrokenResourceError):  # it has ended: then it tells nothing
            await process.stdin.send_all(str(crowd.events).encode())
        await process.stdin.aclose()
        with trio.move_on_after(FINISH_TIMEOUT_S):
            said = b"".join([part async for part in process.stdout])
            crowd.found = json.loads(said) if said else {}
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    if not crowd.found:
        raise StartError(f"{watchers:,} watchers did not tell what they got")


async def _lag(run: Run, watchers: int, seconds: float) -> list[Figure]:
    before = run.stack.server.usage()
    async with open_crowd(run.stack, watchers) as crowd:
        subscribed, began = run.stack.server.usage(), perf_counter()
        latencies, unwanted = await _open_loop(run, RATE, seconds)
        took = perf_counter() - began
        crowd.events = EVENTS_EACH * len(latencies)
        after = run.stack.server.usage()
    found, what = crowd.found, f"{watchers:,} watchers"
    note = (
        f"{found['events']:,} events, {found['received']:,} received in {found['chunks']:,} reads"
    )
    figures = [
        Figure(
            QUESTION, f"{what}: event to received", lag, "ms",
            LAG_MAX_MS if stat == "p95" else None, note=note, stat=stat,
        )
        for stat, lag in found["lagMs"].items()
    ]  # fmt: skip
    return [
        *figures,
        Figure(QUESTION, f"{what}: longest", found["lagMaxMs"], "ms"),
        Figure(
            QUESTION, f"{what}: who got everything once and in order", found["whole"],
            limit=watchers, better="higher", note=f"{found['inStep']:,} byte for byte alike",
        ),
        Figure(QUESTION, f"{what}: events missed", found["missed"], limit=0, note=_reasons(found)),
        Figure(QUESTION, f"{what}: events repeated", found["repeated"], limit=0),
        Figure(QUESTION, f"{what}: events/s", found["events"] / took, "/s"),
        Figure(QUESTION, f"{what}: server CPU", 100 * (after.cpu_s - subscribed.cpu_s) / took, "%"),
        Figure(
            QUESTION, f"{what}: watching client's CPU",
            100 * found["cpuSeconds"] / found["seconds"], "%", note="near 100 it is the bottleneck",
        ),
        Figure(
            QUESTION, f"{what}: server memory", after.rss_mib, "MiB",
            note=f"{after.rss_mib - before.rss_mib:+.1f} MiB",
        ),
        *latency_figures(QUESTION, f"{what}: create, from when it was due", latencies, unwanted),
    ]  # fmt: skip


def _reasons(found: dict[str, Any]) -> str:
    return ", ".join(found["closed"])


async def _open_loop(run: Run, rate: float, seconds: float) -> tuple[list[float], dict[str, int]]:
    """Creates at fixed times whatever the answers do, until all that was accepted is Completed.
    How long after they were due they were answered."""
    latencies: list[float] = []
    unwanted: dict[str, int] = {}
    began, turns = perf_counter() + 0.1, iter(range(int(rate * seconds)))

    async def send() -> None:
        with Connection(run.stack.server.url) as connection:
            for turn in turns:
                due = began + turn / rate
                await trio.sleep(max(0.0, due - perf_counter()))
                try:
                    status = str((await connection.ask(run.next_create())).status)
                except CutOffError as cut:
                    status = f"cut off: {cut}"
                if status == "201":
                    latencies.append(perf_counter() - due)
                else:
                    unwanted[status] = unwanted.get(status, 0) + 1

    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(send)
    run.tasks += len(latencies)
    await wait_until_completed(run.stack, run.tasks, run.settings)
    return latencies, unwanted


async def closed(run: Run, tasks: int) -> tuple[float, Counter[str]]:
    """Tasks a second, from the first create until all are Completed, 0 if they never were; and
    what came instead of a 201."""
    requests = iter([run.next_create() for _ in range(tasks)])
    load = await closed_loop(run.stack.server.url, requests, connections=CONNECTIONS, wanted=(201,))
    run.tasks += len(load.latencies)
    ended = await wait_until_completed(run.stack, run.tasks, run.settings)
    return len(load.latencies) / (ended - load.started) if ended else 0.0, load.unwanted


def _closed_figures(
    watchers: int, rates: dict[int, list[float]], unwanted: Counter[str], found: dict[str, Any]
) -> list[Figure]:
    """The last round; against the first one without watchers, which are also the last."""
    rate, alone = rates[watchers][-1], rates[0][0]
    again = " again" if len(rates[watchers]) > 1 else ""
    what = f"closed loop, {watchers:,} watchers{again}"
    reasons = ", ".join(unwanted)
    figures = [
        Figure(QUESTION, f"{what}: tasks/s", rate, "/s"),
        Figure(QUESTION, f"{what}: not accepted", unwanted.total(), limit=0, note=reasons),
    ]
    if not rate:
        figures.append(Figure(QUESTION, f"{what}: not all Completed", 1, limit=0))
    if watchers or again:
        share = 100 * rate / alone if alone else 0.0
        figures.append(Figure(QUESTION, f"{what}: of that without watchers", share, "%"))
    if found:
        figures += [
            Figure(
                QUESTION, f"{what}: dropped as too slow", found["dropped"], note=_reasons(found)
            ),
            Figure(QUESTION, f"{what}: events repeated", found["repeated"], limit=0),
            Figure(
                QUESTION, f"{what}: watching client's CPU",
                100 * found["cpuSeconds"] / found["seconds"], "%",
            ),
        ]  # fmt: skip
    return figures
