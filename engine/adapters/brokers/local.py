"""The broker inside the process: the database itself is the queue, hints stay in memory."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from engine.ports.broker import Delivery, Hint


class LocalBroker:
    """Hints in a bounded buffer, for the one queue actor of this process."""

    def __init__(self, capacity: int) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[Hint, ...]](capacity)
        self._missed = False

    def announce(self, hints: Sequence[Hint]) -> None:
        """Hand hints over, or note that some are missing."""
        try:
            self._send.send_nowait(tuple(hints))
        except trio.WouldBlock:
            self._missed = True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the queue has ended; the store knows

    async def receive(self) -> Delivery:
        """Wait for hints."""
        hints = await self._receive.receive()
        missed, self._missed = self._missed, False
        return Delivery(hints, missed)

    async def ack(self, delivery: Delivery) -> None:  # noqa: ARG002 - nothing to forget here
        """Nothing is kept after delivery."""
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """End."""
        self._send.close()
