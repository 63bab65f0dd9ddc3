"""How a long run is run: in a place of its own, from a seed that is told, with plain lines on standard
error that say where it is. Ctrl-C and SIGTERM end it, and with it what it has started."""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from benchmarks import interrupted

T = TypeVar("T")


def tell(line: str) -> None:
    """One line, at once; none if there is nothing to say."""
    if line:
        sys.stderr.write(f"  {line}\n")
        sys.stderr.flush()


def seed_or_new(seed: int | None) -> int:
    """The seed, or a new one; told, so that the run can be repeated."""
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    tell(f"seed {seed}")
    return seed


def asked(question: str, rounds: int, seed: int | None = None) -> str:
    """The command that asks it again; with its seed if one was given."""
    given = "" if seed is None else f" --seed {seed}"
    return f"python -m tests.murder {question} --rounds {rounds}{given}"


def run_in_new_place(name: str, work: Callable[[Path], Awaitable[T]]) -> T:
    """Run it with a directory of its own, which is gone afterwards."""

    async def run() -> T:
        with tempfile.TemporaryDirectory(prefix=f"ringback-{name}-") as place:
            return await work(Path(place))

    return interrupted.run(run)


def block_in_new_place(name: str, work: Callable[[Path], T]) -> T:
    """The same for work that blocks, and that may run Trio itself."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    found: list[T] = []
    try:
        with tempfile.TemporaryDirectory(prefix=f"ringback-{name}-") as place:
            found.append(work(Path(place)))
    except* KeyboardInterrupt:  # of Trio it may come in a group
        sys.stderr.write("interrupted\n")
    if not found:
        sys.exit(interrupted.EXIT_INTERRUPTED)
    return found[0]
