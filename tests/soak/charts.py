"""The charts of a soak, an SVG and a PNG of each. They are drawn as the comparison's is, by the same
library in its own virtual environment: ``draw_lines.py`` does it, told what is arranged here."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks.chart import DRAWER
from benchmarks.peers.projects import PythonEnvironment
from tests.soak.judge import LAG_MS, WAL_MIB
from tests.soak.run import Report
from tests.soak.samples import Sample

LINES: Final = Path(__file__).parent / "draw_lines.py"
_HOURS_FROM_S: Final = 7200.0  # shorter runs have minutes on their axis


@attrs.frozen
class Chart:
    """One file: its lines, and a bar that they have to stay below, if there is one."""

    name: str
    title: str
    lines: dict[str, Callable[[Sample], float | None]]
    limit: float | None = None


CHARTS: Final = (
    Chart("memory", "Memory, MiB", {"resident": lambda s: s.rss_mib}),
    Chart(
        "descriptors",
        "Open descriptors",
        {
            "all": lambda s: s.descriptors,
            "beside connections that the load holds": lambda s: s.own_descriptors,
        },
    ),
    Chart("wal", "Write-ahead log, MiB", {"WAL": lambda s: s.wal_mib}, WAL_MIB),
    Chart("database", "Database, MiB", {"database": lambda s: s.database_mib}),
    Chart("loop-lag", "Event loop late, p99, ms", {"p99": lambda s: s.lag_p99_ms}, LAG_MS),
    Chart(
        "waited", "Ready, but without a processor, part of the time", {"loop": lambda s: s.waited}
    ),
    Chart("rate", "Tasks ended a second", {"ended": lambda s: s.tasks_per_s}),
    Chart("creates", "Creates, p95, ms", {"p95": lambda s: s.create_p95_ms}),
    Chart("trio-tasks", "Trio tasks", {"living": lambda s: s.trio_tasks}),
)


class NotDrawn(Exception):
    """The drawer failed; the text is what it wrote."""


def arrange(report: Report) -> dict[str, Any]:
    """What the drawer is told."""
    settings = report.settings
    unit, unit_s = ("hours", 3600) if settings.seconds >= _HOURS_FROM_S else ("minutes", 60)
    note = f"{report.rate:,.0f} tasks/s, Ringback soak; grey: warm-up"
    return {
        "unit": unit,
        "note": note,
        "warm": settings.warm_s / unit_s,
        "at": [sample.at_s / unit_s for sample in report.samples],
        "charts": [
            {
                "name": chart.name,
                "title": chart.title,
                "limit": chart.limit,
                "lines": {
                    label: [value(sample) for sample in report.samples]
                    for label, value in chart.lines.items()
                },
            }
            for chart in CHARTS
        ],
    }


def draw(report: Report, folder: Path, say: Callable[[str], None]) -> None:
    """All of them, into the folder. Raises NotDrawn, or NotInstallable if there is no drawer."""
    environment = PythonEnvironment("chart")
    environment.prepare(say)
    drawn = subprocess.run(
        [environment.python(), str(LINES), str(folder)],
        input=json.dumps(arrange(report)),
        env=os.environ | {"PYTHONPATH": str(DRAWER.parent)},
        text=True,
        check=False,
        capture_output=True,
    )
    if drawn.returncode:
        raise NotDrawn(drawn.stderr.strip()[-2000:])
