"""The time, as a port."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time for records and due times; durations and timeouts use Trio's clock."""

    def now(self) -> datetime:
        """The time now, aware, in UTC. It may step when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never steps. For measuring durations."""
        ...
