"""How a long run is run: in a place of its own, from a seed that is told, with plain lines on standard
error that say where it is."""

from __future__ import annotations

import random
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


def run_in_new_place(name: str, work: Callable[[Path], Awaitable[T]]) -> T:
    """Run it with a directory of its own, which is gone afterwards."""

    async def run() -> T:
        with tempfile.TemporaryDirectory(prefix=f"ringback-{name}-") as place:
            return await work(Path(place))

    return interrupted.run(run)
