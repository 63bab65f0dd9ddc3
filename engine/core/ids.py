"""UUIDv7: ids that sort by the time they were made (RFC 9562 §5.7).

Within a millisecond, and when the clock steps back, a counter in the bits after the version keeps
them growing (§6.2, method 1), so that first come, first served holds for tasks of one burst.
"""

from __future__ import annotations

from .task import TaskId

_COUNTER_BITS = 12


class IdSequence:
    """Makes ids that only grow, from a clock and a source of chance given with each call."""

    def __init__(self) -> None:
        self._ms = 0
        self._counter = 0

    def next(self, unix_ms: int, random_62: int) -> TaskId:
        """The next id. ``random_62``: a random number below 2**62."""
        if unix_ms > self._ms:
            self._ms, self._counter = unix_ms, 0
        else:
            self._counter += 1
            if self._counter >> _COUNTER_BITS:
                self._ms, self._counter = self._ms + 1, 0
        value = (self._ms << 80) | (7 << 76) | (self._counter << 64) | (2 << 62) | random_62
        digits = f"{value:032x}"  # as ``str(UUID(int=value))``, in a tenth of the time
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
