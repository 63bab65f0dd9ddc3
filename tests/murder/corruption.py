"""``python -m tests.murder corruption``: damaged databases are served intact or refused."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click

from tests.bars import Seen, say, told
from tests.murder.corruption_damage import Damage, damage_of
from tests.murder.corruption_image import NAME, Image, make_image
from tests.murder.corruption_rounds import (
    INTACT,
    REFUSED,
    Verdict,
    open_damaged,
    serve_damaged,
)
from tests.murder.progress import block_in_new_place

Judge = Callable[[Image, Damage, Path], Verdict]
BAR = "corruption"
TASKS = 300


def verdicts(image: Image, seeds: range, place: Path, judge: Judge) -> Iterator[Verdict]:
    """One round for each seed."""
    for seed in seeds:
        yield judge(image, damage_of(seed, image.place / NAME), place / f"{judge.__name__} {seed}")


@click.command()
@click.option("--rounds", default=200, show_default=True, help="damaged copies that are opened")
@click.option("--served", default=40, show_default=True, help="of them, by a server of its own")
@click.option("--start", default=0, show_default=True, help="the first seed")
@click.option("--record", is_flag=True, help="keep the result for the table of the bars")
def command(rounds: int, served: int, start: int, record: bool) -> None:
    """Damage the files of a killed server, and start it again."""
    tried = f"{rounds} damaged copies opened, {served} of them served by a process"
    again = f"python -m tests.murder corruption --rounds {rounds} --served {served} --start {start}"
    with told(BAR, tried, again, record=record):
        work = partial(_all, rounds=rounds, served=served, start=start)
        found = block_in_new_place("corruption", work)
        outcomes = Counter(verdict.outcome for verdict in found)
        said = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items()))
        # Without both, the damage was too mild or too coarse to say anything.
        both = outcomes.keys() >= {INTACT, REFUSED}
        held = both and all(verdict.held for verdict in found)
        say(Seen(bar=BAR, tried=tried, seen=said, held=held, command=again), record=record)
    sys.exit(not held)


def _all(place: Path, rounds: int, served: int, start: int) -> list[Verdict]:
    sys.stderr.write("making the files of a killed server\n")
    image = make_image(place, TASKS)
    found: list[Verdict] = []
    for judge, n in ((open_damaged, rounds), (serve_damaged, served)):
        seeds = range(start, start + n)
        for seed, verdict in zip(seeds, verdicts(image, seeds, place, judge), strict=True):
            found.append(verdict)
            if not verdict.held:
                sys.stderr.write(f"seed {seed}, {judge.__name__}: {verdict}\n")
            if len(found) % 20 == 0:
                sys.stderr.write(f"{len(found)} of {rounds + served} rounds\n")
    return found
