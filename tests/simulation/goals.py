"""Rare states that the runs must reach. A simulation that never gets there proves nothing about it,
so the suite fails if one of them is not reached by enough seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

_FAULTS: Final = [
    "net.refused",
    "net.syn_lost",
    "net.dns",
    "net.dns_hangs",
    "net.shortage",
    "net.reset_before",
    "net.reset_after",
    "net.reset_kept",
    "net.silent",
    "net.drip",
    "net.endless",
    "net.oversize",
    "net.garbage",
    "net.too_many",
    "net.broken",
    "net.refuses",
    "store.busy",
    "store.full",
    "store.io_before",
    "store.io_after",
    "store.read",
    "store.latency",
    "store.stall",
    "store.outage",
    "crash.before_commit",
    "crash.after_commit",
    "crash.calling",
    "crash.poison",
    "process.crash",
    "process.stop",
    "process.pause",
    "clock.step",
    "client.leaves",
]

_STATES: Final = ("Queued", "Pending", "Processing", "Retrying", "Completed", "Failed", "Cancelled")

_STRUCK: Final = [
    f"{fault} while a task is {state}"
    for fault in (
        "a crash",
        "a graceful stop",
        "a pause",
        "a step of the clock",
        "a failed transaction",
        "an unknown commit",
    )
    for state in _STATES
]

_MOVES: Final = [
    *(f"Queued to {to}" for to in ("Pending", "Cancelled", "Failed")),
    *(f"Pending to {to}" for to in ("Processing", "Queued", "Cancelled")),
    *(f"Processing to {to}" for to in ("Completed", "Retrying", "Failed", "Cancelled")),
    *(f"Retrying to {to}" for to in ("Processing", "Cancelled", "Failed")),
    "Failed to Retrying",
]

_MOMENTS: Final = [
    "an attempt's lease ends",
    "a client's lease ends",
    "a late result is dropped",
    "an attempt is lost with its server",
    "a lost attempt's callback is executed all the same",
    "a callback is executed twice",
    "an unknown commit took effect",
    "an unknown commit left nothing",
    "a client never hears that its task was accepted",
    "a client's lost create is repeated with its key",
    "a key is refused for another body",
    "a suspect runs",
    "a prime suspect runs",
    "a task is parked because its attempts were lost",
    "the drain ends before its deadline",
    "the drain's deadline cuts attempts off",
    "the server dies while it drains",
    "the server cannot start",
    "a cancel cuts a callback off",
    "a cancel loses against the result",
    "a retried task completes",
    "a retried task waits behind its key",
    "a task waits for its key",
    "a breaker is open",
    "a destination is held",
    "a Retry-After is kept",
    "a kept connection is used again",
    "a watcher falls behind",
    "a watcher resumes after a restart",
    "old records are removed",
    "the queue is full",
    "an inbox is full",
    "a commit carries several tasks",
    "a task is claimed in the commit that accepts it",
    "two tasks of a batch are accepted",
    "all executors are busy",
]

GOALS: Final[tuple[str, ...]] = (*_FAULTS, *_STRUCK, *_MOVES, *_MOMENTS)
"""All of them, by name. ``tests/simulation/test_simulation.py`` and the command line demand them."""


class Goals:
    """Which of them one run has reached, and how often."""

    def __init__(self) -> None:
        self.reached: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Goals {len(self.reached)} of {len(GOALS)}>"

    def reach(self, goal: str) -> None:
        """It has been reached once more."""
        self.reached[goal] += 1

    def struck(self, what: str, states: Iterable[str]) -> None:
        """Something struck while tasks were in these states."""
        for state in states:
            self.reach(f"{what} while a task is {state}")


def missing(reached: Counter[str]) -> list[str]:
    """Those that no run has reached."""
    return [goal for goal in GOALS if not reached[goal]]
