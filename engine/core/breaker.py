"""The circuit breaker of one destination. Pure: the time is an argument, in monotonic seconds.

* *Closed*: attempts begin freely. It opens when enough of the recent ones have failed.
* *Open*: none begins, for ``open_s``. Then it is half-open, by time alone.
* *Half-open*: one attempt may begin, as a probe. If that goes well the breaker closes and begins
  to count anew; if it fails, the breaker opens again; if it ends without telling anything, another
  one may go. So may another when a probe has not ended after ``open_s``: it may hang for long.

What began before the breaker last opened or closed is counted but decides nothing any more: a
hundred attempts that were in flight when a host died are one piece of news, not a hundred.
"""

from __future__ import annotations

import enum
from collections import deque

import attrs

from .outcome import Answer
from .task import ErrorClass

_BUCKETS = 12

_FAILURES = frozenset(
    {
        ErrorClass.DNS,
        ErrorClass.REFUSED,
        ErrorClass.TLS,
        ErrorClass.CONNECT_TIMEOUT,
        ErrorClass.TIMEOUT,
        ErrorClass.DISCONNECTED,
        ErrorClass.PROTOCOL,
    }
)
_BUSY = frozenset({408, 425, 429})  # "not now", of a host that has too much to do


class Ending(enum.Enum):
    """What the end of an attempt tells of its destination."""

    GOOD = enum.auto()  # it lives and answers, be it with a redirect or a refusal
    FAILED = enum.auto()
    NEUTRAL = enum.auto()  # nothing: it ended through us, or was never sent


def ending_of(answer: Answer) -> Ending:
    """What an answer tells of the destination."""
    if answer.error_class is not None:
        return Ending.FAILED if answer.error_class in _FAILURES else Ending.NEUTRAL
    status = answer.status_code or 0
    return Ending.FAILED if status in _BUSY or status >= 500 else Ending.GOOD


class BreakerState(enum.StrEnum):
    """Whether attempts may begin."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@attrs.frozen
class BreakerPolicy:
    """When a breaker opens, and for how long."""

    ratio: float  # of failures to attempts
    window_s: float
    attempts_min: int
    open_s: float


class Recent:
    """How many attempts ended in the last ``window_s``, and how many failed. Counted in twelfths
    of the window, of which the oldest is forgotten as a whole; so the memory is bounded."""

    def __init__(self, window_s: float) -> None:
        self._width_s = window_s / _BUCKETS
        self._buckets: deque[list[int]] = deque()  # [its place in time, attempts, failures]
        self.attempts = 0
        self.failures = 0

    def __repr__(self) -> str:
        return f"<Recent {self.failures} of {self.attempts} failed>"

    def add(self, now: float, *, failed: bool) -> None:
        """One more."""
        self.forget_old(now)
        place = int(now // self._width_s)
        if not self._buckets or self._buckets[-1][0] != place:
            self._buckets.append([place, 0, 0])
        self._buckets[-1][1] += 1
        self._buckets[-1][2] += failed
        self.attempts += 1
        self.failures += failed

    def forget_old(self, now: float) -> None:
        """Bring the counts up to date."""
        oldest = int(now // self._width_s) - _BUCKETS + 1
        while self._buckets and self._buckets[0][0] < oldest:
            _, attempts, failures = self._buckets.popleft()
            self.attempts -= attempts
            self.failures -= failures


class Breaker:
    """One breaker."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._phase = 0  # grows when it opens or closes
        self._opened_at: float | None = None  # None: it is closed
        self._probed_at: float | None = None
        self.recent = Recent(policy.window_s)
        self.opened_by = (0, 0)  # failures and attempts when it last opened

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"opened at {self._opened_at:g}"
        return f"<Breaker {state}, {self.recent!r}>"

    @property
    def closed(self) -> bool:
        """Whether it lets everything through."""
        return self._opened_at is None

    def state(self, now: float) -> BreakerState:
        """Whether attempts may begin."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        opening = now < self._opened_at + self._policy.open_s
        return BreakerState.OPEN if opening else BreakerState.HALF_OPEN

    def admits_at(self) -> float:
        """From when on an attempt may begin, if none ends before; minus infinity if closed."""
        if self._opened_at is None:
            return float("-inf")
        since = self._opened_at if self._probed_at is None else self._probed_at
        return since + self._policy.open_s

    def begin(self, now: float) -> int:
        """An attempt begins, which the caller has found admitted; returns its ticket."""
        if not self.closed:
            self._probed_at = now
        return self._phase

    def end(self, ticket: int, now: float, ending: Ending) -> bool:
        """An attempt has ended; tells whether that has opened the breaker."""
        if ending is not Ending.NEUTRAL:
            self.recent.add(now, failed=ending is Ending.FAILED)
        if ticket != self._phase:
            return False
        if self._opened_at is None:
            # A good answer never opens it, even if it is the one that makes the figures complete.
            return ending is Ending.FAILED and self._has_failed_enough() and self._open(now)
        if ending is Ending.FAILED:
            return self._open(now)
        if ending is Ending.GOOD:
            self._close(now)
        else:
            self._probed_at = None
        return False

    def _has_failed_enough(self) -> bool:
        attempts = self.recent.attempts
        enough = attempts >= self._policy.attempts_min
        return enough and self.recent.failures >= self._policy.ratio * attempts

    def _open(self, now: float) -> bool:
        self._phase += 1
        self._opened_at, self._probed_at = now, None
        self.opened_by = (self.recent.failures, self.recent.attempts)
        return True

    def _close(self, now: float) -> None:
        self._phase += 1
        self._opened_at = self._probed_at = None
        self.recent = Recent(self._policy.window_s)
        self.recent.add(now, failed=False)
