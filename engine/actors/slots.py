"""How many callbacks may be in flight at once."""

from __future__ import annotations

import trio


class CallSlots:
    """Room for so many calls. Who waits for room gets it in the order of asking."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<CallSlots {self.busy} of {self._size} busy, {len(self._waiting)} wait>"

    @property
    def busy(self) -> int:
        """Calls in flight."""
        return self._size - self._free

    async def __aenter__(self) -> None:
        """Wait for room. Not a checkpoint if there is some: the call that follows is one."""
        if self._free:
            self._free -= 1
        else:
            await self._waiting.park()  # who leaves hands the room on

    async def __aexit__(self, *_exc_info: object) -> None:
        """The call has ended."""
        if self._waiting:
            self._waiting.unpark()
        else:
            self._free += 1
