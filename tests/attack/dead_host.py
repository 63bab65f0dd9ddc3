"""A dead host: half of all tasks go to a port that never answers, the others must not suffer. The
benchmark's question of that name, as a line of the bars."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final, NoReturn

import click

from benchmarks.dead_host import RATE, measure
from benchmarks.tasks import Settings
from tests.attack.verdict import RECORD, Came, came_of, conclude

BAR: Final = "dead host"


async def attack() -> Came:
    """The healthy host's load alone, beside a second healthy host, and beside the dead one."""
    with tempfile.TemporaryDirectory(prefix="ringback-dead-host-") as directory:
        settings = Settings(quick=False, full=False, queued=None, directory=Path(directory))
        figures = await measure(settings)
    return came_of(
        f"{RATE:g} tasks/s to a healthy host, and as many to one that swallows connections", figures
    )


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Let half of all tasks go to a dead host."""
    conclude(BAR, "dead-host", attack, record=record)
