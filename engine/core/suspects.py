"""Tasks that may be what ends the process. Pure: the time is an argument, in monotonic seconds.

Whatever ended it was in flight then, but so were up to a hundred others. Those that were in flight
twice in a row are *suspects*: a few of them run at once. Of these few, one that is in flight at a
third end is a *prime suspect*: it runs while no other suspect does, because with the next end it is
parked (``EngineConfig.recoveries_max``, whose default fits these figures), and must take nobody with
it. So a task that does end the process costs four starts. None of them runs before the process has
been up for a while: so the others get their turn before it may end again, and where it is ended from
outside, again and again, suspects do not come under ever more suspicion.

Suspects wait in a line of their own, wherever they go: both kinds stand for a destination.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from .destination import destination_of
from .task import Task

SUSPECT_AFTER: Final = 2
"""After so many attempts lost in a row, a task is a suspect."""

PRIME_AFTER: Final = 3
"""And after so many, a prime one."""

SUSPECTS_MAX: Final = 20
"""Suspects that run at once. So many become prime ones if the process ends."""

UP_S: Final = 5.0
"""So long the process has to be up before a suspect runs."""

PATIENCE_S: Final = 5.0
"""So long a prime suspect waits for the others before no further one of them begins."""

SUSPECTS: Final = "suspects"
PRIME_SUSPECTS: Final = "prime suspects"
LINES: Final = (SUSPECTS, PRIME_SUSPECTS)
"""What stands for their destination."""


def queued_for(task: Task) -> str:
    """The destination whose turn a waiting task needs, or one of ``LINES``."""
    if task.recoveries >= SUSPECT_AFTER:
        return PRIME_SUSPECTS if task.recoveries >= PRIME_AFTER else SUSPECTS
    return destination_of(task.spec.callback_url)


class Suspects:
    """Those that run now, by seat: a number or object that has one attempt at a time."""

    def __init__(self, since: float) -> None:
        self.from_s = since + UP_S  # before that none may run
        self._lines: dict[Hashable, str] = {}
        self._refused_at: float | None = None  # since when a prime one waits for the others to end

    def __repr__(self) -> str:
        return f"<Suspects {len(self)}{', a prime one' if self._prime_runs else ''}>"

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def _prime_runs(self) -> bool:
        return PRIME_SUSPECTS in self._lines.values()

    def started(self, seat: Hashable, line: str) -> None:
        """One of this line was handed out."""
        if not self._lines:  # who waited has got its turn, or was not the first
            self._refused_at = None
        self._lines[seat] = line

    def ended(self, seat: Hashable) -> bool:
        """The seat is free again. Whether a suspect had it."""
        return self._lines.pop(seat, None) is not None

    def may_run(self, line: str, now: float) -> bool:
        """Whether another one of this line may be handed out."""
        if now < self.from_s:
            return False
        if not self._lines:
            return True
        if line == PRIME_SUSPECTS:
            self._refused_at = now if self._refused_at is None else self._refused_at
            return False
        if self._refused_at is not None and now >= self._refused_at + PATIENCE_S:
            return False
        return len(self) < SUSPECTS_MAX and not self._prime_runs
