"""A dead host: half of all tasks go to a port that never answers, the others must not suffer. The
benchmark's question of that name, as a line of the bars."""

from __future__ import annotations

from functools import partial
from typing import Final, NoReturn

import click

from benchmarks.dead_host import RATE, measure
from tests.attack.verdict import RECORD, conclude, measured

BAR: Final = "dead host"
TRIED: Final = f"{RATE:g} tasks/s to a healthy host, and as many to one that swallows connections"


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Let half of all tasks go to a dead host."""
    conclude(BAR, "dead-host", partial(measured, measure, TRIED), record=record)
