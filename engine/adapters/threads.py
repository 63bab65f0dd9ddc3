"""Ways to run blocking calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import trio
from outcome import Outcome
from trio.lowlevel import Abort

T = TypeVar("T")


class ThreadRunSync:
    """Calls in a thread, one at a time. A call that has begun is waited for.

    Less than half the work of ``trio.to_thread.run_sync``, and so for every transaction: there is
    nothing to cancel, no context to carry over, and no way back from the thread
    (``trio.from_thread``) without a token.
    """

    def __init__(self) -> None:
        self._turn = trio.Lock()

    def __repr__(self) -> str:
        return f"<ThreadRunSync {'busy' if self._turn.locked() else 'idle'}>"

    async def __call__(self, function: Callable[[], T]) -> T:
        """The function's result or exception."""
        async with self._turn:
            result: T = await _in_thread(function)
        return result


async def _in_thread(function: Callable[[], T]) -> T:
    task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

    def deliver(result: Outcome[T]) -> None:
        with suppress(trio.RunFinishedError):  # nobody waits any more
            token.run_sync_soon(trio.lowlevel.reschedule, task, result)

    trio.lowlevel.start_thread_soon(function, deliver, "ringback store")
    result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: Abort.FAILED)
    return result


class InlineRunSync:
    """Calls in line, for runs that must repeat exactly; everything else waits meanwhile."""

    async def __call__(self, function: Callable[[], T]) -> T:
        """The function's result or exception."""
        await trio.lowlevel.checkpoint()
        return function()
