"""SIGKILL at random moments under load, again and again, on one database."""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

import attrs
import click
import trio

from engine.core.pace import pool_size
from engine.core.task import ErrorClass
from tests import bars
from tests.murder.callee import open_callee
from tests.murder.checker import Report, Rules, check
from tests.murder.history import Cut, Found, History
from tests.murder.load import Load
from tests.murder.progress import asked, run_in_new_place, seed_or_new, tell
from tests.murder.survey import survey, until_ended
from tests.murder.target import CALLEE_FAILS, DATABASE, free_port, integrity, open_server

BAR: Final = "kill -9"
EXECUTORS: Final = 100
SHORTEST_S: Final = 0.005
LONGEST_S: Final = 2.0
RATE: Final = 240.0  # creates a second
RATE_MIN: Final = 200.0  # ... that have to be accepted while it is up
TASKS_MIN: Final = 20  # for each kill
TIMEOUT_S: Final = 180.0  # of a callback: what no start gives back stays longer than PATIENT_S
LEAVE_S: Final = 5.0  # clients have so long to notice that the server is gone
STUCK_S: Final = 60.0  # what has not ended so long after the last start is stuck
PATIENT_S: Final = 150.0  # the same where other tests run beside
OPTIONS: Final = (
    *("--executors", str(EXECUTORS), "--log-level", "warning"),
    *("--dequeue-lease", "2", "--sweep-interval", "0.5"),
    *CALLEE_FAILS,
)
RULES: Final = Rules(
    excuses=frozenset({ErrorClass.LOST, ErrorClass.CANCELLED}), repeats_max=pool_size(EXECUTORS)
)
"""The bar says that a kill repeats at most as many callbacks as there are executors. It may be a
quarter more: so many tasks are claimed ahead, and called as soon as another call is answered, whose
result is not durable yet. A kill then repeats both."""


@attrs.define
class Murder:
    """What came of a run."""

    report: Report
    history: History
    posts: int
    up_s: float  # how long there was a server to be asked, until it was killed
    integrity: str  # what SQLite says of the file in the end

    @property
    def posts_per_s(self) -> float:
        return self.posts / max(self.up_s, 0.001)

    def problems(self) -> list[str]:
        """What is wrong beside the breaches, also if this was no murder: kills have to find work on
        its way, and it has to go on after them."""
        report = self.report
        wrong = {
            f"integrity: {self.integrity}": self.integrity != "ok",
            "too few tasks": report.tasks <= TASKS_MIN * len(report.repeats),
            "no callback was in flight at a kill": not sum(report.repeats),
            "no task was recovered": not report.recovered,
            "the watcher was told nothing": not self.history.watched,
        }
        return [problem for problem, there in wrong.items() if there]

    def tried(self, rounds: int) -> str:
        return (
            f"{rounds} kills, {self.posts_per_s:,.0f} POST/s while it was up,"
            f" {self.report.tasks:,} tasks, {len(self.history.unknown):,} more sent without an answer"
        )


async def murder(
    place: Path,
    rounds: int,
    seed: int,
    longest_s: float = LONGEST_S,
    stuck_s: float = STUCK_S,
) -> Murder:
    """Kill it so often, let everything end, and look at all of it."""
    chance = random.Random(seed)
    history = History()
    port, up_s = free_port(), 0.0
    async with open_callee(place) as callee:
        load = Load(callee.url, chance, history, rate=RATE, timeout_s=TIMEOUT_S)
        for number in range(1, rounds + 1):
            seconds = chance.uniform(SHORTEST_S, longest_s)
            async with open_server(place, *OPTIONS, port=port) as server:
                _mark_ready(history)
                began = perf_counter()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(load.until_gone, server.url)
                    await trio.sleep(seconds)
                    killed = perf_counter()
                    history.cuts.append(Cut(killed, killed))
                    await trio.to_thread.run_sync(server.kill)
                    # Answers that are in their sockets still count; who sleeps need not wake up.
                    nursery.cancel_scope.deadline = trio.current_time() + LEAVE_S
                up_s += killed - began
            tell(f"kill {number}/{rounds} after {killed - began:.3f} s: {load!r}")
        found = await _settle(place, port, load, history, stuck_s)
    found = attrs.evolve(found, calls=callee.calls)
    return Murder(
        check(history, found, RULES), history, load.posts, up_s, integrity(place / DATABASE)
    )


def _mark_ready(history: History) -> None:
    """The last kill is over: another server answers."""
    if history.cuts:
        history.cuts[-1] = attrs.evolve(history.cuts[-1], until=perf_counter())


async def _settle(place: Path, port: int, load: Load, history: History, stuck_s: float) -> Found:
    """The last start: everything ends, and is asked for."""
    async with open_server(place, *OPTIONS, port=port) as server:
        _mark_ready(history)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.finish, server.url)
            await trio.sleep(1.0)  # for what is resent
            tell(f"waiting for the end of all tasks: {await until_ended(server.url, stuck_s)}")
            nursery.cancel_scope.cancel(reason="everything has ended, or is stuck")
        return await survey(server.url, [])


@click.command()
@click.option("--rounds", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", type=int, help="Of the load and of the moments; else a new one.")
@click.option("--record", is_flag=True, help="Keep the lines for the table of bars.")
def command(rounds: int, seed: int | None, record: bool) -> None:
    """SIGKILL under load, again and again, on one database. Exit 1 if anything was lost."""
    work = partial(murder, rounds=rounds, seed=seed_or_new(seed))
    again = asked("kill", rounds, seed)
    with bars.told(BAR, f"{rounds} kills", again, record=record):
        done = run_in_new_place("kill", work)
        tell(done.report.quote())
        problems = done.problems()
        if done.posts_per_s < RATE_MIN:
            problems.append(f"fewer than {RATE_MIN:g} POST/s")
        held = not (done.report.breaches or problems)
        said = "; ".join([done.report.sentence(), *problems])
        seen = bars.Seen(bar=BAR, tried=done.tried(rounds), seen=said, held=held, command=again)
        bars.say(seen, record=record)
    sys.exit(0 if held else 1)
