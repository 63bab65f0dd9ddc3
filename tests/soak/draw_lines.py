"""Draws what ``tests/soak/charts.py`` arranged: JSON on standard input, the folder as argument.

Runs beside ``benchmarks/peers/chart/draw.py``, in its environment and with its colours.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from draw import FAINT, INK, OTHERS, OURS, plt  # type: ignore[import-not-found]

SIZE = (9.0, 3.2)
WARM = "#F1F3F5"


def main() -> None:
    told, folder = json.load(sys.stdin), Path(sys.argv[1])
    for chart in told["charts"]:
        draw_chart(chart, told, folder / chart["name"])


def draw_chart(chart: dict[str, Any], told: dict[str, Any], stem: Path) -> None:
    figure, axis = plt.subplots(figsize=SIZE, facecolor="white", layout="constrained")
    lines = chart["lines"]
    for colour, (label, values) in zip((OURS, OTHERS), reversed(lines.items()), strict=False):
        seen = [math.nan if value is None else value for value in values]
        axis.plot(told["at"], seen, color=colour, linewidth=1.1, label=label)
    known = [value for values in lines.values() for value in values if value is not None]
    top = max([*known, chart["limit"] or 0, 1e-9])
    if chart["limit"]:
        axis.axhline(chart["limit"], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axis.axvspan(0, told["warm"], color=WARM, zorder=0)
    axis.set_xlim(0, max([*told["at"], told["warm"]]))
    axis.set_ylim(0, top * 1.1)
    axis.set_xlabel(told["unit"], color=FAINT)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(chart["title"], loc="left", fontsize=11, fontweight="bold")
    axis.set_title(told["note"], loc="right", fontsize=7.5, color=FAINT)
    if len(lines) > 1:
        axis.legend(frameon=False, fontsize=7.5, loc="best")
    figure.savefig(f"{stem}.svg", metadata={"Date": None})
    figure.savefig(f"{stem}.png", dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
