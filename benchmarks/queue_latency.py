"""How long does taking the next task from the queue last, in the engine and over HTTP?"""

from __future__ import annotations

import tempfile
import time
from itertools import repeat
from pathlib import Path
from typing import Final

from benchmarks.load import Answer, closed_loop, request
from benchmarks.report import Figure, latency_figures
from benchmarks.stack import Stack, open_stack
from benchmarks.tasks import Settings, batches, fill
from engine import TaskSpec, open_engine

QUESTION: Final = "queue"
LIMIT_MS: Final = 10.0
CONNECTIONS: Final = (1, 10)


async def measure(settings: Settings) -> list[Figure]:
    count = 500 if settings.quick else 3000
    settings.say(f"{count:,} times dequeue inside one process")
    figures = await measure_engine(settings.directory, count)
    async with open_stack(settings.directory) as stack:
        tasks = batches(stack.callback("/good"), count * len(CONNECTIONS), 500, "manual")
        await fill(stack.server.url, tasks)
        for connections in CONNECTIONS:
            settings.say(f"{count:,} times dequeue over {connections} connections")
            figures += await measure_http(stack, count, connections)
    return figures


async def measure_engine(directory: Path, count: int) -> list[Figure]:
    """What the queue, the repository and the store cost, without HTTP; one asker at a time."""
    latencies: list[float] = []
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        async with open_engine(database=f"sqlite:///{folder}/queue.db") as engine:
            spec = TaskSpec(name="queue", callback_url="http://127.0.0.1:9/")
            for _ in range(0, count, 500):
                await engine.submit([spec] * 500)
            for _ in range(count):
                began = time.perf_counter()
                await engine.dequeue()
                latencies.append(time.perf_counter() - began)
    return latency_figures(QUESTION, "dequeue, in the engine", latencies, p95_limit_ms=LIMIT_MS)


async def measure_http(stack: Stack, count: int, connections: int) -> list[Figure]:
    taken: list[str] = []

    def keep(answer: Answer, _began: float) -> None:
        taken.append(answer.json()["taskId"])

    load = await closed_loop(
        stack.server.url,
        repeat(request("POST", "/api/v1/tasks/dequeue", {}), count),
        connections=connections,
        wanted=(200,),
        on_answer=keep,
    )
    what = f"dequeue, {connections} connection{'s' if connections > 1 else ''}"
    twice = len(taken) - len(set(taken))
    return [
        *latency_figures(QUESTION, what, load.latencies, load.unwanted, p95_limit_ms=LIMIT_MS),
        Figure(QUESTION, f"{what}: answers/s", len(load.latencies) / load.seconds, "/s"),
        Figure(QUESTION, f"{what}: tasks handed out twice", twice, limit=0),
    ]
