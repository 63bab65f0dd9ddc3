"""One destination: what its name is, and what is known of how it answers. Pure: the time is an
argument, in monotonic seconds."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Hashable
from functools import lru_cache
from urllib.parse import urlsplit

import attrs

from .breaker import Breaker, BreakerPolicy, Ending, ending_of
from .outcome import Answer

RECENT_MAX = 20
"""Ended attempts that say whether a destination answers well. So few, because a host that answered
ten thousand calls in the last minute can still die now."""

_PORTS = {"http": 80, "https": 443}
_ERROR_MAX = 200


@lru_cache(maxsize=4096)
def destination_of(url: str) -> str:
    """``scheme://host:port`` of a URL, in lower case, with its port. Text that is no URL belongs
    to the destination without a name: nothing can be called there."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return ""
    host = f"[{host}]" if ":" in host else host.removesuffix(".")
    return f"{parts.scheme}://{host}:{port}"


@attrs.frozen
class Report:
    """How an attempt went, as far as its destination is concerned."""

    ending: Ending
    duration_s: float
    error: str | None = None


def report_of(answer: Answer, duration_s: float) -> Report:
    """The report on an answer."""
    ending = ending_of(answer)
    error = (answer.result.error or "")[:_ERROR_MAX] if ending is Ending.FAILED else None
    return Report(ending, duration_s, error)


class Verdict(enum.Enum):
    """How an attempt went."""

    GOOD = enum.auto()
    SLOW = enum.auto()
    FAILED = enum.auto()


class Track:
    """What is known of one destination."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.breaker = Breaker(policy)
        self.running: dict[Hashable, float] = {}  # since when, by seat; the oldest first
        self.recent: deque[Verdict] = deque(maxlen=RECENT_MAX)
        self.held = False  # for answering badly
        self.good_at = self.ended_at = float("-inf")
        self.last_error: str | None = None

    def hanging(self, now: float, slow_s: float) -> int:
        """Attempts in flight that are slow already."""
        found = 0
        for since in self.running.values():
            if now - since <= slow_s:
                break
            found += 1
        return found

    def judge(self, now: float, policy: BreakerPolicy, slow_s: float) -> None:
        """Hold it, or let it go. In between there is a range in which it stays as it was, else a
        destination that wavers would be held and let go with every attempt."""
        if now - self.ended_at > policy.window_s:
            self.recent.clear()
        hanging = self.hanging(now, slow_s)
        if not (self.recent or hanging):
            self.held = False
            return
        attempts = len(self.recent) + hanging
        bad = attempts - self.recent.count(Verdict.GOOD)
        if bad < attempts * policy.ratio / 2:
            self.held = False
        elif attempts >= policy.attempts_min and bad >= attempts * policy.ratio:
            self.held = True

    def learn(self, report: Report, now: float, slow_s: float) -> None:
        """An attempt has ended, and tells something."""
        self.ended_at = now
        if report.ending is Ending.FAILED:
            self.recent.append(Verdict.FAILED)
            self.last_error = report.error
        else:
            slow = report.duration_s > slow_s
            self.recent.append(Verdict.SLOW if slow else Verdict.GOOD)
            self.good_at = now
