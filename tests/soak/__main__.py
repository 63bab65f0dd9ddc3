"""``python -m tests.soak --hours 1``: a line for each bar on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import click

from benchmarks import interrupted
from benchmarks.peers.processes import NotInstallable
from benchmarks.stack import StartError
from tests.bars import Seen, say, told
from tests.soak.charts import NotDrawn, draw
from tests.soak.judge import BARS, in_words, judge
from tests.soak.run import Broken, Report, Settings, soak

DATA: Final = "soak.json"


def write(report: Report, bars: list[Seen], file: Path) -> None:
    """Every sample, and what came of it."""
    kept = attrs.asdict(report) | {"bars": [attrs.asdict(bar) for bar in bars]}
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")


def tell(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"  {time.strftime('%H:%M:%S')}  {text}\n")
    sys.stderr.flush()


def draw_if_possible(report: Report, folder: Path) -> None:
    """The figures are worth having without the pictures."""
    try:
        draw(report, folder, tell)
    except (NotInstallable, NotDrawn) as error:
        tell(f"no charts: {error}")
    else:
        tell(f"charts and {DATA} are in {folder}/")


@click.command()
@click.option("--hours", type=click.FloatRange(min=0.001), default=1.0, show_default=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("soak-report"),
    show_default=True,
    help="The folder for the charts and the samples.",
)
@click.option("--record", is_flag=True, help="Keep the bars for the table in tests/README.md.")
@click.option("--trace", is_flag=True, help="Trace memory, and tell what has grown. It is slow.")
@click.option(
    "--plant-leak",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="KIB",
    help="Leak so much a second, to see that it is found.",
)
def main(hours: float, out: Path, record: bool, trace: bool, plant_leak: float) -> None:
    """The real server under 70 % of its capacity for so many hours: does anything grow?"""
    settings = Settings.of(hours * 3600, trace=trace, leak_kib_s=plant_leak)
    tried, command = f"{in_words(settings.seconds)} of load", f"make soak HOURS={hours:g}"
    try:
        with ExitStack() as stack:
            for name in BARS:
                stack.enter_context(told(name, tried, command, record=record))
            report = interrupted.run(partial(soak, settings, tell))
            bars = judge(report, command)
    except (Broken, StartError) as error:
        raise click.ClickException(str(error)) from error
    for (
        bar
    ) in bars:  # at once: nothing that fails from here on may leave the lines of an earlier run
        say(bar, record=record)
    out.mkdir(parents=True, exist_ok=True)
    write(report, bars, out / DATA)
    draw_if_possible(report, out)
    if report.growth:
        click.echo(f"What has grown since the warm-up:\n{report.growth}")
    elif not all(bar.held for bar in bars):
        tell("run it again with --trace to see which lines of code hold more memory")
    if not all(bar.held for bar in bars):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
