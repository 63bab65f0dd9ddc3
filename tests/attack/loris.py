"""Slow-loris: a thousand connections that say as little as they can, as slowly as they can, and come
back when they are closed. The API must stay as quick as the bar says, and none may stay."""

from __future__ import annotations

import math
import resource
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count, cycle
from time import perf_counter
from typing import Any, Final, NoReturn

import attrs
import click
import trio

from benchmarks.load import Connection, CutOffError, Request, request
from tests.attack.bytes_wire import CREATE, HOST
from tests.attack.target import Target, open_target
from tests.attack.verdict import RECORD, Came, conclude, percentile, progress

BAR: Final = "slow-loris"
P95_MAX_S: Final = 0.2
P99_MAX_S: Final = 0.5
CLOSED_S: Final = 30.0
DRIP_S: Final = 2.0
CLIENTS: Final = 10
PACE_S: Final = 0.1  # from one request of a client to its next
SPARE_FILES: Final = 200
HELD_MIN: Final = 0.95  # of the connections, all at once
ASKED_MIN: Final = 0.9  # of the requests that were due
LOOK_S: Final = 0.5

HEAD: Final = b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-Slow: "
BODY: Final = b"POST " + CREATE + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n{"


@attrs.frozen
class Size:
    """How large an attack is."""

    headers: int
    bodies: int
    idle: int
    seconds: float  # for which who is closed comes back
    body_timeout_s: float = 20.0  # the default

    @property
    def connections(self) -> int:
        return self.headers + self.bodies + self.idle


LONG: Final = Size(headers=500, bodies=250, idle=250, seconds=45.0)


@attrs.define
class Seen:
    """How long connections of each kind lived, and how the API did meanwhile."""

    lived_s: defaultdict[str, list[float]] = attrs.field(factory=lambda: defaultdict(list))
    alone_s: list[float] = attrs.field(factory=list)
    during_s: list[float] = attrs.field(factory=list)
    unwanted: list[str] = attrs.field(factory=list)
    refused: int = 0  # for there being too much to do
    descriptors: int = 0  # the most that the server had
    not_let_in: int = 0  # connections that were never made


async def attack(size: Size = LONG) -> Came:
    """Hold that many connections for that long, and use the API meanwhile."""
    seen = Seen()
    make_room(size.connections)
    options = ("--body-timeout", str(size.body_timeout_s), "--allowed-hosts", "test")
    async with open_target(*options) as target:
        base = await target.base()
        requests = _requests(target)
        await _use(target, requests, 3.0, seen, seen.alone_s)
        async with trio.open_nursery() as nursery:
            for start in _attackers(target, size, seen):
                nursery.start_soon(start)
            progress(f"{size.connections:,} connections, for {size.seconds:g} s")
            async with trio.open_nursery() as looking:
                looking.start_soon(_look, target, seen)
                await _use(target, requests, size.seconds, seen, seen.during_s)
                looking.cancel_scope.cancel(reason="nobody asks any more")
            progress(f"{await target.vitals()}; now who is closed stays away")
        settled_s = await target.settle(base, 15.0)
        end = await target.vitals()
    held = seen.descriptors - base.descriptors
    return _verdict(size, seen, held, f"{settled_s:.1f} s later {end} (before: {base})")


def _verdict(size: Size, seen: Seen, held: int, rest: str) -> Came:
    p95, p99 = percentile(seen.during_s, 95), percentile(seen.during_s, 99)
    longest = {kind: max(lived, default=math.nan) for kind, lived in seen.lived_s.items()}
    due = CLIENTS * size.seconds / PACE_S
    misses = [f"unwanted: {reason}" for reason in sorted(set(seen.unwanted))]
    if seen.refused > len(seen.during_s) / 2:
        misses.append("the API refused most requests")
    quick = p95 <= P95_MAX_S and p99 <= P99_MAX_S
    if not all(lived <= CLOSED_S for lived in longest.values()):
        misses.append("connections were not closed in time")
    if held < HELD_MIN * size.connections:
        misses.append(f"only {held} connections at once")
    if seen.not_let_in:
        misses.append(f"{seen.not_let_in} connections were not let in")
    return Came(
        tried=f"{size.connections:,} connections ({size.headers} drip headers, {size.bodies} "
        f"bodies, {size.idle} idle) for {size.seconds:g} s, "
        f"{sum(map(len, seen.lived_s.values())):,} in all, {held:,} at once, --body-timeout {size.body_timeout_s:g}",
        seen=f"API p95 {p95 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms of {len(seen.during_s):,} "
        f"(alone {percentile(seen.alone_s, 95) * 1000:.0f} and "
        f"{percentile(seen.alone_s, 99) * 1000:.0f}), {seen.refused} refused; closed after at most "
        + ", ".join(f"{kind} {lived:.1f} s" for kind, lived in sorted(longest.items()))
        + f"; {rest}",
        misses=misses,
        late=["the API became slow"] * (not quick)
        + ["the API refused"] * bool(seen.refused)
        + ["the API was hardly asked"] * (len(seen.during_s) < ASKED_MIN * due),
    )


async def _look(target: Target, seen: Seen) -> None:
    while True:
        seen.descriptors = max(seen.descriptors, target.descriptors()[0])
        await trio.sleep(LOOK_S)


def make_room(connections: int) -> None:
    """Let this process have so many connections open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


# -- those who attack ------------------------------------------------------------------------


def _attackers(target: Target, size: Size, seen: Seen) -> Iterator[Callable[[], Any]]:
    until = perf_counter() + size.seconds
    kinds = (("header", HEAD, size.headers), ("body", BODY, size.bodies), ("idle", b"", size.idle))
    for kind, begin, number in kinds:
        for one in range(number):
            wait_s = DRIP_S * one / number  # they do not all drip at once
            yield partial(_hold, target.port, begin, wait_s, until, seen, seen.lived_s[kind])


async def _hold(
    port: int, begin: bytes, wait_s: float, until: float, seen: Seen, lived_s: list[float]
) -> None:
    """One connection after the other, each as long as the server bears it."""
    await trio.sleep(wait_s)
    while perf_counter() < until:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:  # it has not lived, so it was not closed soon either
            seen.not_let_in += 1
            await trio.sleep(DRIP_S)
            continue
        began = perf_counter()
        with trio.move_on_after(2 * CLOSED_S):
            await _drip(stream, begin)
        lived_s.append(perf_counter() - began)


async def _drip(stream: trio.SocketStream, begin: bytes) -> None:
    async with stream:
        with suppress(trio.BrokenResourceError):
            if begin:
                await stream.send_all(begin)
            while True:
                with trio.move_on_after(DRIP_S):
                    while await stream.receive_some():
                        pass
                    return
                if begin:
                    await stream.send_all(b"x")


# -- those who work --------------------------------------------------------------------------


def _requests(target: Target) -> Iterator[Request]:
    """Creates that the executors run, and looking."""
    task = {"name": "beside an attack", "callbackUrl": target.callback("/good"), "dispatch": "auto"}
    mix = cycle(
        [
            request("POST", "/api/v1/tasks", task),
            request("GET", "/api/v1/tasks?limit=20"),
            request("POST", "/api/v1/tasks", task | {"dispatch": "manual"}),
            request("POST", "/api/v1/tasks/dequeue"),
            request("GET", "/api/v1/stats"),
        ]
    )
    return (asked for _, asked in zip(count(), mix, strict=False))


async def _use(
    target: Target, requests: Iterator[Request], seconds: float, seen: Seen, took_s: list[float]
) -> None:
    """Clients at a steady pace. An empty queue may be answered with 404."""
    until = perf_counter() + seconds

    async def client(number: int) -> None:
        await trio.sleep(PACE_S * number / CLIENTS)
        with Connection(target.url) as connection:
            while (began := perf_counter()) < until:
                try:
                    status = (await connection.ask(next(requests))).status
                except CutOffError as cut:
                    seen.unwanted.append(f"cut off: {cut}")
                    continue
                took_s.append(perf_counter() - began)
                seen.refused += status in (429, 503)
                if status not in (200, 201, 404, 429, 503):
                    seen.unwanted.append(f"status {status}")
                await trio.sleep(max(0.0, began + PACE_S - perf_counter()))

    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(client, number)


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """A thousand connections that drip headers or bodies, or say nothing."""
    conclude(BAR, "loris", partial(attack), record=record)
