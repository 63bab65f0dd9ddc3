"""How many tasks a second go the whole way, and does each arrive exactly once?"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any, Final

from benchmarks.load import Answer, LoadResult, Request, closed_loop
from benchmarks.report import Figure, latency_figures
from benchmarks.stack import Stack, Usage, open_stack
from benchmarks.tasks import (
    Settings,
    batches,
    create,
    ids_of_batch,
    take_account,
    wait_until_completed,
)

QUESTION: Final = "end to end"
CONNECTIONS: Final = 100
BATCH: Final = 100
BATCH_CONNECTIONS: Final = 4


async def measure(settings: Settings) -> list[Figure]:
    count = 1000 if settings.quick else 10_000
    figures: list[Figure] = []
    for what, size in (("one by one", 1), (f"batches of {BATCH}", BATCH)):
        settings.say(f"{count:,} tasks, {what}")
        async with open_stack(settings.directory) as stack:
            figures += await _measure_way(stack, what, size, count, settings)
    return figures


async def _measure_way(
    stack: Stack, what: str, size: int, count: int, settings: Settings
) -> list[Figure]:
    sent: dict[str, float] = {}  # task id -> when its create was sent

    def keep(answer: Answer, began: float) -> None:
        for task_id in ids_of_batch(answer) if size > 1 else [answer.json()["taskId"]]:
            sent[task_id] = began

    before = stack.server.usage()
    load = await closed_loop(
        stack.server.url,
        _requests(stack, size, count),
        connections=BATCH_CONNECTIONS if size > 1 else CONNECTIONS,
        wanted=(201,),
        on_answer=keep,
    )
    ended = await wait_until_completed(stack, len(sent), settings)
    after = stack.server.usage()
    seen = await stack.seen()
    answered = await stack.answered()
    whole = [answered[task_id] - began for task_id, began in sent.items() if task_id in answered]
    accounted = await take_account(stack, sent)
    return [
        *_throughput(what, load, len(sent), seen, ended),
        *accounted.figures(QUESTION, what),
        *latency_figures(QUESTION, f"{what}: create", load.latencies, load.unwanted),
        *latency_figures(QUESTION, f"{what}: create sent to callback answered", whole),
        *_cost(what, before, after, len(sent)),
    ]


def _requests(stack: Stack, size: int, count: int) -> Iterator[Request]:
    good = stack.callback("/good")
    # Encoded before the clock starts: this process shares the machine with the server.
    if size > 1:
        return iter(list(batches(good, count, size, "auto")))
    return iter([create(good, number, "auto") for number in range(count)])


def _throughput(
    what: str, load: LoadResult, accepted: int, seen: dict[str, Any], ended: float | None
) -> list[Figure]:
    figures = [Figure(QUESTION, f"{what}: accepted/s", accepted / load.seconds, "/s")]
    if seen["lastEnded"] is not None:
        rate = seen["total"] / (seen["lastEnded"] - load.started)
        note = "first create to last callback"
        figures.append(Figure(QUESTION, f"{what}: tasks called/s", rate, "/s", note=note))
    if ended is not None:
        rate = accepted / (ended - load.started)
        note = (
            f"first create to {accepted:,} Completed, {perf_counter() - load.started:.1f} s in all"
        )
        figures.append(Figure(QUESTION, f"{what}: tasks completed/s", rate, "/s", note=note))
    return figures


def _cost(what: str, before: Usage, after: Usage, accepted: int) -> list[Figure]:
    figures: list[Figure] = []
    if after.peak_rss_mib is not None:
        figures.append(Figure(QUESTION, f"{what}: server memory, peak", after.peak_rss_mib, "MiB"))
    if before.cpu_s is not None and after.cpu_s is not None and accepted:
        each = (after.cpu_s - before.cpu_s) * 1000 / accepted
        figures.append(Figure(QUESTION, f"{what}: server CPU a task", each, "ms"))
    return figures
