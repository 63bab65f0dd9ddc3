"""Chance, as a port."""

from __future__ import annotations

from typing import Protocol


class Rng(Protocol):
    """Source of all chance in the engine, so that a seed can replay a run."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def getrandbits(self, bits: int, /) -> int:
        """A number below ``2**bits``."""
        ...
