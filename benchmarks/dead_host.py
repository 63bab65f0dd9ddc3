"""Does a dead host slow the others down? The same healthy load: alone, beside as many tasks for a
second healthy host, and beside as many for a black hole. The second says what twice the load costs.

The black hole is a loopback port whose queue of connections is full, so that the kernel answers no
further one: to the server it looks like a host that is switched off.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from time import perf_counter
from typing import Any, Final

import attrs
import trio

from benchmarks.load import Connection, CutOffError, ask_once, request
from benchmarks.report import Figure, latency_figures, percentile
from benchmarks.stack import Stack, open_stack
from benchmarks.tasks import Settings, create, reaches, take_account
from web.receiver import Receiver, open_receiver

QUESTION: Final = "dead host"
RATE: Final = 100.0  # tasks a second to each of the two
CONNECTIONS: Final = 8
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


async def measure(settings: Settings) -> list[Figure]:
    seconds = 20.0 if settings.quick else 60.0
    async with AsyncExitStack() as places:
        dead = places.enter_context(black_hole())
        second = await places.enter_async_context(open_receiver())
        stack = await places.enter_async_context(open_stack(settings.directory))
        await _send(stack, stack.callback("/good"), 2.0, Sent())  # warm, unmeasured
        settings.say(f"{RATE:.0f} tasks/s to a healthy host, for {seconds:.0f} s")
        phases = {ALONE: await _phase(stack, seconds, None, settings)}
        settings.say("the same, and as many to a second healthy host")
        phases[BESIDE_HEALTHY] = await _phase(stack, seconds, f"{second.url}/good", settings)
        settings.say("the same, and as many to a host that is dead")
        phases[BESIDE_DEAD] = await _phase(stack, seconds, dead, settings)
        stats = await _stats(stack)
        return [*await _figures(stack, phases, second), *_state(stats)]


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


async def _phase(stack: Stack, seconds: float, other: str | None, settings: Settings) -> Sent:
    """Create for so long; wait until the healthy host has been called for all of its own."""
    healthy, others = Sent(), Sent()
    before = int((await stack.seen())["total"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, stack, stack.callback("/good"), seconds, healthy)
        if other is not None:  # half a step later: clients do not create in time with each other
            await trio.sleep(0.5 / RATE)
            nursery.start_soon(_send, stack, other, seconds, others)

    async def called() -> int:
        return int((await stack.seen())["total"]) - before

    await reaches(called, len(healthy.at), "called", 0.1, settings)
    return healthy


async def _send(stack: Stack, callback_url: str, seconds: float, sent: Sent) -> None:
    """Tasks at a steady rate, whatever the server makes of them."""
    count = round(RATE * seconds)
    began = trio.current_time()

    async def one_connection(first: int) -> None:
        with Connection(stack.server.url) as connection:
            for number in range(first, count, CONNECTIONS):
                await trio.sleep_until(began + number / RATE)
                sent_at = perf_counter()
                try:
                    answer = await connection.ask(create(callback_url, number, "auto"))
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


async def _figures(stack: Stack, phases: Mapping[str, Sent], second: Receiver) -> list[Figure]:
    answered = await stack.answered()
    figures: list[Figure] = []
    p95: dict[str, float] = {}
    for name, sent in phases.items():
        what = f"healthy host, {name}"
        waited = [answered[task_id] - at for task_id, at in sent.at.items() if task_id in answered]
        figures += latency_figures(QUESTION, f"{what}: create sent to callback", waited)
        figures.append(Figure(QUESTION, f"{what}: creates refused", sent.refused, limit=0))
        if waited:
            p95[name] = percentile(waited, 95)
    for name in (ALONE, BESIDE_HEALTHY):
        if name in p95 and BESIDE_DEAD in p95:
            what, ratio = f"{BESIDE_DEAD} against {name}", p95[BESIDE_DEAD] / p95[name]
            figures.append(Figure(QUESTION, what, ratio, "×", RATIO_MAX, stat="p95"))
    accepted = [task_id for sent in phases.values() for task_id in sent.at]
    # Whatever else was called (the warm-up, the second host) is nobody's loss.
    accounted = await take_account(stack, accepted)
    twice = sum(count - 1 for count in second.counts().values())
    return [
        *figures,
        *accounted.figures(QUESTION, "healthy host"),
        Figure(QUESTION, "second healthy host: duplicates", twice, limit=0),
    ]


def _state(stats: dict[str, Any]) -> list[Figure]:
    """What the server makes of the dead host in the end."""
    note = f"{stats['breakersOpen']} breakers open, {stats['breakerOpenings']} openings"
    timeouts = stats["attemptsByOutcome"].get("connect_timeout", 0)
    return [
        Figure(QUESTION, "attempts at the dead host", timeouts, note=note),
        Figure(QUESTION, "tasks that wait for it", stats["queueDepth"]),
    ]
