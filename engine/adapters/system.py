"""The real clock, ids and chance of this machine."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import trio

from engine.core.ids import IdSequence
from engine.core.task import TaskId
from engine.ports.clock import Clock
from engine.ports.rng import Rng

_CHANCE_BYTES = 4096  # asked for at once


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time now."""
        return datetime.now(UTC)  # noqa: TID251 - this is where the engine takes it from

    def monotonic(self) -> float:
        """Trio's clock."""
        return trio.current_time()


class TrioClock:
    """Wall-clock time that follows Trio's clock from a start: real or virtual."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._zero = trio.current_time()

    def now(self) -> datetime:
        """The start plus what Trio's clock has run since."""
        return self._start + timedelta(seconds=trio.current_time() - self._zero)

    def monotonic(self) -> float:
        """Trio's clock."""
        return trio.current_time()


class SystemIds:
    """UUIDv7 from a clock and a source of chance."""

    def __init__(self, clock: Clock, rng: Rng) -> None:
        self._clock = clock
        self._rng = rng
        self._sequence = IdSequence()

    def task_id(self) -> TaskId:
        """The next id."""
        unix_ms = int(self._clock.now().timestamp() * 1000)
        return self._sequence.next(unix_ms, self._rng.getrandbits(62))

    def owner_id(self) -> str:
        """128 random bits."""
        return f"{self._rng.getrandbits(128):032x}"


class SystemRng:
    """The operating system's source of chance, asked for many bytes at once: to ask lets another
    thread run, and takes longer than to use the answer. No byte is used twice."""

    def __init__(self) -> None:
        self._bytes = b""
        self._used = 0

    def random(self) -> float:
        """A number in [0, 1), of 53 random bits."""
        return self.getrandbits(53) / 2**53

    def getrandbits(self, bits: int, /) -> int:
        """A number below ``2**bits``."""
        size = (bits + 7) // 8
        end = self._used + size
        if end > len(self._bytes):
            self._bytes, self._used, end = os.urandom(max(size, _CHANCE_BYTES)), 0, size
        taken = self._bytes[self._used : end]
        self._used = end
        return int.from_bytes(taken, "big") >> (size * 8 - bits)


def system_rng() -> Rng:
    """The operating system's source of chance."""
    return SystemRng()
