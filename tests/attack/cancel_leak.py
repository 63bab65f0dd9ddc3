"""Cutting off: half of 20,000 callbacks are cancelled or time out at random points of their way, and
nothing may be left over. The benchmark's question of that name, as a line of the bars."""

from __future__ import annotations

from functools import partial
from typing import Final, NoReturn

import click

from benchmarks.cancel_leak import measure
from tests.attack.verdict import RECORD, conclude, measured

BAR: Final = "cancel leak"
TRIED: Final = "20,000 callbacks, half of them cut off at random points"


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Cut off half of 20,000 callbacks."""
    conclude(BAR, "cancel-leak", partial(measured, measure, TRIED), record=record)
