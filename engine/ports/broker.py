"""Hints that tasks wait, as a port.

The store is the truth; a hint only saves looking for work in it. Hints may be late, repeated, in
any order or lost: whoever gets one must win the claim in the store before acting on it, and the
queue actor reads the store itself when hints may be missing. So losing a broker costs time, never
a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from engine.core.entries import Entry
from engine.core.task import Lane


@attrs.frozen
class Hint:
    """A task waits in a lane."""

    lane: Lane
    entry: Entry


@attrs.frozen
class Delivery:
    """Hints received together. ``missed``: others were dropped before them."""

    hints: tuple[Hint, ...]
    missed: bool = False
    token: object = None  # the broker's own handle, for ack


class Broker(Protocol):
    """Carries hints from the repository to the queue actors."""

    def announce(self, hints: Sequence[Hint]) -> None:
        """Hand hints over. Never blocks; drops what there is no room for, and says so with the
        next delivery."""
        ...

    async def receive(self) -> Delivery:
        """Wait for hints. A checkpoint; safe to cancel. Raises ``trio.EndOfChannel`` after
        ``close`` when nothing is left."""
        ...

    async def ack(self, delivery: Delivery) -> None:
        """The hints have been taken over. A checkpoint. What is not acked may be repeated."""
        ...

    def close(self) -> None:
        """No more hints will be announced."""
        ...
