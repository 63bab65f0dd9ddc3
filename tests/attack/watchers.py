"""Watchers that never read, among others that do: who reads misses nothing, who does not is dropped."""

from __future__ import annotations

import socket
import statistics
from contextlib import ExitStack
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any, Final, NoReturn

import attrs
import click
import trio

from benchmarks.load import Connection
from benchmarks.tasks import Settings, batches
from benchmarks.watch_client import connect
from benchmarks.watchers import EVENTS_EACH, Run, closed, open_crowd
from tests.attack.target import Target, open_target, until
from tests.attack.verdict import RECORD, Came, conclude, progress

BAR: Final = "watchers that never read"
BATCH: Final = 25
DROPPED_S: Final = 10.0
GROWTH_MAX_MIB: Final = 50.0
LAG_P95_MAX_MS: Final = 250.0
LOSS_MAX: Final = 0.1
EVENTS_MIN: Final = 0.95  # of those that were to come
GONE_S: Final = 20.0
END_S: Final = 60.0  # for all tasks to be Completed
LOOK_S: Final = 0.2


@attrs.frozen
class Size:
    """How large an attack is."""

    readers: int
    deaf: int
    events_per_s: int
    seconds: float
    rounds: int  # of the closed loop, each once with the deaf and once without
    tasks: int  # of a round


LONG: Final = Size(
    readers=150, deaf=50, events_per_s=1000, seconds=30.0, rounds=5, tasks=2_000
)  # fmt: skip


@attrs.define
class Offered:
    """Work at a fixed rate: what was accepted, and how fast all of it was done."""

    tasks: int = 0
    per_s: float = 0.0


@attrs.define
class Loops:
    """Tasks a second in a closed loop, each round."""

    alone: list[float] = attrs.field(factory=list)
    before_deaf: list[float] = attrs.field(factory=list)

    @property
    def loss(self) -> float:
        """What part of the throughput the deaf cost."""
        return 1 - statistics.median(self.before_deaf) / statistics.median(self.alone)


@attrs.define
class Looks:
    """What the server looked like while it was attacked."""

    dropped_s: float | None = None  # from the first event until nobody deaf was left
    rss_mib: float = 0.0  # the most


async def attack(size: Size = LONG) -> Came:
    """Work at a fixed rate before watchers of whom some never read; then as much work as can be
    done, with some who never read and without, in turns."""
    looks = Looks()
    async with open_target() as target:
        warm = await offer(target, size, 1.0)  # unmeasured
        base, before_mib = await target.base(), target.rss_mib()
        with ExitStack() as held:
            async with open_crowd(target.stack, size.readers) as crowd:
                await _add_deaf(target, size, held, size.readers)
                progress(
                    f"{size.events_per_s:,} events/s before {size.readers} readers and {size.deaf} who never read"
                )
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_look, target, size, looks)
                    watched = await offer(target, size, size.seconds)
                    await until(partial(_are_dropped, target, size), 2 * DROPPED_S)
                    await trio.sleep(2 * LOOK_S)
                    nursery.cancel_scope.cancel(reason="all tasks are done")
                crowd.events = EVENTS_EACH * watched.tasks
        await target.settle(base, 20.0)
        loops = await _closed_loops(target, size, warm.tasks + watched.tasks)
    return _verdict(size, watched, loops, looks, crowd.found, looks.rss_mib - before_mib)


async def _closed_loops(target: Target, size: Size, tasks: int) -> Loops:
    """As fast as it goes: at a fixed rate that is within reach, nothing could become slower."""
    loops = Loops()
    settings = Settings(quick=False, full=False, queued=None, directory=target.place)
    run = Run(target.stack, settings, tasks)

    async def all_are_gone() -> bool:
        return bool((await target.stats())["watchers"] == 0)

    progress(f"{size.rounds} times {size.tasks:,} tasks in a closed loop, and before the deaf")
    for _ in range(size.rounds):
        for rates, deaf in ((loops.alone, 0), (loops.before_deaf, size.deaf)):
            with ExitStack() as held:
                await _add_deaf(target, attrs.evolve(size, deaf=deaf), held, 0)
                rate, unwanted = await closed(run, size.tasks)
            if unwanted or not rate:
                raise target.lost(f"not all of {size.tasks} tasks were done: {dict(unwanted)}")
            rates.append(rate)
            if not await until(all_are_gone, GONE_S):
                raise target.lost("watchers that have gone are kept")
    return loops


async def _add_deaf(target: Target, size: Size, held: ExitStack, there: int) -> None:
    for _ in range(size.deaf):
        sock: socket.socket
        sock, _ = await trio.to_thread.run_sync(connect, target.url)
        held.enter_context(sock)
    everyone = there + size.deaf

    async def are_in() -> bool:
        return bool((await target.stats())["watchers"] == everyone)

    if not await until(are_in, 20.0):
        raise target.lost(f"not all of {everyone} watchers were let in")


async def offer(target: Target, size: Size, seconds: float) -> Offered:
    """So many events a second, until all tasks are Completed."""
    offered = Offered()
    done = (await target.stats())["counts"]["Completed"]
    rounds = int(size.events_per_s / EVENTS_EACH / BATCH * seconds)
    began = perf_counter()
    requests = batches(target.callback("/good"), rounds * BATCH, BATCH, "auto")
    with Connection(target.url) as connection:
        for turn, asked in zip(count(), requests, strict=False):
            await trio.sleep(max(0.0, began + turn * seconds / rounds - perf_counter()))
            answer = await connection.ask(asked)
            if answer.status != 201:
                raise target.lost(f"a batch was answered with {answer.status}")
            offered.tasks += BATCH

    async def are_done() -> bool:
        return bool((await target.stats())["counts"]["Completed"] >= done + offered.tasks)

    if not await until(are_done, END_S, every_s=0.02):
        raise target.lost("not all accepted tasks were Completed")
    offered.per_s = offered.tasks / (perf_counter() - began)
    return offered


async def _look(target: Target, size: Size, looks: Looks) -> None:
    began = perf_counter()
    while True:
        looks.rss_mib = max(looks.rss_mib, target.rss_mib())
        if looks.dropped_s is None and await _are_dropped(target, size):
            looks.dropped_s = perf_counter() - began
        await trio.sleep(LOOK_S)


async def _are_dropped(target: Target, size: Size) -> bool:
    return bool((await target.stats())["watchers"] <= size.readers)


def _verdict(
    size: Size, watched: Offered, loops: Loops, looks: Looks, found: dict[str, Any], grown: float
) -> Came:
    events_per_s = EVENTS_EACH * watched.per_s
    misses, late = [], []
    if found["missed"] or found["repeated"] or found["whole"] != size.readers:
        misses.append(f"readers missed {found['missed']} events: {', '.join(found['closed'])}")
    if looks.dropped_s is None:
        misses.append("who never read was kept")
    elif looks.dropped_s > DROPPED_S:
        late.append("who never read was kept too long")
    if events_per_s < EVENTS_MIN * size.events_per_s:
        late.append(f"only {events_per_s:.0f} events/s")
    if found["lagMs"]["p95"] > LAG_P95_MAX_MS:
        late.append("events came late")
    if grown > GROWTH_MAX_MIB:
        misses.append("memory grew")
    if loops.loss > LOSS_MAX:
        late.append("tasks became slower")
    dropped = "never" if looks.dropped_s is None else f"after {looks.dropped_s:.1f} s"
    return Came(
        tried=f"{size.readers + size.deaf} watchers, {size.deaf} of them never read, "
        f"{size.events_per_s:,} events/s for {size.seconds:g} s; {size.rounds} times {size.tasks:,} tasks in a "
        f"closed loop alone and before {size.deaf} who never read",
        seen=f"{found['whole']} readers got all {found['events']:,} events once and in order, "
        f"{found['missed']} missed, lag p50 {found['lagMs']['p50']:.0f} ms, "
        f"p95 {found['lagMs']['p95']:.0f} ms, p99 {found['lagMs']['p99']:.0f} ms; "
        f"the others dropped {dropped}; memory {grown:+.0f} MiB; "
        f"{events_per_s:.0f} events/s; closed loop {statistics.median(loops.before_deaf):.0f} tasks/s before who "
        f"never read, {statistics.median(loops.alone):.0f} alone ({-100 * loops.loss:+.1f} %)",
        misses=misses,
        late=late,
    )


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """200 websocket watchers, of whom 50 never read."""
    conclude(BAR, "watchers", partial(attack), record=record)
