"""The bounded pool of executors: as many as calls may be in flight, and some whose task is claimed
ahead (``engine.core.pace``) or whose result is being stored."""

from __future__ import annotations

import trio

from engine.core.pace import pool_size

from .executor import ExecutorKit, executor


async def pool(
    kit: ExecutorKit, size: int, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]
) -> None:
    """Runs executors for ``size`` calls at once; ready when all are. Ends when the last one does, or is cut off
    through ``scope``."""
    with scope:
        async with trio.open_nursery() as nursery:
            for _ in range(pool_size(size)):
                await nursery.start(executor, kit)
            task_status.started()
