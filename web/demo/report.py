"""How the demo ends: a table per kind of task, the figures of the whole, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from rich.console import Console
from rich.text import Text

from web.cli.output import coloured, print_table, printable

from .verdict import Row, Verdict, percentile

PROBLEMS_SHOWN: Final = 10
_COLUMNS: Final = (
    "kind", "ended as planned", "calls", "attempts", "create p50/p95", "to end p50/p95"
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Figures:
    """What was measured over all kinds."""

    took_s: float
    events: int
    peak_in_flight: int
    batches_s: Sequence[float]
    repeated_requests: int


def print_report(
    console: Console, verdict: Verdict, figures: Figures, problems: Sequence[str]
) -> None:
    """Print it all; the last line is the verdict."""
    console.print()
    print_table(
        console, _COLUMNS, [*map(_cells, verdict.rows), _sum(verdict.rows)], right=_COLUMNS[2:]
    )
    console.print()
    for line in _lines(verdict, figures):
        console.print(line, markup=False)
    for problem in problems[:PROBLEMS_SHOWN]:
        console.print(Text(printable(f"  wrong: {problem}"), "red"))
    if len(problems) > PROBLEMS_SHOWN:
        console.print(Text(f"  and {len(problems) - PROBLEMS_SHOWN} more", "red"))
    planned = sum(row.planned for row in verdict.rows)
    if problems:
        console.print(Text(f"FAILED: {len(problems)} things are not as they should be", "bold red"))
    else:
        console.print(Text(f"GOOD: all {planned} tasks ended as they should", "bold green"))


def _lines(verdict: Verdict, figures: Figures) -> list[str]:
    done = sum(row.ended_so for row in verdict.rows)
    batches = ", ".join(f"{seconds * 1000:.0f} ms" for seconds in figures.batches_s)
    repeats = f"{verdict.repeats} duplicates"
    if verdict.repeats and not verdict.problems:
        repeats += " (their first result was not stored yet when the server was killed)"
    order = "kept" if verdict.in_order else "NOT kept"
    lines = [
        f"{done} tasks in {figures.took_s:.1f} s, {figures.events} events from the stream",
        f"peak {figures.peak_in_flight} callbacks in flight; batch created in {batches}",
        f"{verdict.lost} lost, {repeats}; order per partition key {order}",
    ]
    if figures.repeated_requests:
        lines.append(f"{figures.repeated_requests} requests repeated while the server was away")
    return lines


def _cells(row: Row) -> list[str | Text]:
    ended = Text(f"{row.ended_so}/{row.planned} ").append_text(coloured(row.kind.end))
    return [row.kind.name, ended, *_figures([row])]


def _sum(rows: Sequence[Row]) -> list[str | Text]:
    ended, planned = sum(row.ended_so for row in rows), sum(row.planned for row in rows)
    return ["all", f"{ended}/{planned}", *_figures(rows)]


def _figures(rows: Sequence[Row]) -> list[str]:
    return [
        str(sum(row.callbacks for row in rows)),
        str(sum(row.attempts for row in rows)),
        _latencies([seconds for row in rows for seconds in row.create_s]),
        _latencies([seconds for row in rows for seconds in row.end_to_end_s]),
    ]


def _latencies(seconds: Sequence[float]) -> str:
    """Median and 95th percentile; empty if nothing was measured."""
    found = (percentile(seconds, percent) for percent in (50, 95))
    shown = "/".join(f"{value * 1000:.0f}" for value in found if value is not None)
    return f"{shown} ms" if shown else ""
