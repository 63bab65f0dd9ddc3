"""Runs an attack as a command: says the line of its bar, and leaves with 1 if it was missed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import attrs
import click

from benchmarks import interrupted
from benchmarks.report import Figure, value_text
from benchmarks.tasks import Settings
from tests.attack.target import AttackSucceeded
from tests.bars import Seen, say

RECORD: Final = click.option("--record", is_flag=True, help="Keep the line for the table of bars.")
MISSES_SHOWN: Final = 5


@attrs.frozen(kw_only=True)
class Came:
    """What came of an attack: how often what was tried, the figures, and what was missed; apart from
    that ``late``, what was missed in time, which a busy machine may be the reason for."""

    tried: str
    seen: str
    misses: list[str] = attrs.field(factory=list)
    late: list[str] = attrs.field(factory=list)

    @property
    def held(self) -> bool:
        """Whether the bar was reached."""
        return not (self.misses or self.late)

    def seen_as(self, bar: str, name: str) -> Seen:
        """The line of the bar."""
        misses = [*self.misses, *self.late]
        more = ", …" if len(misses) > MISSES_SHOWN else ""
        missed = f"; MISSED: {', '.join(misses[:MISSES_SHOWN])}{more}" if misses else ""
        return Seen(
            bar=bar,
            tried=self.tried,
            seen=self.seen + missed,
            held=self.held,
            command=f"python -m tests.attack {name}",
        )


async def measured(measure: Callable[[Settings], Awaitable[list[Figure]]], tried: str) -> Came:
    """What came of a question of the benchmark, in its long form: the figures that have a limit."""
    with tempfile.TemporaryDirectory(prefix="ringback-attack-") as directory:
        settings = Settings(quick=False, full=False, queued=None, directory=Path(directory))
        figures = [one for one in await measure(settings) if one.limit is not None]
    said = [
        " ".join(filter(None, (one.what, one.stat, value_text(one.value, one.unit))))
        for one in figures
    ]
    missed = [text for text, one in zip(said, figures, strict=True) if not one.met]
    return Came(tried=tried, seen=", ".join(said), misses=missed)


def conclude(
    bar: str, name: str, attack: Callable[[], Awaitable[Came]], *, record: bool
) -> NoReturn:
    """Run the attack to its end and say what came of it."""
    came = interrupted.run(partial(_tried, attack))
    say(came.seen_as(bar, name), record=record)
    sys.exit(0 if came.held else 1)


async def _tried(attack: Callable[[], Awaitable[Came]]) -> Came:
    try:
        return await attack()
    except* AttackSucceeded as group:
        reason: BaseException = group
        while isinstance(reason, BaseExceptionGroup):
            reason = reason.exceptions[0]
    progress(str(reason))
    return Came(tried="broke off", seen="not measured", misses=[str(reason).partition("\n")[0]])


def progress(text: str) -> None:
    """A line on standard error: which step the attack is at."""
    plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
    sys.stderr.write(f"  {text}\n" if plain else f"\x1b[2m  {text}\x1b[0m\n")
    sys.stderr.flush()


def percentile(values: list[float], percent: float) -> float:
    """Nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)] if ordered else 0.0
