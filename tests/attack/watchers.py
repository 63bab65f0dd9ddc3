"""Watchers that never read, among others that do: who reads misses nothing, who does not is dropped."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any, Final, NoReturn

import attrs
import click
import trio

from benchmarks.load import Connection
from benchmarks.tasks import batches
from benchmarks.watch_client import connect
from benchmarks.watchers import EVENTS_EACH, open_crowd
from tests.attack.target import Target, open_target, until
from tests.attack.verdict import RECORD, Came, conclude, progress

BAR: Final = "watchers that never read"
BATCH: Final = 25
DROPPED_S: Final = 10.0
GROWTH_MAX_MIB: Final = 50.0
LAG_P95_MAX_MS: Final = 250.0
LOSS_MAX: Final = 0.1
END_S: Final = 60.0  # for all tasks to be Completed
LOOK_S: Final = 0.2


@attrs.frozen
class Size:
    """How large an attack is."""

    readers: int
    deaf: int
    events_per_s: int
    seconds: float


LONG: Final = Size(readers=150, deaf=50, events_per_s=1000, seconds=30.0)


@attrs.define
class Offered:
    """Work at a fixed rate: what was accepted, and how fast all of it was done."""

    tasks: int = 0
    per_s: float = 0.0


@attrs.define
class Looks:
    """What the server looked like while it was attacked."""

    dropped_s: float | None = None  # from the first event until nobody deaf was left
    rss_mib: float = 0.0  # the most


async def attack(size: Size = LONG) -> Came:
    """The same work twice: alone, and before watchers of whom some never read."""
    looks = Looks()
    async with open_target() as target:
        progress(f"{size.events_per_s:,} events/s alone")
        await offer(target, size, 1.0)  # once unmeasured
        alone = await offer(target, size, size.seconds / 2)
        base, before_mib = await target.base(), target.rss_mib()
        with ExitStack() as held:
            async with open_crowd(target.stack, size.readers) as crowd:
                await _add_deaf(target, size, held)
                progress(f"the same before {size.readers} readers and {size.deaf} who never read")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_look, target, size, looks)
                    watched = await offer(target, size, size.seconds)
                    await until(partial(_are_dropped, target, size), 2 * DROPPED_S)
                    await trio.sleep(2 * LOOK_S)
                    nursery.cancel_scope.cancel(reason="all tasks are done")
                crowd.events = EVENTS_EACH * watched.tasks
        await target.settle(base, 20.0)
    return _verdict(size, alone, watched, looks, crowd.found, looks.rss_mib - before_mib)


async def _add_deaf(target: Target, size: Size, held: ExitStack) -> None:
    for _ in range(size.deaf):
        sock: socket.socket
        sock, _ = await trio.to_thread.run_sync(connect, target.url)
        held.enter_context(sock)
    everyone = size.readers + size.deaf

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
    size: Size, alone: Offered, watched: Offered, looks: Looks, found: dict[str, Any], grown: float
) -> Came:
    loss = 1 - watched.per_s / alone.per_s
    misses, late = [], []
    if found["missed"] or found["repeated"] or found["whole"] != size.readers:
        misses.append(f"readers missed {found['missed']} events: {', '.join(found['closed'])}")
    if looks.dropped_s is None:
        misses.append("who never read was kept")
    elif looks.dropped_s > DROPPED_S:
        late.append("who never read was kept too long")
    if found["lagMs"]["p95"] > LAG_P95_MAX_MS:
        late.append("events came late")
    if grown > GROWTH_MAX_MIB:
        misses.append("memory grew")
    if loss > LOSS_MAX:
        late.append("tasks became slower")
    dropped = "never" if looks.dropped_s is None else f"after {looks.dropped_s:.1f} s"
    return Came(
        tried=f"{size.readers + size.deaf} watchers, {size.deaf} of them never read, "
        f"{size.events_per_s:,} events/s for {size.seconds:g} s",
        seen=f"{found['whole']} readers got all {found['events']:,} events once and in order, "
        f"{found['missed']} missed, lag p50 {found['lagMs']['p50']:.0f} ms, "
        f"p95 {found['lagMs']['p95']:.0f} ms, p99 {found['lagMs']['p99']:.0f} ms; "
        f"the others dropped {dropped}; memory {grown:+.0f} MiB; "
        f"{watched.per_s:.0f} tasks/s, {alone.per_s:.0f} alone ({-100 * loss:+.1f} %)",
        misses=misses,
        late=late,
    )


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """200 websocket watchers, of whom 50 never read."""
    conclude(BAR, "watchers", partial(attack), record=record)
