"""Ways to run blocking calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


class ThreadRunSync:
    """Calls in a thread, one at a time. A call that has begun is waited for."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return f"<ThreadRunSync {'busy' if self._limiter.borrowed_tokens else 'idle'}>"

    async def __call__(self, function: Callable[[], T]) -> T:
        """The function's result or exception."""
        return await trio.to_thread.run_sync(
            function, abandon_on_cancel=False, limiter=self._limiter
        )


class InlineRunSync:
    """Calls in line, for runs that must repeat exactly; everything else waits meanwhile."""

    async def __call__(self, function: Callable[[], T]) -> T:
        """The function's result or exception."""
        await trio.lowlevel.checkpoint()
        return function()
