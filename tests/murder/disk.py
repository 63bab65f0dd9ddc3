"""``python -m tests.murder disk``: a full disk costs refusals, never a task."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from tests.bars import Seen, say, told
from tests.murder.disk_causes import Cause, PageLimit, SizeLimit, small_file_system
from tests.murder.disk_run import Starved, starve
from tests.murder.progress import run_in_new_place

READ_P95_S = 0.2
SPINS_AT = 0.25  # of one processor, while nobody asks for anything


@click.command()
@click.option("--seconds", default=10.0, show_default=True, help="how long there is no space")
@click.option("--record", is_flag=True, help="keep the results for the table of the bars")
def command(seconds: float, record: bool) -> None:
    """Fill the disk under a server, in every way there is here, and free it again."""
    sys.exit(not run_in_new_place("disk", partial(_all, seconds=seconds, record=record)))


async def _all(place: Path, seconds: float, record: bool) -> bool:
    """Whether every bar was held."""
    held = True
    with ExitStack() as mounted:
        for n, cause in enumerate(_causes(place, mounted)):
            sys.stderr.write(f"{cause.name}\n")
            run = place / f"run {n}"
            run.mkdir()
            bar, tried = f"disk full, {cause.name}", f"no space for {seconds:g} s under load"
            again = f"python -m tests.murder disk --seconds {seconds:g}"
            with told(bar, tried, again, record=record):
                found = await starve(cause, run, seconds)
                problems = _problems(found)
                said = "; ".join([str(found), *problems])
                seen = Seen(bar=bar, tried=tried, seen=said, held=not problems, command=again)
                say(seen, record=record)
            held = held and not problems
    return held


def _causes(place: Path, mounted: ExitStack) -> Iterator[Cause]:
    yield PageLimit()
    yield SizeLimit()
    try:
        yield mounted.enter_context(small_file_system(place / "small"))
    except PermissionError as error:
        sys.stderr.write(f"left out, a small file system: {error}\n")


def _problems(found: Starved) -> list[str]:
    problems = found.problems()
    if found.read_p95_s > READ_P95_S:
        problems.append(f"GET p95 above {READ_P95_S * 1000:.0f} ms")
    if found.cpu_share > SPINS_AT:
        problems.append(f"used {found.cpu_share:.0%} of a processor for nothing")
    return problems
