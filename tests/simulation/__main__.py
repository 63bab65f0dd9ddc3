"""Run many seeds, or one again: ``python -m tests.simulation --help``."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import click

from tests.bars import Seen, say
from tests.simulation.faults import KINDS, Faults
from tests.simulation.goals import GOALS, missing
from tests.simulation.run import Outcome, simulate, simulate_one_of_many

_GOALS_NEED = 300  # seeds; with fewer, what they have not reached says nothing


@attrs.define
class Total:
    """What came of all seeds so far."""

    seeds: int = 0
    virtual_s: float = 0.0
    counts: Counter[str] = attrs.field(factory=Counter)
    goals: Counter[str] = attrs.field(factory=Counter)
    failures: list[int] = attrs.field(factory=list)

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.seeds += 1
        self.virtual_s += outcome.virtual_s
        self.counts += outcome.counts
        self.goals += outcome.goals
        if outcome.failure is not None:
            self.failures.append(outcome.seed)

    @property
    def faults(self) -> int:
        """How many struck."""
        return sum(n for what, n in self.counts.items() if what.startswith("fault "))

    def seen(self) -> str:
        """In words."""
        broken = len(self.failures)
        return (
            f"{broken} broke an invariant, {self.counts['replayed']:,} run twice to the same hash,"
            f" {len(GOALS) - len(missing(self.goals))} of {len(GOALS)}"
            f" goals reached; {self.virtual_s / 3600:,.0f} virtual hours, {self.faults:,} faults,"
            f" {self.counts['crashes']:,} crashes, {self.counts['calls']:,} callbacks"
        )


@click.command()
@click.option("--seeds", default=1_000, show_default=True, help="how many seeds to run")
@click.option("--start", default=0, show_default=True, help="the first of them")
@click.option("--seed", type=int, help="run this one alone, and show everything that happens")
@click.option("--without", multiple=True, type=click.Choice(KINDS), help="faults to turn off")
@click.option("--jobs", default=1, show_default=True, help="processes to run them in")
@click.option("--record", is_flag=True, help="keep the result for the table of the bars")
def main(
    seeds: int, start: int, seed: int | None, without: tuple[str, ...], jobs: int, record: bool
) -> None:
    """Run the whole engine under seeds, in virtual time, with faults that the seeds choose. Exits
    with 1 if an invariant broke or, from 300 seeds on, a goal was not reached."""
    if seed is not None:
        raise SystemExit(_replay(seed, without))
    total = Total()
    began = time.monotonic()
    with _outcomes(range(start, start + seeds), jobs) as outcomes:
        for outcome in outcomes:
            total.add(outcome)
            if outcome.failure is not None:
                _report(outcome)
            _progress(total, seeds, time.monotonic() - began)
    left = missing(total.goals) if seeds >= _GOALS_NEED else []
    for goal in left:
        click.echo(f"never reached: {goal}", err=True)
    held = not total.failures and not left
    command = f"make sim SEEDS={seeds} START={start}"
    say(
        Seen(
            bar="simulation",
            tried=f"{seeds:,} seeds from {start}",
            seen=total.seen(),
            held=held,
            command=command,
        ),
        record=record,
    )
    raise SystemExit(0 if held else 1)


def _replay(seed: int, without: tuple[str, ...]) -> int:
    faults = Faults.chosen(seed).without(*without)
    click.echo(f"faults: {', '.join(f'{kind} {rate:.3f}' for kind, rate in faults.rates.items())}")
    outcome = simulate(seed, faults=faults, show=click.echo)
    click.echo(f"seed {seed}: {outcome.failure or 'every invariant held'}")
    click.echo(f"{outcome.virtual_s:.0f} virtual seconds, trace {outcome.trace_hash}")
    return 1 if outcome.failure else 0


@contextmanager
def _outcomes(seeds: range, jobs: int) -> Iterator[Iterator[Outcome]]:
    if jobs == 1:
        yield map(simulate_one_of_many, seeds)
        return
    context = multiprocessing.get_context("spawn")  # what runs in one must not show in another
    with context.Pool(jobs) as pool:
        yield pool.imap(simulate_one_of_many, seeds, chunksize=5)


def _report(outcome: Outcome) -> None:
    _clear()
    click.echo(f"seed {outcome.seed}: {outcome.failure}")
    for line in outcome.tail[-25:]:
        click.echo(f"    {line[:300]}")
    click.echo(f"    replay it: .venv/bin/python -m tests.simulation --seed {outcome.seed}")


def _progress(total: Total, seeds: int, took_s: float) -> None:
    if sys.stderr.isatty() or total.seeds % 100 == 0 or total.seeds == seeds:
        _clear()
        text = f"{total.seeds:,} of {seeds:,} seeds, {len(total.failures)} failures, {took_s:.0f} s"
        sys.stderr.write(text if sys.stderr.isatty() else f"{text}\n")
        sys.stderr.flush()


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
