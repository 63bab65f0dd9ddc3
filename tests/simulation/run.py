"""One seed from beginning to end: ``simulate``."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager

import attrs
import trio
import trio.testing
from trio._core import _run

from .faults import Faults
from .world import Rest, World

TAIL: int = 60
"""Lines of the trace that a failure shows."""

_FREE_AFTER = 20  # seeds: what the collector would free it frees between two of them
_TWICE_EVERY = 10  # seeds: of so many one is run again, and has to come to the same

Show = Callable[[str], None]


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of one seed."""

    seed: int
    failure: str | None  # the first invariant that was broken
    trace_hash: str  # of everything that happened, in order
    goals: Counter[str]  # rare states that were reached, see ``goals``
    counts: Counter[str]  # what happened how often: tasks, calls, commits, each kind of fault
    virtual_s: float
    liveness: bool  # whether its faults stop, and everything must then end
    rest: Rest | None  # how it did; None if it did not, or need not
    tail: tuple[str, ...]  # the end of the trace


class Trace:
    """Everything that happens, in order: hashed, and its end kept."""

    def __init__(self, show: Show | None) -> None:
        self._hash = hashlib.sha256()
        self._show = show
        self.tail: deque[tuple[object, ...]] = deque(maxlen=TAIL)

    def __repr__(self) -> str:
        return f"<Trace {self.hexdigest()[:16]}>"

    def __call__(self, *what: object) -> None:
        """One more thing has happened, at this moment."""
        entry = (round(trio.current_time(), 6), *what)
        self._hash.update(repr(entry).encode())
        self.tail.append(entry)
        if self._show is not None:
            self._show(_line(entry))

    def hexdigest(self) -> str:
        """The hash of it all."""
        return self._hash.hexdigest()

    def lines(self) -> tuple[str, ...]:
        """The end of it, to read."""
        return tuple(_line(entry) for entry in self.tail)


def _line(entry: tuple[object, ...]) -> str:
    at, *what = entry
    return f"{at:>12} {' '.join(map(str, what))}"


def simulate(
    seed: int,
    *,
    plant: AbstractContextManager[None] | None = None,
    faults: Faults | None = None,
    liveness: bool | None = None,
    show: Show | None = None,
) -> Outcome:
    """Run the engine under this seed. The same seed gives the same ``trace_hash``, in any process.

    ``plant`` is entered for the run, to put a bug into the product. ``faults`` replaces those that
    the seed would choose; ``liveness`` says whether faults stop and everything must then end, else
    the seed does. ``show`` gets every line of the trace.
    """
    trace = Trace(show)
    world = World(seed, trace, faults=faults, liveness=liveness)
    collecting, logging_off = gc.isenabled(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the store fails all the time
    gc.disable()  # what it finalises, and when, would be no part of the seed
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r.seed(seed)
    try:
        with plant or contextlib.nullcontext():
            trio.run(world.run, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        logging.disable(logging_off)
        if collecting:
            gc.enable()
    return Outcome(
        seed=seed,
        failure=world.failure,
        trace_hash=trace.hexdigest(),
        goals=world.goals.reached,
        counts=world.counts,
        virtual_s=world.virtual_s,
        liveness=world.liveness,
        rest=world.rest,
        tail=trace.lines(),
    )


def simulate_one_of_many(seed: int) -> Outcome:
    """The same, frugal with memory over thousands of seeds. Every tenth is run twice."""
    outcome = simulate(seed)
    if seed % _TWICE_EVERY == 0 and outcome.failure is None:
        again = simulate(seed)
        if again.trace_hash != outcome.trace_hash:
            failure = f"run again it was another: {again.failure or again.trace_hash}"
            return attrs.evolve(outcome, failure=failure)
        outcome.counts["replayed"] += 1
    if seed % _FREE_AFTER == 0:
        gc.collect()
    return outcome
