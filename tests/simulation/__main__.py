"""Run many seeds, or one again: ``python -m tests.simulation --help``."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import click

from tests.bars import Seen, say, told
from tests.simulation.faults import KINDS, Faults
from tests.simulation.goals import GOALS, missing
from tests.simulation.run import Outcome, simulate, simulate_one_of_many
from tests.simulation.world import Rest

BAR: Final = "simulation"
LIVENESS_BAR: Final = "simulation, liveness"
_GOALS_NEED = 300  # seeds; with fewer, what they have not reached says nothing
LONG: Final = 10_000  # seeds: a run that the bar speaks of, and which it wants to be
LONG_HOURS: Final = 5_000  # of virtual time


@attrs.define
class Total:
    """What came of all seeds so far."""

    seeds: int = 0
    virtual_s: float = 0.0
    counts: Counter[str] = attrs.field(factory=Counter)
    goals: Counter[str] = attrs.field(factory=Counter)
    failures: list[int] = attrs.field(factory=list)
    liveness: int = 0  # seeds whose faults stop
    rests: list[Rest] = attrs.field(factory=list)  # of those of them that broke nothing

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.seeds += 1
        self.virtual_s += outcome.virtual_s
        self.counts += outcome.counts
        self.goals += outcome.goals
        if outcome.failure is not None:
            self.failures.append(outcome.seed)
        self.liveness += outcome.liveness
        if outcome.failure is None and outcome.rest is not None:
            self.rests.append(outcome.rest)

    @property
    def faults(self) -> int:
        """How many struck."""
        return sum(n for what, n in self.counts.items() if what.startswith("fault "))

    @property
    def is_long_enough(self) -> bool:
        """Whether a run of so many seeds has seen its hours. Of a short one nothing is demanded."""
        return self.seeds < LONG or self.virtual_s >= LONG_HOURS * 3600

    @property
    def came_to_rest(self) -> bool:
        """Whether all did that had to."""
        return 0 < self.liveness == len(self.rests)

    def seen(self) -> str:
        """In words."""
        broken = len(self.failures)
        return (
            f"{broken} broke an invariant, {self.counts['replayed']:,} run twice to the same hash,"
            f" {len(GOALS) - len(missing(self.goals))} of {len(GOALS)}"
            f" goals reached; {self.virtual_s / 3600:,.0f} virtual hours, {self.faults:,} faults,"
            f" {self.counts['crashes']:,} crashes, {self.counts['calls']:,} callbacks"
        )

    def rested(self) -> str:
        """How those came to rest whose faults stop, in words."""
        seen = f"in {len(self.rests):,} of {self.liveness:,} every task ended in time"
        if not self.rests:
            return seen
        bounds = [rest.bound_s for rest in self.rests]
        within = sum(rest.after_due_s <= rest.leases_s for rest in self.rests)
        return (
            f"{seen} and every executor was free; the last at most"
            f" {max(rest.after_faults_s for rest in self.rests):,.0f} virtual seconds after the faults"
            f" had stopped, and {max(rest.after_due_s for rest in self.rests):,.0f} s after a server was"
            " up and no schedule, retry or lease was still to come; from there on 2 leases + 4 sweeps"
            f" + 60 s are allowed ({min(bounds):,.0f} to {max(bounds):,.0f} s, as the seed sets them),"
            f" and {within:,} seeds took no more than the 2 leases"
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
    with 1 if an invariant broke, if not everything ended once the faults had stopped or, from 300
    seeds on, a goal was not reached."""
    if seed is not None:
        raise SystemExit(_replay(seed, without))
    tried, command = f"{seeds:,} seeds from {start}", f"make sim SEEDS={seeds} START={start}"
    with (
        told(BAR, tried, command, record=record),
        told(LIVENESS_BAR, tried, command, record=record),
    ):
        total = _run(range(start, start + seeds), jobs)
    left = missing(total.goals) if seeds >= _GOALS_NEED else []
    for goal in left:
        click.echo(f"never reached: {goal}", err=True)
    held = not total.failures and not left and total.is_long_enough
    say(
        Seen(bar=BAR, tried=tried, seen=total.seen(), held=held, command=command),
        record=record,
    )
    say(
        Seen(
            bar=LIVENESS_BAR,
            tried=f"{total.liveness:,} of {tried}: those whose faults stop; in the others they never"
            " do, and the server is killed in the end",
            seen=total.rested(),
            held=total.came_to_rest,
            command=command,
        ),
        record=record,
    )
    raise SystemExit(0 if held and total.came_to_rest else 1)


def _run(seeds: range, jobs: int) -> Total:
    total = Total()
    began = time.monotonic()
    with _outcomes(seeds, jobs) as outcomes:
        for outcome in outcomes:
            total.add(outcome)
            if outcome.failure is not None:
                _report(outcome)
            _progress(total, len(seeds), time.monotonic() - began)
    return total


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
