"""The bounded pool of executors."""

from __future__ import annotations

import trio

from .executor import ExecutorKit, executor


async def pool(
    kit: ExecutorKit, size: int, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]
) -> None:
    """Runs ``size`` executors; ready when all are. Ends when the last one does, or is cut off
    through ``scope``."""
    with scope:
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                await nursery.start(executor, kit)
            task_status.started()
