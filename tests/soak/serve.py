"""The unchanged server with gauges in it: ``python -m tests.soak.serve FILE LEAK_KIB_S TRACE serve …``.

Four times a second a line of JSON is added to ``FILE``: how late the loop was at moments that were fixed
beforehand, so that a standstill counts as often as it is long, how many Trio tasks there are, and
how long the loop's thread was ready and had to wait for a processor.
``LEAK_KIB_S`` plants a leak, to see that it is found. With ``TRACE`` 1 memory is traced: the first
SIGUSR1 remembers what there is, each later one writes what has grown since to ``FILE.growth``.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio

TICK_S: Final = 0.01
TOLD_EVERY_S: Final = 0.25
GROWN: Final = 25  # lines of code that are named
_FRAMES: Final = 3
_LEAK_EVERY_S: Final = 0.1


async def tell_lag(file: Path) -> None:
    """Runs beside the server, and ends with it."""
    told_at = due = trio.current_time()
    waited_s = waited_for_a_processor_s()
    lags: Counter[int] = Counter()  # whole milliseconds, rounded up -> ticks
    with file.open("a", encoding="utf-8", buffering=1) as told:
        while True:
            due += TICK_S
            await trio.sleep_until(due)
            now = trio.current_time()
            lags[math.ceil((now - due) * 1000)] += 1
            if now - told_at >= TOLD_EVERY_S:
                tasks = trio.lowlevel.current_statistics().tasks_living
                before, waited_s = waited_s, waited_for_a_processor_s()
                line = {"lags": lags, "trioTasks": tasks, "waitedS": waited_s - before}
                told.write(json.dumps(line) + "\n")
                lags.clear()
                told_at = now


def waited_for_a_processor_s() -> float:
    """Of this thread, since its beginning: what other programs on the machine took from it."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
    except OSError:
        return 0.0


async def leak(kib_s: float) -> None:
    """Keeps what nobody needs any more."""
    kept: list[bytes] = []
    while True:
        await trio.sleep(_LEAK_EVERY_S)
        kept.append(b"x" * round(kib_s * 1024 * _LEAK_EVERY_S))


async def tell_growth(file: Path) -> None:
    """Which lines of code hold more memory than at the first signal."""
    tracemalloc.start(_FRAMES)
    first: tracemalloc.Snapshot | None = None
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            snapshot = tracemalloc.take_snapshot()
            if first is None:
                first = snapshot
                continue
            grown = snapshot.compare_to(first, "lineno")[:GROWN]
            text = "".join(f"{stat}\n" for stat in grown)
            written = file.with_suffix(".part")
            written.write_text(text, encoding="utf-8")
            written.rename(file)  # at once, so that no half of it is read


def with_gauges(
    run: Callable[..., Any], file: Path, *, leak_kib_s: float, trace: bool
) -> Callable[..., Any]:
    """``trio.run``, with the gauges beside the program. System tasks end when that does."""

    async def program(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        trio.lowlevel.spawn_system_task(tell_lag, file)
        if leak_kib_s:
            trio.lowlevel.spawn_system_task(leak, leak_kib_s)
        if trace:
            trio.lowlevel.spawn_system_task(tell_growth, growth_file(file))
        return await function(*arguments)

    def run_with_gauges(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return run(program, function, *arguments)

    return run_with_gauges


def growth_file(gauges: Path) -> Path:
    """Where it is written what has grown."""
    return gauges.with_suffix(".growth")


def main() -> None:
    """Measure, and be the server."""
    from web.cli import main as ringback

    file, leak_kib_s, trace = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "1"
    run = with_gauges(trio.run, file, leak_kib_s=leak_kib_s, trace=trace)
    trio.run = run  # type: ignore[assignment]  # it is called with a function and its arguments only
    ringback(sys.argv[4:], prog_name="ringback")


if __name__ == "__main__":
    main()
