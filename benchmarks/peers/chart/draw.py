"""Draws what ``benchmarks/chart.py`` arranged: JSON on standard input, the files' stem as argument."""

from __future__ import annotations

import json
import sys
import textwrap
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

mpl.use("agg")

OURS, OTHERS, INK, FAINT = "#0072B2", "#AEB6BF", "#1F2328", "#59636E"  # told apart without hue too
WIDTH, ROW, CAPTION_COLUMNS = 11.5, 0.42, 185

mpl.rcParams |= {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#D1D9E0",
    "svg.hashsalt": "comparison",  # the same figures make the same file
}


def main() -> None:
    told = json.load(sys.stdin)
    lines = [line for text in told["caption"] for line in textwrap.wrap(text, CAPTION_COLUMNS)]
    rows = -(-len(told["panels"]) // 2)
    caption = 0.15 * len(lines) + 0.2
    height = 0.75 + rows * (len(told["stacks"]) * ROW + 0.75) + caption
    figure, axes = plt.subplots(rows, 2, figsize=(WIDTH, height), squeeze=False, facecolor="white")
    figure.subplots_adjust(
        left=0.2,
        right=0.97,
        top=1 - 0.95 / height,
        bottom=(caption + 0.12) / height,
        hspace=0.75 / (len(told["stacks"]) * ROW),
        wspace=0.07,
    )
    for axis in axes.flat[len(told["panels"]) :]:
        axis.set_visible(False)
    for number, (axis, panel) in enumerate(zip(axes.flat, told["panels"], strict=False)):
        draw_panel(axis, panel, told["stacks"], named=number % 2 == 0)
    figure.text(
        0.015,
        1 - 0.36 / height,
        "Ringback and its peers",
        fontsize=14,
        fontweight="bold",
        va="center",
    )
    figure.text(
        0.015,
        0.15 / height,
        "\n".join(lines),
        fontsize=7.2,
        color=FAINT,
        va="bottom",
        linespacing=1.35,
    )
    stem = sys.argv[1]
    figure.savefig(f"{stem}.svg", metadata={"Date": None})
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=130)
    Image.open(drawn).convert("RGB").quantize(48).save(f"{stem}.png", optimize=True)


def draw_panel(
    axis: Axes, panel: dict[str, Any], stacks: list[dict[str, Any]], *, named: bool
) -> None:
    bars = panel["bars"]
    values = [bar["value"] for bar in bars if bar]
    if panel["log"]:
        axis.set_xscale("log")
    left = 10 ** (int(f"{min(values):e}".partition("e")[2])) if panel["log"] else 0
    for row, (bar, stack) in enumerate(zip(bars, stacks, strict=True)):
        weight = "bold" if stack["ours"] else "normal"
        if bar:
            width = max(bar["value"] - left, 0)
            axis.barh(row, width, 0.62, left=left, color=OURS if stack["ours"] else OTHERS)
            if bar["low"] != bar["high"]:
                axis.plot([bar["low"], bar["high"]], [row, row], color=INK, linewidth=1.1)
        end = max(bar["value"], bar["high"]) if bar else left
        axis.annotate(
            bar["label"] if bar else "not measured",
            (end, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontweight=weight if bar else "normal",
            color=INK if bar else FAINT,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        if named:
            for text, offset, size, color in (
                (stack["name"], 5, 9, INK),
                (textwrap.shorten(stack["durability"], 42), -6, 6.6, FAINT),
            ):
                axis.annotate(
                    text,
                    (0, row),
                    xycoords=("axes fraction", "data"),
                    xytext=(-7, offset),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=size,
                    color=color,
                    fontweight=weight if size > 7 else "normal",
                )
    most = max([*values, panel["limit"] or 0])
    axis.set_xlim(left, most**1.25 / left**0.25 if panel["log"] else most * 1.2)
    if panel["limit"]:
        axis.axvline(panel["limit"], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axis.set_ylim(len(stacks) - 0.5, -0.5)
    axis.set_yticks([])
    axis.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.set_title(panel["title"], loc="left", fontsize=10, fontweight="bold", pad=16)
    axis.annotate(
        panel["note"], (0, 1), xycoords="axes fraction", xytext=(0, 5),
        textcoords="offset points", fontsize=7.5, color=FAINT,
    )  # fmt: skip


if __name__ == "__main__":
    main()
