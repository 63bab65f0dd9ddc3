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
    "kind", "created", "must end", "ended so", "callbacks", "of planned",
    "create p50", "p95", "end to end p50", "p95 ",
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
    print_table(console, _COLUMNS, [*map(_cells, verdict.rows), _sum(verdict)], _COLUMNS[3:])
    console.print()
    for line in _lines(verdict, figures):
        console.print(line, markup=False)
    for problem in problems[:PROBLEMS_SHOWN]:
        console.print(Text(printable(f"  wrong: {problem}"), "red"))
    if len(problems) > PROBLEMS_SHOWN:
        console.print(Text(f"  and {len(problems) - PROBLEMS_SHOWN} more", "red"))
    created = sum(row.created for row in verdict.rows)
    if problems:
        console.print(Text(f"FAILED: {len(problems)} things are not as they should be", "bold red"))
    else:
        console.print(Text(f"GOOD: all {created} tasks ended as they should", "bold green"))


def _lines(verdict: Verdict, figures: Figures) -> list[str]:
    done = sum(row.ended_so for row in verdict.rows)
    batches = ", ".join(_milliseconds(seconds) for seconds in figures.batches_s)
    repeats = f"{verdict.repeats} duplicates"
    if verdict.repeats and not verdict.problems:
        repeats += " (all of attempts that were in flight when the server was killed)"
    lines = [
        f"{done} tasks in {figures.took_s:.1f} s, {figures.events} events from the stream",
        f"peak {figures.peak_in_flight} callbacks in flight; batch created in {batches}",
        f"{verdict.lost} lost, {repeats}; order kept per partition key"
        if not any("key" in problem for problem in verdict.problems)
        else f"{verdict.lost} lost, {repeats}",
    ]
    if figures.repeated_requests:
        lines.append(f"{figures.repeated_requests} requests repeated while the server was away")
    return lines


def _cells(row: Row) -> list[str | Text]:
    return [
        row.kind.name,
        str(row.created),
        coloured(row.kind.end),
        str(row.ended_so),
        str(row.callbacks),
        str(row.created * row.kind.attempts),
        *_latencies(row.create_s),
        *_latencies(row.end_to_end_s),
    ]


def _sum(verdict: Verdict) -> list[str | Text]:
    rows = verdict.rows
    return [
        "all",
        str(sum(row.created for row in rows)),
        "",
        str(sum(row.ended_so for row in rows)),
        str(sum(row.callbacks for row in rows)),
        str(sum(row.created * row.kind.attempts for row in rows)),
        *_latencies([seconds for row in rows for seconds in row.create_s]),
        *_latencies([seconds for row in rows for seconds in row.end_to_end_s]),
    ]


def _latencies(seconds: Sequence[float]) -> list[str]:
    return [_milliseconds(percentile(seconds, percent)) for percent in (50, 95)]


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"
