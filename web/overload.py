"""When to turn requests away: before all of them wait too long, not after.

A server that takes in more than it can do answers everybody late. So, when for a while none was
answered soon any more, only as many requests are let in as can be; the others are refused at once,
which costs little. A burst passes unhindered, as it is worked off before that while is over.
"""

from __future__ import annotations

from math import inf
from typing import Final

SOON_S: Final = 0.2
"""In so much time a request should be done."""

BADLY_S: Final = 0.5
"""So long must it go badly before one is refused."""

WELL_S: Final = 1.0
"""So long must nothing have to be refused before all are let in again."""

FEWEST: Final = 100
"""So many are let in, however slow they are: a slow disk can still write many at once."""


class Overload:
    """Knows how many requests are in progress and how soon they are done. Times are seconds of any
    clock that only goes forward."""

    def __init__(self) -> None:
        self.in_progress = 0
        self._overloaded = False
        self._bad_at = self._well_at = -inf  # when it was last seen to go badly, and well
        self._most = FEWEST
        self._counted_at, self._done = -inf, 0

    def __repr__(self) -> str:
        limit = f", at most {self._most}" if self._overloaded else ""
        return f"<Overload {self.in_progress} requests in progress{limit}>"

    def refuses(self, now: float) -> bool:
        """Whether a request that comes now is one too many."""
        if self._overloaded:
            self._overloaded = now - self._bad_at < WELL_S
        elif not self.in_progress:
            self._well_at = now
        elif now - self._well_at >= BADLY_S:
            self._overloaded, self._bad_at = True, now
        if not self._overloaded or self.in_progress < self._most:
            return False
        self._bad_at = self._well_at = now
        return True

    def begin(self) -> None:
        """A request is being carried out."""
        self.in_progress += 1

    def end(self, began: float, now: float) -> None:
        """One that was begun is done."""
        self.in_progress -= 1
        self._done += 1
        if now - began <= SOON_S:
            self._well_at = now
        if now - self._counted_at >= WELL_S:
            a_second = self._done / (now - self._counted_at)
            self._most = max(FEWEST, int(a_second * SOON_S))
            self._counted_at, self._done = now, 0
