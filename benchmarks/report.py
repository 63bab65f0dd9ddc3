"""Figures: percentiles, the table at the end, and the JSON with the facts of the machine."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Final, Literal

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks.driver.summary import percentile as percentile  # noqa: PLC0414  # to be had here too

PERCENTS: Final = (50, 95, 99)
RESULTS: Final = Path(__file__).parent / "results"
LIBRARIES: Final = ("trio", "hypercorn", "quart", "quart-trio", "h11", "httpx", "attrs", "cattrs")


@attrs.frozen
class Figure:
    """One measured value; with a limit when one was promised.

    Figures of the same `what` that differ in `stat` (p50, p95, p99) share a row of the table.
    """

    question: str
    what: str
    value: float  # not a number: nothing was measured, and no limit is kept
    unit: str = ""
    limit: float | None = None
    better: Literal["lower", "higher"] = "lower"
    note: str = ""
    stat: str = ""

    @property
    def met(self) -> bool | None:
        if self.limit is None:
            return None
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit


def latency_figures(
    question: str,
    what: str,
    seconds: Sequence[float],
    unwanted: Mapping[str, int] | None = None,
    *,
    p95_limit_ms: float | None = None,
) -> list[Figure]:
    """p50, p95 and p99 in milliseconds, each only if enough was measured to tell it from the maximum.

    Requests that got no wanted answer have no latency: they are counted beside it.
    """
    limits, note = {95: p95_limit_ms}, f"{len(seconds):,} answers"
    figures = [
        Figure(
            question, what, percentile(seconds, p) * 1000, "ms", limits.get(p),
            note=note, stat=f"p{p}",
        )
        for p in PERCENTS
        if enough(len(seconds), p)
    ]  # fmt: skip
    if unwanted:
        found = ", ".join(f"{count} × {reason}" for reason, count in unwanted.items())
        total = sum(unwanted.values())
        figures.append(Figure(question, f"{what}: other answers", total, limit=0, note=found))
    return figures


def enough(count: int, percent: int) -> bool:
    """Whether so many values tell the percentile from their maximum."""
    return count * (100 - percent) >= 100


def table(figures: Sequence[Figure]) -> Table:
    shown = Table(title="Ringback, measured", title_justify="left", show_edge=False, pad_edge=False)
    shown.add_column("question")
    shown.add_column("what", overflow="fold")
    for column in ("measured", *(f"p{p}" for p in PERCENTS), "limit"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("kept")
    shown.add_column("note", overflow="fold")
    previous = ""
    for (question, what), group in groupby(
        figures, key=lambda figure: (figure.question, figure.what)
    ):
        if previous and question != previous:
            shown.add_section()
        shown.add_row("" if question == previous else question, what, *_cells(list(group)))
        previous = question
    return shown


def _cells(group: Sequence[Figure]) -> list[str]:
    values = {figure.stat: value_text(figure.value, figure.unit) for figure in group}
    limited = [figure for figure in group if figure.limit is not None]
    measured = [values.get(stat, "") for stat in ("", *(f"p{p}" for p in PERCENTS))]
    if not limited:
        return [*measured, "", "", group[0].note]
    kept = "[green]yes[/]" if all(figure.met for figure in limited) else "[red]no[/]"
    return [*measured, _limit(limited[-1]), kept, group[0].note]


def number(value: float) -> str:
    """For people: as many digits as are worth reading."""
    if value == int(value):
        return f"{int(value):,}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def value_text(value: float, unit: str) -> str:
    """For people: the number, and its unit if it has one."""
    if math.isnan(value):
        return "not measured"
    return f"{number(value)} {unit}".rstrip()


def _limit(figure: Figure) -> str:
    if figure.limit == 0:
        return "none"
    sign = "≤" if figure.better == "lower" else "≥"
    named = f"{figure.stat} " if figure.stat else ""
    return f"{named}{sign} {value_text(figure.limit or 0.0, figure.unit)}"


def print_table(figures: Sequence[Figure]) -> None:
    """For people."""
    console().print(table(figures))


def console(width: int = 160) -> Console:
    """Colours only on a terminal that wants them (rich honours NO_COLOR). A pipe has no width of
    its own; it is not to fold at 80."""
    found = Console()
    return found if found.is_terminal else Console(width=width, no_color=True)


def write_json(figures: Sequence[Figure], directory: Path, settings: Mapping[str, object]) -> Path:
    """The same figures for machines, one file a run."""
    found = [attrs.asdict(figure) | {"met": figure.met} for figure in figures]
    return write_result("", directory, {"settings": dict(settings), "figures": found})


def write_result(kind: str, directory: Path, content: Mapping[str, object]) -> Path:
    """A file of a name with date and kind, which says when and on what it was measured."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    stamp = time.gmtime()
    path = RESULTS / f"{kind}{time.strftime('%Y%m%dT%H%M%SZ', stamp)}.json"
    facts = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", stamp), "machine": machine(directory)}
    text = json.dumps(facts | dict(content), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def machine(directory: Path) -> dict[str, object]:
    """What a reader needs to compare two runs; unknown facts are left out."""
    facts: dict[str, object] = {
        "cpu": _line("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": _libraries(),
        "revision": _git("rev-parse", "--short", "HEAD"),
        "changedFiles": len((_git("status", "--porcelain") or "").splitlines()),
        "fsyncMilliseconds": fsync_ms(directory),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def fsync_ms(directory: Path, times: int = 50) -> float:
    """The median time to make 4 KiB durable where the database lies; every commit pays it."""
    taken: list[float] = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return round(percentile(taken, 50) * 1000, 3)


def _libraries() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in (*LIBRARIES, "sqlalchemy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _line(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None
