"""``python -m benchmarks.in_readme RESULT.json``: a comparison as the table that the README shows.

The figures shown are kept in ``comparison.json``; a test holds the README against them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.chart import OURS, caption
from benchmarks.report import number
from benchmarks.work import OTHERS

SHOWN: Final = Path(__file__).parent / "comparison.json"
README: Final = Path(__file__).parent.parent / "README.md"
_SECTION: Final = re.compile(r"(<!-- comparison -->\n).*?(<!-- /comparison -->)", re.DOTALL)
_COLUMNS: Final = {
    "single": "single creates",
    "batches": "batches of 100",
    "callbacks-200": "callbacks of 200 ms",
    "callbacks-50": "callbacks of 50 ms",
    "open-loop": "300/s, p95",
}


def without_runs(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result without what each single run came to."""
    workloads = [
        work
        | {
            "stacks": {
                name: {key: value for key, value in found.items() if key != "runs"}
                for name, found in work["stacks"].items()
            }
        }
        for work in result["workloads"]
    ]
    return {**result, "workloads": workloads}


def table(result: Mapping[str, Any]) -> str:
    """A row for each stack: medians, in brackets how many times better Ringback is."""
    works = {work["name"]: work for work in result["workloads"]}
    shown = [name for name in _COLUMNS if name in works]
    heads = [
        "",
        *(_COLUMNS[name] for name in shown),
        "CPU ms a task",
        "peak MiB",
        "lost, twice, other",
    ]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for stack, facts in result["stacks"].items():
        cells = [_figure(works[name], stack) for name in shown]
        single = works["single"]["stacks"].get(stack, {})
        cells += [_number(single.get("cpuSecondsPer1000")), _number(single.get("peakMib"))]
        name = f"**{facts['name']}**" if stack == OURS else facts["name"]
        durable = "" if facts["durability"] in name else f" ({facts['durability']})"
        lines.append([name + durable, *cells, _wrong(works, stack)])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{rows}\n\n{' '.join(caption(result))}"


def _figure(work: Mapping[str, Any], stack: str) -> str:
    found = work["stacks"].get(stack)
    if found is None or found["median"] is None:
        return "–"
    unit = work["unit"] if work["unit"].startswith("/") else f" {work['unit']}"
    ratio = "" if stack == OURS or found["ratio"] is None else f" ({found['ratio']:.2f} ×)"
    return f"{number(found['median'])}{unit}{ratio}"


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)


def _wrong(works: Mapping[str, Any], stack: str) -> str:
    """Tasks lost, calls beyond the first of a task, and whatever else did not end as it should."""
    found = [work["stacks"][stack] for work in works.values() if stack in work["stacks"]]
    lost, twice = (sum(one[name] for one in found) for name in ("lost", "duplicates"))
    return f"{lost:,}, {twice:,}, {sum(one.get(name, 0) for one in found for name in OTHERS):,}"


def in_readme(text: str, shown: str) -> str:
    """The README with this table."""
    return _SECTION.sub(lambda found: f"{found[1]}{shown}\n{found[2]}", text)


@click.command()
@click.argument("path", metavar="RESULT.json", type=click.Path(exists=True, path_type=Path))
def main(path: Path) -> None:
    """Keep what a comparison found, and show it in the README."""
    result = without_runs(json.loads(path.read_text(encoding="utf-8")))
    SHOWN.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    README.write_text(
        in_readme(README.read_text(encoding="utf-8"), table(result)), encoding="utf-8"
    )
    click.echo(f"shown in {README.name}")


if __name__ == "__main__":
    main()
