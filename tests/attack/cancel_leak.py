"""Cutting off: half of 20,000 callbacks are cancelled or time out at random points of their way, and
nothing may be left over. The benchmark's question of that name, as a line of the bars."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final, NoReturn

import click

from benchmarks.cancel_leak import measure
from benchmarks.tasks import Settings
from tests.attack.verdict import RECORD, Came, came_of, conclude

BAR: Final = "cancel leak"


async def attack() -> Came:
    """Cut them off, and look what is left."""
    with tempfile.TemporaryDirectory(prefix="ringback-cancel-leak-") as directory:
        settings = Settings(quick=False, full=False, queued=None, directory=Path(directory))
        figures = await measure(settings)
    return came_of("20,000 callbacks, half of them cut off at random points", figures)


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Cut off half of 20,000 callbacks."""
    conclude(BAR, "cancel-leak", attack, record=record)
