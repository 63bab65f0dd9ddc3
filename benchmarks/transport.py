"""What does a callback cost, made in one way or another? The same calls, side by side, in one run."""

from __future__ import annotations

from statistics import median
from time import perf_counter, process_time
from typing import Final

import attrs
import trio

from benchmarks.report import Figure
from benchmarks.stack import open_process
from benchmarks.tasks import Settings
from benchmarks.transports import BASE, OURS, WAYS, Call
from engine.core.callback import CallbackRequest

QUESTION: Final = "transport"
CALLERS: Final = 100
GOAL: Final = 8.0  # times as many calls as one shared httpx client
_SLOW: Final = 0.25  # of the calls, for what needs milliseconds for each


@attrs.frozen
class Round:
    """What one round of one way took."""

    calls: int
    seconds: float
    cpu_s: float


async def measure(settings: Settings) -> list[Figure]:
    rounds, calls = (3, 20) if settings.quick else (5, 60)
    measured: dict[str, list[Round]] = {way: [] for way in WAYS}
    async with open_process("answers", ["-m", "benchmarks.fixed_answer"], settings.directory) as to:
        request = _request(to.url + "/hook")
        for number in range(rounds):  # interleaved, so that a busy moment of the machine hits all
            settings.say(f"round {number + 1} of {rounds}: {CALLERS} callers, {len(WAYS)} ways")
            for way, open_calls in WAYS.items():
                each = max(5, int(calls * _SLOW)) if way == BASE else calls
                async with open_calls(CALLERS) as callers:
                    await _round(callers, request, 3)  # opens the connections, warms up
                    measured[way].append(await _round(callers, request, each))
    return _figures(measured)


def _request(url: str) -> CallbackRequest:
    task_id = "0199f2b3-7c1d-7a52-b7e3-5b0f6f0c2d11"
    return CallbackRequest(
        method="POST",
        url=url,
        headers={
            "User-Agent": "Ringback/bench",
            "Accept-Encoding": "identity",
            "webhook-id": task_id,
            "webhook-timestamp": "1767225600",
            "webhook-signature": "v1,3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "Idempotency-Key": task_id,
            "X-Task-Attempt": "1",
            "X-Task-Max-Attempts": "3",
            "traceparent": "00-0199f2b37c1d7a52b7e35b0f6f0c2d11-00f067aa0ba902b7-01",
            "Content-Type": "application/json",
        },
        body=b'{"taskId":"%s","payload":"%s"}' % (task_id.encode(), b"x" * 140),
        timeout_s=30.0,
    )


async def _round(callers: list[Call], request: CallbackRequest, each: int) -> Round:
    async def caller(call: Call) -> None:
        for _ in range(each):
            status = await call(request)
            if status != 200:
                raise RuntimeError(f"a call was answered {status}")

    began, cpu_began = perf_counter(), process_time()
    async with trio.open_nursery() as nursery:
        for call in callers:
            nursery.start_soon(caller, call)
    return Round(each * len(callers), perf_counter() - began, process_time() - cpu_began)


def _figures(measured: dict[str, list[Round]]) -> list[Figure]:
    rates = {
        way: median(one.calls / one.seconds for one in found) for way, found in measured.items()
    }
    figures: list[Figure] = []
    for way, found in measured.items():
        ratio = rates[way] / rates[BASE]
        cpu_ms = median(one.cpu_s / one.calls for one in found) * 1000
        note = f"{cpu_ms:.3f} ms CPU each, {ratio:.1f} × {BASE}"
        figures.append(Figure(QUESTION, f"{way}: calls/s", rates[way], "/s", note=note))
    figures.append(
        Figure(QUESTION, f"{OURS}: times {BASE}", rates[OURS] / rates[BASE], "×", GOAL, "higher")
    )
    return figures
