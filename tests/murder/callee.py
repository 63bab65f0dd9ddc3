"""``python -m tests.murder.callee LOG``: a callback receiver that outlives the server.

It is ``web.receiver`` in a process of its own; at SIGTERM it writes every call it has seen into
LOG, a line each.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from benchmarks.stack import open_process
from tests.murder.history import CallSeen
from web.receiver import Call, open_receiver


@attrs.define
class Callee:
    """A running callee. ``calls`` are there once it has ended."""

    url: str
    pid: int
    calls: list[CallSeen] = attrs.field(factory=list)


@asynccontextmanager
async def open_callee(place: Path) -> AsyncIterator[Callee]:
    """Start it, and at the end read what it has seen."""
    log = place / "calls.jsonl"
    async with open_process("callee", ["-m", "tests.murder.callee", str(log)], place) as running:
        callee = Callee(running.url, running.pid)
        yield callee
    with log.open(encoding="utf-8") as lines:
        callee.calls += [CallSeen(*json.loads(line)) for line in lines]


def _line(call: Call) -> str:
    return json.dumps([call.task_id, call.attempt, call.started, call.ended, call.status]) + "\n"


async def _run(log: Path) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_receiver() as receiver:
            print(receiver.url, flush=True)
            async for _ in signals:
                break
            if receiver.summary(counts=False)["forgotten"]:
                sys.exit("there were more calls than it can remember")
            calls = receiver.all_calls()
    with log.open("w", encoding="utf-8") as lines:
        lines.writelines(map(_line, calls))


if __name__ == "__main__":
    trio.run(_run, Path(sys.argv[1]))
