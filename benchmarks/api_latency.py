"""How fast does the API answer while all 100 executors are calling?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count, cycle
from time import perf_counter
from typing import Final

import trio

from benchmarks.load import Answer, Request, closed_loop, request, until
from benchmarks.report import Figure, latency_figures, percentile
from benchmarks.stack import Stack, StartError, open_stack
from benchmarks.tasks import Settings, batches, create, fill, reaches

QUESTION: Final = "API while 100 call"
CONNECTIONS: Final = 20
LIMIT_MS: Final = 200.0
FEED: Final = 500  # auto tasks a second: what 100 executors can do with callbacks of 200 ms
AHEAD: Final = 1500
EXECUTORS: Final = 100


async def measure(settings: Settings) -> list[Figure]:
    seconds = 2.0 if settings.quick else 8.0
    figures: list[Figure] = []
    async with open_stack(settings.directory, executors=EXECUTORS) as stack:
        in_flight: list[int] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(_keep_busy, stack, settings)
            nursery.start_soon(_watch, stack, in_flight)
            ids: list[str] = []
            for what, requests in _loads(stack, ids):
                settings.say(f"{what} for {seconds:.0f} s over {CONNECTIONS} connections")
                figures += await _one(stack, what, until(perf_counter() + seconds, requests), ids)
            nursery.cancel_scope.cancel(reason="measured")
    note = f"{len(in_flight)} looks at the receiver, ten a second"
    return [
        Figure(QUESTION, "callbacks in flight, median", percentile(in_flight, 50), note=note),
        Figure(QUESTION, "callbacks in flight, lowest 5 %", percentile(in_flight, 5)),
        *figures,
    ]


def _loads(stack: Stack, ids: list[str]) -> Iterator[tuple[str, partial[Request]]]:
    numbers, callback = count(), stack.callback("/good")
    yield "create", partial(lambda: create(callback, next(numbers), "manual"))
    turn = cycle(ids or ["none-was-created"])  # those created by then
    yield "get", partial(lambda: request("GET", f"/api/v1/tasks/{next(turn)}"))
    yield "list of 20", partial(request, "GET", "/api/v1/tasks?size=20")


async def _one(
    stack: Stack, what: str, requests: Iterator[Request], ids: list[str]
) -> list[Figure]:
    def keep(answer: Answer, _began: float) -> None:
        if answer.status == 201:
            ids.append(answer.json()["taskId"])

    load = await closed_loop(stack.server.url, requests, connections=CONNECTIONS, on_answer=keep)
    return [
        *latency_figures(QUESTION, what, load.latencies, load.unwanted, p95_limit_ms=LIMIT_MS),
        Figure(QUESTION, f"{what}: answers/s", len(load.latencies) / load.seconds, "/s"),
    ]


async def _keep_busy(
    stack: Stack,
    settings: Settings,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Feed auto tasks as fast as they can be done, a little ahead; started when all are calling."""
    slow = stack.callback("/slow?ms=200")
    await fill(stack.server.url, batches(slow, AHEAD, 250, "auto"))
    if not await reaches(partial(_in_flight, stack), EXECUTORS, "in flight", 0.05, settings):
        raise StartError(f"{EXECUTORS} executors never called at once")
    task_status.started()
    while True:
        await fill(stack.server.url, batches(slow, FEED // 2, 125, "auto"), connections=1)
        await trio.sleep(0.5)


async def _watch(stack: Stack, in_flight: list[int]) -> None:
    while True:
        in_flight.append(await _in_flight(stack))
        await trio.sleep(0.1)


async def _in_flight(stack: Stack) -> int:
    seen = await stack.seen()
    return int(seen["inFlight"])
