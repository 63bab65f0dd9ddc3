"""Does a dead host slow the others down? The same healthy load: alone, beside as many tasks for a
second healthy host, and beside as many for dead ones. The second says what twice the load costs.

One half of the dead ones go to a black hole: a loopback port whose queue of connections is full, so
that the kernel answers no further one. To the server it looks like a host that is switched off. The
other half go to a name that nobody has.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from time import perf_counter
from typing import Any, Final

import attrs
import trio

from benchmarks.load import Connection, CutOffError, ask_once, request
from benchmarks.report import Figure, latency_figures, percentile
from benchmarks.stack import Stack, open_stack
from benchmarks.tasks import Settings, count_completed, create, reaches, take_account
from web.receiver import Receiver, open_receiver

QUESTION: Final = "dead host"
RATE: Final = 100.0  # tasks a second to each of the two
CONNECTIONS: Final = 8
WARM_S: Final = 2.0
NOWHERE: Final = "http://nohost.invalid/hook"  # RFC 6761: such a name never exists
RATIO_MAX: Final = 2.0
FILLERS_MAX: Final = 16
ALONE: Final = "alone"
BESIDE_HEALTHY: Final = "beside a second healthy one"
BESIDE_DEAD: Final = "beside a dead one"
SILENCE_S: Final = 0.3  # a connection over loopback that takes longer is not made


@attrs.define
class Sent:
    """What was created, and when."""

    at: dict[str, float] = attrs.field(factory=dict)  # by task id, on `time.perf_counter`
    refused: int = 0


@attrs.frozen
class Phase:
    """What was created for the healthy host, and for the other ones beside it."""

    healthy: Sent = attrs.field(factory=Sent)
    others: Sent = attrs.field(factory=Sent)


async def measure(settings: Settings) -> list[Figure]:
    return await run(settings, 20.0 if settings.quick else 60.0)


async def run(settings: Settings, seconds: float, *options: str) -> list[Figure]:
    """Each phase for so long, on a server with these options."""
    async with AsyncExitStack() as places:
        dead = places.enter_context(black_hole())
        second = await places.enter_async_context(open_receiver())
        stack = await places.enter_async_context(open_stack(settings.directory, options))
        warm = await _phase(stack, WARM_S, (), settings)  # unmeasured
        settings.say(f"{RATE:.0f} tasks/s to a healthy host, for {seconds:.0f} s")
        phases = {ALONE: await _phase(stack, seconds, (), settings)}
        settings.say("the same, and as many to a second healthy host")
        phases[BESIDE_HEALTHY] = await _phase(stack, seconds, [f"{second.url}/good"], settings)
        settings.say("the same, and as many to a host that is dead and to a name that nobody has")
        phases[BESIDE_DEAD] = await _phase(stack, seconds, (dead, NOWHERE), settings)
        stats = await _stats(stack)
        return [
            *_latencies(await stack.answered(), phases),
            *await _accounts(stack, [warm, *phases.values()], phases, second, settings),
            *_state(stats),
        ]


@contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a port where no connection is ever made, nor refused."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(FILLERS_MAX):
            filler = sockets.enter_context(socket.socket())
            filler.settimeout(SILENCE_S)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
                return
        raise RuntimeError("this system accepts connections that nobody waits for")


async def _phase(stack: Stack, seconds: float, others: Sequence[str], settings: Settings) -> Phase:
    """Create for so long; wait until the healthy host has been called for all of its own."""
    phase = Phase()
    before = int((await stack.seen())["total"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, stack, [stack.callback("/good")], seconds, phase.healthy)
        if others:  # half a step later: clients do not create in time with each other
            await trio.sleep(0.5 / RATE)
            nursery.start_soon(_send, stack, others, seconds, phase.others)

    async def called() -> int:
        return int((await stack.seen())["total"]) - before

    await reaches(called, len(phase.healthy.at), "called", 0.1, settings)
    return phase


async def _send(stack: Stack, urls: Sequence[str], seconds: float, sent: Sent) -> None:
    """Tasks at a steady rate to each URL in turn, whatever the server makes of them."""
    count = round(RATE * seconds)
    began = trio.current_time()

    async def one_connection(first: int) -> None:
        with Connection(stack.server.url) as connection:
            for number in range(first, count, CONNECTIONS):
                await trio.sleep_until(began + number / RATE)
                sent_at = perf_counter()
                try:
                    answer = await connection.ask(create(urls[number % len(urls)], number, "auto"))
                except CutOffError:
                    sent.refused += 1
                    continue
                if answer.status == 201:
                    sent.at[answer.json()["taskId"]] = sent_at
                else:
                    sent.refused += 1

    async with trio.open_nursery() as nursery:
        for first in range(CONNECTIONS):
            nursery.start_soon(one_connection, first)


async def _stats(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = (
        await ask_once(stack.server.url, request("GET", "/api/v1/stats"))
    ).json()
    return found


def _latencies(answered: Mapping[str, float], phases: Mapping[str, Phase]) -> list[Figure]:
    """How long tasks of the healthy host waited in each phase, and against each other."""
    figures: list[Figure] = []
    p95: dict[str, float] = {}
    for name, phase in phases.items():
        at = phase.healthy.at
        waited = [answered[task_id] - at[task_id] for task_id in at if task_id in answered]
        what = f"healthy host, {name}: create sent to callback"
        figures += latency_figures(QUESTION, what, waited)
        p95[name] = percentile(waited, 95) if waited else math.nan
    for name in (ALONE, BESIDE_HEALTHY):
        what, ratio = f"{BESIDE_DEAD} against {name}", p95[BESIDE_DEAD] / p95[name]
        figures.append(Figure(QUESTION, what, ratio, "×", RATIO_MAX, stat="p95"))
    return figures


async def _accounts(
    stack: Stack,
    everything: Sequence[Phase],
    phases: Mapping[str, Phase],
    second: Receiver,
    settings: Settings,
) -> list[Figure]:
    """What became of all that was created. Nothing that goes to a dead host is ever Completed."""
    accepted = [task_id for phase in everything for task_id in phase.healthy.at]
    elsewhere = phases[BESIDE_HEALTHY].others.at
    wanted = len(accepted) + len(elsewhere)
    await reaches(partial(count_completed, stack), wanted, "Completed", 0.1, settings)
    accounted = await take_account(stack, accepted, elsewhere=len(elsewhere))
    called = second.counts()
    refused = sum(phase.healthy.refused for phase in everything)
    sides = {BESIDE_HEALTHY: "second healthy host", BESIDE_DEAD: "dead hosts"}
    return [
        *accounted.figures(QUESTION, "healthy host"),
        Figure(QUESTION, "healthy host: creates refused", refused, limit=0),
        *(
            Figure(QUESTION, f"{what}: creates refused", phases[name].others.refused, limit=0)
            for name, what in sides.items()
        ),
        Figure(
            QUESTION, "second healthy host: lost", sum(not called.get(i) for i in elsewhere), limit=0,
        ),
        Figure(
            QUESTION, "second healthy host: duplicates",
            sum(count - 1 for count in called.values()), limit=0,
        ),
    ]  # fmt: skip


def _state(stats: dict[str, Any]) -> list[Figure]:
    """What the server makes of the dead hosts in the end. Unless it tried them, it was no test."""
    note = f"{stats['breakersOpen']} breakers open, {stats['breakerOpenings']} openings"
    tried = stats["attemptsByOutcome"]
    return [
        Figure(
            QUESTION, "attempts at the dead host", tried.get("connect_timeout", 0),
            limit=1, better="higher", note=note,
        ),
        Figure(
            QUESTION, "attempts at the name that nobody has", tried.get("dns", 0),
            limit=1, better="higher",
        ),
        Figure(QUESTION, "tasks that wait for them", stats["queueDepth"]),
    ]  # fmt: skip
