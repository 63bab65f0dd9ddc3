"""What the check prints: for people line by line, for scripts as JSON."""

from __future__ import annotations

from collections import Counter
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from web.cli.output import print_json, printable
from web.cli.values import how_signed

from .findings import Finding
from .probes import PROBES, TASK_NAME, Level, Target

_STYLES: Final = {
    Level.OK: "green",
    Level.WARN: "yellow",
    Level.FAIL: "bold red",
    Level.SKIPPED: "dim",
}
_TITLE_WIDTH: Final = max(len(probe.title) for probe in PROBES)
_LEVEL_WIDTH: Final = max(len(level) for level in Level)


def announce(target: Target) -> None:
    """Say on standard error what is going to be sent."""
    click.echo(
        f"Up to {len(target.probes())} real calls to {printable(target.url)}, for a task named "
        f'"{TASK_NAME}", {how_signed(target.secrets)}.\n',
        err=True,
    )


class Report:
    """Prints findings as they come, and knows how many of which kind there were."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json
        self._counts: Counter[Level] = Counter()

    @property
    def failed(self) -> bool:
        """Whether the receiver did something wrong."""
        return self._counts[Level.FAIL] > 0

    def tell(self, finding: Finding) -> None:
        """Print a finding."""
        self._counts[finding.level] += 1
        if self._as_json:
            print_json(finding.document())
            return
        style = _STYLES[finding.level]
        line = Text(f"{finding.level:<{_LEVEL_WIDTH}}", style).append("  ")
        line.append(f"{finding.probe.title:<{_TITLE_WIDTH}}  ", "none").append(
            printable(finding.said), "none"
        )
        self._console.print(line)
        if finding.advice:
            self._console.print(Text(f"{'':<{_LEVEL_WIDTH}}  → {finding.advice}", style))

    def conclude(self) -> None:
        """Print what it comes to; scripts have the exit status."""
        if self._as_json:
            return
        words = {
            Level.OK: "ok",
            Level.WARN: "to think about",
            Level.FAIL: "to mend",
            Level.SKIPPED: "not sent",
        }
        counts = ", ".join(
            f"{self._counts[level]} {text}" for level, text in words.items() if self._counts[level]
        )
        self._console.print(Text(f"\n{counts}"))
