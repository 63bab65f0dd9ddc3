"""What a comparison came to: medians, ratios, and the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

import attrs
from rich.table import Table

from benchmarks.drive import driver_us
from benchmarks.driver.plan import Result
from benchmarks.report import console, number
from benchmarks.work import COUNTS, OTHERS, Workload


@attrs.frozen
class Failure:
    """A stack that could not be measured."""

    name: str
    reason: str


@attrs.define
class Runs:
    """The repeats of one stack on one workload."""

    work: Workload
    tasks: int
    results: list[Result] = attrs.field(factory=list)

    @property
    def figures(self) -> list[float]:
        """The figure of each repeat that has one."""
        found = (self.work.figure(result) for result in self.results)
        return [figure for figure in found if figure is not None]

    def sum_of(self, count: Callable[[Result], int]) -> int:
        return sum(count(result) for result in self.results)

    def also(self) -> dict[str, float]:
        """Medians of the other figures."""
        found = {name: _median(map(of, self.results)) for name, of in self.work.also.items()}
        return {name: value for name, value in found.items() if value is not None}

    def as_json(self, ratio: float | None) -> dict[str, object]:
        figures = self.figures
        return {
            "median": median(figures) if figures else None,
            "low": min(figures, default=None),
            "high": max(figures, default=None),
            "ratio": ratio,
            "also": self.also(),
            "tasks": self.tasks,
            **{name: self.sum_of(count) for name, count in COUNTS.items()},
            "cpuSecondsPer1000": _median(map(cpu_s_per_1000, self.results)),
            "peakMib": _median(map(peak_mib, self.results)),
            "driverMicroseconds": _median(map(driver_us, self.results)),
            "runs": [attrs.asdict(result) for result in self.results],
        }


class Comparison:
    """Filled by and by; ``ours`` is the stack that the others are held against."""

    def __init__(self, ours: str) -> None:
        self.ours = ours
        self.facts: dict[str, dict[str, str]] = {}
        self.failed: dict[str, Failure] = {}
        self.found: dict[str, dict[str, Runs]] = {}  # by workload, by stack

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(self.facts)}; {len(self.failed)} failed>"

    def add(self, work: Workload, name: str, tasks: int, result: Result) -> None:
        stacks = self.found.setdefault(work.name, {})
        stacks.setdefault(name, Runs(work, tasks)).results.append(result)

    def ratio(self, work: str, name: str) -> float | None:
        """How many times better ours is; None if one of both has no figure."""
        ours, theirs = (self.found[work].get(key) for key in (self.ours, name))
        if not ours or not theirs or not ours.figures or not theirs.figures:
            return None
        ratio = median(ours.figures) / median(theirs.figures)
        return ratio if ours.work.better == "higher" else 1 / ratio

    @property
    def ours_clean(self) -> bool:
        """Whether in no run of ours happened what should not."""
        runs = [stacks[self.ours] for stacks in self.found.values() if self.ours in stacks]
        return not any(each.sum_of(count) for each in runs for count in COUNTS.values())

    def line(self, work: Workload, result: Result) -> str:
        """One run in a line of progress."""
        figure = work.figure(result)
        shown = "no figure" if figure is None else f"{number(figure)} {work.unit}"
        wrong = ", ".join(
            f"{count(result)} {name}" for name, count in COUNTS.items() if count(result)
        )
        return ", ".join(filter(None, [shown, wrong, result.stalled]))

    def as_json(self) -> dict[str, object]:
        return {
            "stacks": self.facts,
            "failed": {name: failure.reason for name, failure in self.failed.items()},
            "workloads": [self._workload_as_json(name) for name in self.found],
        }

    def _workload_as_json(self, name: str) -> dict[str, object]:
        stacks = self.found[name]
        work = next(iter(stacks.values())).work
        told = {key: getattr(work, key) for key in ("name", "title", "what", "unit", "better")}
        runs = {key: runs.as_json(self.ratio(name, key)) for key, runs in stacks.items()}
        return {**told, "stacks": runs}


def cpu_s_per_1000(result: Result) -> float | None:
    """CPU of all the stack's processes for 1,000 tasks, in seconds."""
    if result.usage is None or not result.accepted:
        return None
    return result.usage.cpu_s * 1000 / result.accepted


def peak_mib(result: Result) -> float | None:
    return result.usage.peak_rss_mib if result.usage else None


def _median(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def print_comparison(comparison: Comparison) -> None:
    """One table, and who is not in it."""
    shown = console(width=200)
    shown.print(table(comparison))
    for failure in comparison.failed.values():
        shown.print(f"not measured: {failure.name}: {failure.reason}", markup=False)


def table(comparison: Comparison) -> Table:
    """A section for each workload, a row for each stack."""
    shown = Table(title="Ringback and its peers", title_justify="left", show_edge=False)
    shown.add_column("stack", max_width=36, overflow="fold")
    numbers = ("median", "spread", "ratio", "tasks", "lost", "twice", "other")
    for column in (*numbers, "CPU s/1,000", "peak MiB", "driver us"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("also", overflow="fold", min_width=24)
    shown.add_column("durable", overflow="fold", min_width=16)
    for work, stacks in comparison.found.items():
        first = next(iter(stacks.values())).work
        shown.add_section()
        shown.add_row(f"[bold]{first.title}[/]: {first.what}")
        for name, runs in stacks.items():
            facts = comparison.facts[name]
            shown.add_row(
                facts["name"], *_cells(runs, comparison.ratio(work, name)), facts["durability"]
            )
    shown.caption = (
        "ratio: how many times better Ringback is. other: tasks unknown, refused, "
        "unanswered or not Completed, and runs that stalled. CPU and memory: of all processes of the "
        "stack, the sum of their peaks: memory that they share, as the buffers of PostgreSQL, counts "
        "for each of them. driver: CPU of the load process a task."
    )
    return shown


def _cells(runs: Runs, ratio: float | None) -> list[str]:
    figures, unit = runs.figures, runs.work.unit
    others = sum(runs.sum_of(COUNTS[name]) for name in OTHERS)
    return [
        f"{number(median(figures))} {unit}" if figures else "none",
        f"{number(min(figures))}-{number(max(figures))}" if len(figures) > 1 else "",
        "" if ratio is None else f"{ratio:.2f}",
        f"{runs.tasks:,} x {len(runs.results)}",
        f"{runs.sum_of(COUNTS['lost']):,}",
        f"{runs.sum_of(COUNTS['duplicates']):,}",
        f"{others:,}",
        *(_cell(runs.results, of) for of in (cpu_s_per_1000, peak_mib, driver_us)),
        ", ".join(f"{name} {number(value)}" for name, value in runs.also().items()),
    ]


def _cell(results: Sequence[Result], of: Callable[[Result], float | None]) -> str:
    found = _median(map(of, results))
    return "" if found is None else number(found)
