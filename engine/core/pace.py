"""How far claims may run ahead of the callbacks. Pure: the time is an argument, in monotonic seconds.

Between two callbacks of an executor lies the commit of the first one's result and of the next
one's claim. To keep as many callbacks in flight as there may be, some tasks are therefore claimed
before there is room for their call; only as many as will begin within ``AHEAD_S``, because what is
claimed can no longer give way to what is more urgent.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 1.0
"""How far back endings count."""

AHEAD_S: Final = 0.02
"""How long a claimed task waits for its call, at the pace of the last ``WINDOW_S``: two commits."""

AHEAD_SHARE: Final = 4
"""At most one claim runs ahead for so many executors."""


def ahead_max(executors: int) -> int:
    """How many claims may run ahead at all."""
    return executors // AHEAD_SHARE


def pool_size(executors: int) -> int:
    """How many executors it takes, for so many calls at once."""
    return executors + ahead_max(executors)


class Pace:
    """Counts the attempts that ended of late."""

    def __init__(self, executors: int) -> None:
        self._most = ahead_max(executors)
        self._ended: deque[float] = deque()

    def __repr__(self) -> str:
        return f"<Pace {len(self._ended)} ended of late>"

    def ended(self, now: float) -> None:
        """An attempt has ended."""
        self._ended.append(now)

    def ahead(self, now: float) -> int:
        """How many claims may run ahead."""
        while self._ended and self._ended[0] <= now - WINDOW_S:
            self._ended.popleft()
        return min(self._most, int(len(self._ended) * AHEAD_S / WINDOW_S))
