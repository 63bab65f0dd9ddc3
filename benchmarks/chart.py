"""``python -m benchmarks.chart RESULT.json``: a comparison as a picture, ``comparison.svg`` and ``.png``.

What is shown is arranged here; it is drawn by a program in a virtual environment of its own, since
nothing else of the project needs what draws it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import click

from benchmarks.peers.processes import NotInstallable
from benchmarks.peers.projects import HERE, PythonEnvironment
from benchmarks.report import number
from benchmarks.work import COUNTS

OURS: Final = "ringback"
DRAWER: Final = HERE / "chart" / "draw.py"


@attrs.frozen
class Panel:
    """One question: the workload that answers it, and how its axis is."""

    workload: str
    title: str
    log: bool = False
    limit: float | None = None  # where the axis ends, if that has a meaning


MARKS: Final = {
    "!": "some tasks were lost, repeated, refused or left unfinished, or a run stalled",
    "*": "fewer tasks or runs than Ringback's",
}

PANELS: Final = (
    Panel("single", "Single creates, end to end: tasks/s"),
    Panel("batches", "Batches of 100, end to end: tasks/s"),
    Panel("callbacks-200", "100 callbacks of 200 ms: % of the ceiling of 500/s", limit=100.0),
    Panel("open-loop", "300 creates/s: p95 from due to called back, ms", log=True),
)


def arrange(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the drawer is told: stacks from top to bottom, panels with a bar for each, the caption.

    A stack without a figure has None there; a workload that was not measured has no panel.
    """
    measured = {workload["name"]: workload for workload in result["workloads"]}
    stacks = list(result["stacks"])
    panels = [
        _panel(panel, measured[panel.workload], stacks)
        for panel in PANELS
        if panel.workload in measured
    ]
    return {
        "stacks": [_stack(result["stacks"][name], ours=name == OURS) for name in stacks],
        "panels": panels,
        "caption": [*_marks(panels), *caption(result)],
    }


def _marks(panels: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the marks mean, of those that are there."""
    labels = "".join(bar["label"] for panel in panels for bar in panel["bars"] if bar)
    found = [f"{mark} {meaning}" for mark, meaning in MARKS.items() if mark in labels]
    return [f"{'; '.join(found)}."] if found else []


def _stack(facts: Mapping[str, str], *, ours: bool) -> dict[str, Any]:
    return {"name": facts["name"], "durability": facts["durability"], "ours": ours}


def _panel(panel: Panel, workload: Mapping[str, Any], stacks: Sequence[str]) -> dict[str, Any]:
    runs = workload["stacks"]
    better = "longer is better" if workload["better"] == "higher" else "shorter is better"
    return {
        "title": panel.title,
        "note": f"{better}, logarithmic" if panel.log else better,
        "log": panel.log,
        "limit": panel.limit,
        "bars": [_bar(runs.get(name), runs.get(OURS), workload["unit"]) for name in stacks],
    }


def _bar(
    runs: Mapping[str, Any] | None, ours: Mapping[str, Any] | None, unit: str
) -> dict[str, Any] | None:
    if runs is None or runs["median"] is None:
        return None
    unit = unit if unit.startswith("/") else f" {unit}"
    return {
        "value": runs["median"],
        "low": runs["low"],
        "high": runs["high"],
        "label": " ".join(
            filter(None, [f"{number(runs['median'])}{unit}", _mark(runs, ours or runs)])
        ),
    }


def _mark(runs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The marks of a bar, none if it can be held against ours as it is."""
    wrong = any(runs.get(name) for name in COUNTS)
    fewer = any(mine < most for mine, most in zip(_size(runs), _size(ours), strict=True))
    return "!" * wrong + "*" * fewer


def _size(runs: Mapping[str, Any]) -> tuple[int, int]:
    """Tasks a run, and runs with a figure or without; 0 if that was not kept."""
    return runs.get("tasks", 0), len(runs.get("runs", ()))


def caption(result: Mapping[str, Any]) -> list[str]:
    """Paragraphs: the day and the machine, the versions, and who is missing."""
    machine = result["machine"]
    on = [
        machine.get("cpu"),
        f"{machine['cores']} cores, shared with the load" if "cores" in machine else None,
        f"fsync {machine['fsyncMilliseconds']} ms" if "fsyncMilliseconds" in machine else None,
        f"Python {machine['python']}" if "python" in machine else None,
    ]
    repeats = result["settings"]["repeats"]
    runs = f"median of {repeats} runs, the line from lowest to highest" if repeats > 1 else "1 run"
    head = f"{result['date'][:10]}, {runs}. {', '.join(filter(None, on))}."
    parts = [part for each in result["stacks"].values() for part in each["versions"].split(", ")]
    versions = f"{', '.join(dict.fromkeys(parts))}."
    failed = [f"Not measured: {', '.join(result['failed'])}."] if result["failed"] else []
    return [head, versions, *failed]


@click.command()
@click.argument("path", metavar="RESULT.json", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(__file__).parent,
    help="The folder for comparison.svg and comparison.png; benchmarks/ unless given.",
)
def main(path: Path, into: Path) -> None:
    """Draw a result of benchmarks.compare."""
    arranged = arrange(json.loads(path.read_text(encoding="utf-8")))
    environment = PythonEnvironment("chart")
    try:
        environment.prepare(click.echo)
    except NotInstallable as error:
        raise click.ClickException(str(error)) from error
    drawn = subprocess.run(
        [environment.python(), str(DRAWER), str(into / "comparison")],
        input=json.dumps(arranged),
        text=True,
        check=False,
        capture_output=True,
    )
    if drawn.returncode:
        raise click.ClickException(drawn.stderr.strip())
    click.echo(f"drawn: {into / 'comparison'}.svg and .png")


if __name__ == "__main__":
    main()
