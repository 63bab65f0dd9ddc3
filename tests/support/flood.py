"""``python -m tests.support.flood DATABASE GOOD_URL URL…``: an engine in a process of its own, whose memory
nobody else uses, calls every URL once, all as parallel as 100 executors can. Prints what it took."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import trio

from engine import Attempt, Engine, EngineConfig, RetryPolicy, TaskSpec, open_engine

EXECUTORS = 100
TIMEOUT_S = 5.0
ONCE = RetryPolicy(max_attempts=1)


def memory_kib(name: str) -> int:
    """A figure of /proc/self/status: ``VmRSS`` is now, ``VmHWM`` the most there has been."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


class Run:
    """What the attempts of one engine came to."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.longest_s = 0.0

    def note(self, attempt: Attempt) -> None:
        """An attempt has ended."""
        result = attempt.result
        truncated = " truncated" if result.truncated else ""
        self.outcomes[f"{result.error_class or result.status_code}{truncated}"] += 1
        self.longest_s = max(self.longest_s, attempt.duration_s)

    async def call(self, engine: Engine, urls: list[str]) -> None:
        """One task for each URL, until all have ended."""
        specs = [
            TaskSpec(name="flood", callback_url=u, timeout_s=TIMEOUT_S, retry_policy=ONCE)
            for u in urls
        ]
        before = self.outcomes.total()
        await engine.submit(specs)
        with trio.fail_after(60):
            while self.outcomes.total() < before + len(urls):  # noqa: ASYNC110 - from outside
                await trio.sleep(0.02)


async def main(database: str, good: str, urls: list[str]) -> dict[str, object]:
    """What the calls took, after as many good ones as there are executors; and before as many."""
    config = EngineConfig(executors=EXECUTORS, dispatch="auto", grace_s=1.0)
    run = Run()
    async with open_engine(config, database=database, observe_attempt=run.note) as engine:
        await run.call(engine, [good] * EXECUTORS)
        before = memory_kib("VmRSS")
        await run.call(engine, urls)
        grown = memory_kib("VmHWM") - before
        await run.call(engine, [good] * EXECUTORS)
    return {"grownMiB": grown / 1024, "longestS": run.longest_s, "outcomes": run.outcomes}


if __name__ == "__main__":
    print(json.dumps(trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:])))
