"""Dead hosts: half of all tasks go to a port that never answers and to a name that nobody has, the
others must not suffer. The benchmark's question of that name, as a line of the bars."""

from __future__ import annotations

from functools import partial
from typing import Final, NoReturn

import click

from benchmarks.dead_host import RATE, measure
from tests.attack.verdict import RECORD, conclude, measured

BAR: Final = "dead host"
TRIED: Final = (
    f"{RATE:g} tasks/s to a healthy host, and as many to one that swallows connections and to a name "
    "that nobody has, half each"
)


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Let half of all tasks go to a dead host."""
    conclude(BAR, "dead-host", partial(measured, measure, TRIED), record=record)
