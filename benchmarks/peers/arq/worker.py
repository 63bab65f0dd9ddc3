"""arq's worker, on uvloop."""

from __future__ import annotations

import asyncio  # noqa: TID251  (a program of its own, not under Trio)
from typing import Any

import uvloop
from aiohttp import ClientError
from arq import Retry
from arq.worker import create_worker
from callbacks import ATTEMPTS, CONCURRENCY, call, client
from queue_settings import REDIS


async def callback(ctx: dict[str, Any], task: dict[str, Any]) -> None:
    try:
        await call(ctx["session"], ctx["job_id"], task)
    except (ClientError, TimeoutError):
        if ctx["job_try"] >= ATTEMPTS:
            raise
        raise Retry(defer=2 ** ctx["job_try"]) from None


async def startup(ctx: dict[str, Any]) -> None:
    ctx["session"] = client()


async def shutdown(ctx: dict[str, Any]) -> None:
    await ctx["session"].close()


class WorkerSettings:
    functions = (callback,)
    on_startup = startup
    on_shutdown = shutdown
    redis_settings = REDIS
    max_jobs = CONCURRENCY
    max_tries = ATTEMPTS
    keep_result = 3600  # s: so that a status can be asked for
    poll_delay = 0.01  # s: the default of 0.5 s would be the latency of an idle queue


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        asyncio.set_event_loop(runner.get_loop())
        create_worker(WorkerSettings).run()
