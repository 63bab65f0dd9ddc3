"""`make bench`: ask the questions in turn, then one table and one JSON file."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import click
import trio

from benchmarks import (
    api_latency,
    cancel_leak,
    dead_host,
    depth,
    end_to_end,
    executors,
    queue_latency,
    transport,
)
from benchmarks.load import CutOffError
from benchmarks.report import Figure, print_table, write_json
from benchmarks.stack import StartError
from benchmarks.tasks import Settings

Question = Callable[[Settings], Awaitable[list[Figure]]]
QUESTIONS: Final[Mapping[str, Question]] = {
    "executors": executors.measure,
    "api-latency": api_latency.measure,
    "queue-latency": queue_latency.measure,
    "end-to-end": end_to_end.measure,
    "depth": depth.measure,
    "dead-host": dead_host.measure,
    "transport": transport.measure,
    "cancel-leak": cancel_leak.measure,
}


async def run(names: tuple[str, ...], settings: Settings) -> tuple[list[Figure], list[str]]:
    """All figures, and the names of the questions that found no answer."""
    figures: list[Figure] = []
    failed: list[str] = []
    for place, name in enumerate(names, start=1):
        sys.stderr.write(f"[{place}/{len(names)}] {name}\n")
        try:
            figures += await QUESTIONS[name](settings)
        except Exception as exc:  # noqa: BLE001 - the figures of the other questions must not be lost
            failed.append(name)
            sys.stderr.write(f"  {name} could not be measured: {_explain(exc)}\n")
    return figures, failed


def _explain(exc: BaseException) -> str:
    """One line for what can happen to a server; the whole traceback for our own faults."""
    first = exc
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, StartError | CutOffError):
        return str(first)
    return "".join(traceback.format_exception(exc))


@click.command()
@click.option("--quick", is_flag=True, help="Smaller numbers, about a minute in all.")
@click.option("--full", is_flag=True, help="Depth up to 1,000,000 queued tasks.")
@click.option("--queued", type=click.IntRange(min=1001), help="Depth up to this many tasks.")
@click.option("--only", "names", multiple=True, type=click.Choice(list(QUESTIONS)))
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(tempfile.gettempdir()),
    show_default=True,
    help="Where the databases lie; a real disk, or its fsync costs nothing.",
)
def main(
    *, quick: bool, full: bool, queued: int | None, names: tuple[str, ...], directory: Path
) -> None:
    """Measure the real server over loopback. Exit 1 if a question found no answer or what must be none (losses, duplicates) was not."""
    settings = Settings(quick=quick, full=full, queued=queued, directory=directory)
    asked = names or tuple(QUESTIONS)
    figures, failed = trio.run(partial(run, asked, settings))
    if figures:
        print_table(figures)
        facts = {"questions": asked, "failed": failed, "quick": quick, "full": full}
        click.echo(f"written to {write_json(figures, directory, facts)}")
    wrong = any(figure.limit == 0 and not figure.met for figure in figures)
    sys.exit(1 if failed or wrong else 0)


if __name__ == "__main__":
    main()
