"""`make bench`: ask the questions in turn, then one table and one JSON file."""

from __future__ import annotations

import importlib
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import click

from benchmarks import interrupted
from benchmarks.drive import DriverError
from benchmarks.load import CutOffError
from benchmarks.report import Figure, print_table, write_json
from benchmarks.stack import StartError
from benchmarks.tasks import Settings

QUESTIONS: Final[Mapping[str, str]] = {  # name -> module and function
    "single": "throughput:measure_single",
    "batches": "throughput:measure_batches",
    "callbacks": "callbacks:measure",
    "open-loop": "open_loop:measure",
    "api-under-load": "api_under_load:measure",
    "create-cost": "create_cost:measure",
    "depth": "depth:measure",
    "watchers": "watchers:measure",
    "layers": "layers:measure",
}
MORE: Final[Mapping[str, str]] = {  # on request
    "queue-latency": "queue_latency:measure",
    "dead-host": "dead_host:measure",
    "transport": "transport:measure",
    "cancel-leak": "cancel_leak:measure",
}


def question(name: str) -> Callable[[Settings], Awaitable[list[Figure]]]:
    """What answers a question. Imported late: some need more than the others."""
    module, _, function = {**QUESTIONS, **MORE}[name].partition(":")
    found: Callable[[Settings], Awaitable[list[Figure]]] = getattr(
        importlib.import_module(f"benchmarks.{module}"), function
    )
    return found


async def run(names: tuple[str, ...], settings: Settings) -> tuple[list[Figure], list[str]]:
    """All figures, and the names of the questions that found no answer."""
    figures: list[Figure] = []
    failed: list[str] = []
    for place, name in enumerate(names, start=1):
        sys.stderr.write(f"[{place}/{len(names)}] {name}\n")
        try:
            figures += await question(name)(settings)
        except Exception as exc:  # noqa: BLE001 - the figures of the other questions must not be lost
            failed.append(name)
            sys.stderr.write(f"  {name} could not be measured: {_explain(exc)}\n")
    return figures, failed


def _explain(exc: BaseException) -> str:
    """One line for what can happen to a server; the whole traceback for our own faults."""
    first = exc
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, StartError | CutOffError | DriverError):
        return str(first)
    return "".join(traceback.format_exception(exc))


@click.command()
@click.option("--quick", is_flag=True, help="Smaller numbers, about a minute in all.")
@click.option("--full", is_flag=True, help="Depth up to 1,000,000 queued tasks.")
@click.option("--queued", type=click.IntRange(min=1001), help="Depth up to this many tasks.")
@click.option("--only", "names", multiple=True, type=click.Choice([*QUESTIONS, *MORE]))
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
    figures, failed = interrupted.run(partial(run, asked, settings))
    if figures:
        print_table(figures)
        facts = {"questions": asked, "failed": failed, "quick": quick, "full": full}
        click.echo(f"written to {write_json(figures, directory, facts)}")
    wrong = any(figure.limit == 0 and not figure.met for figure in figures)
    sys.exit(1 if failed or wrong else 0)


if __name__ == "__main__":
    main()
