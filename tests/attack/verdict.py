"""Runs an attack as a command: says the line of its bar, and leaves with 1 if it was missed."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import traceback
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

    def seen_as(self, bar: str, command: str) -> Seen:
        """The line of the bar. ``command`` is the attack, with the options that change its load."""
        misses = [*self.misses, *self.late]
        more = ", …" if len(misses) > MISSES_SHOWN else ""
        missed = f"; MISSED: {', '.join(misses[:MISSES_SHOWN])}{more}" if misses else ""
        return Seen(
            bar=bar,
            tried=self.tried,
            seen=self.seen + missed,
            held=self.held,
            command=f"python -m tests.attack {command}",
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


def claims(*, record: bool, **sizes: tuple[float, float]) -> None:
    """Each is what was asked for, and what the bar wants. With less one may try, but not claim."""
    for name, (asked, wanted) in sizes.items():
        if record and asked < wanted:
            raise click.UsageError(f"--record wants at least --{name} {wanted:g}")


def conclude(
    bar: str, command: str, attack: Callable[[], Awaitable[Came]], *, record: bool
) -> NoReturn:
    """Run the attack to its end, say what came of it, and leave."""
    sys.exit(0 if holds(bar, command, attack, record=record) else 1)


def holds(bar: str, command: str, attack: Callable[[], Awaitable[Came]], *, record: bool) -> bool:
    """Run the attack to its end and say what came of it; whether its bar was reached."""
    came = interrupted.run(partial(_tried, attack))
    say(came.seen_as(bar, command), record=record)
    return came.held


async def _tried(attack: Callable[[], Awaitable[Came]]) -> Came:
    """Whatever breaks it off is a missed bar: else the line of an earlier run would stay."""
    try:
        return await attack()
    except* Exception as group:
        reason: BaseException = group
        while isinstance(reason, BaseExceptionGroup):
            reason = reason.exceptions[0]
        told = str(reason)
        if not isinstance(reason, AttackSucceeded):  # may be our own fault: where it was
            told = f"{type(reason).__name__}: {told}"
            progress("".join(traceback.format_exception(group)))
    progress(told)
    missed = f"broke off: {told.partition(chr(10))[0]}"
    return Came(tried="broke off", seen="not measured", misses=[missed])


def progress(text: str) -> None:
    """A line on standard error: which step the attack is at."""
    plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
    sys.stderr.write(f"  {text}\n" if plain else f"\x1b[2m  {text}\x1b[0m\n")
    sys.stderr.flush()


def percentile(values: list[float], percent: float) -> float:
    """Nearest rank. That of nothing is no number, which is below no limit and above none: a check
    has to ask whether the limit is kept, not whether it is broken."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)] if ordered else math.nan
