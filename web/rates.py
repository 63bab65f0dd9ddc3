"""How fast each API key may ask. Decides; does nothing, and is told what time it is."""

from __future__ import annotations


class Rates:
    """A bucket of tokens for each key: ``per_s`` flow in, a second's worth of them fits, and each
    request takes one. There are as many buckets as keys. ``per_s`` 0 sets no limit."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._room = max(1.0, per_s)
        self._buckets: dict[str, tuple[float, float]] = {}  # what was in it, and when

    def wait_s(self, key_id: str, now: float) -> float:
        """0 if the request may go on, which takes a token; else how long until one is there."""
        if self._per_s == 0:
            return 0.0
        tokens, then = self._buckets.get(key_id, (self._room, now))
        tokens = min(self._room, tokens + (now - then) * self._per_s)
        taken = tokens >= 1
        self._buckets[key_id] = (tokens - taken, now)
        return 0.0 if taken else (1 - tokens) / self._per_s
