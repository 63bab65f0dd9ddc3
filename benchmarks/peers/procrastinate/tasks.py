"""The procrastinate app: its pool, and the one task."""

from __future__ import annotations

import os
from typing import Any

from aiohttp import ClientSession
from callbacks import ATTEMPTS, call
from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy

app = App(
    connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], min_size=4, max_size=20),
)
session: ClientSession | None = None  # the worker opens it


@app.task(
    name="callback",
    pass_context=True,
    retry=RetryStrategy(max_attempts=ATTEMPTS - 1, exponential_wait=2),  # the first is not counted
)
async def callback(context: JobContext, task: dict[str, Any]) -> None:
    await call(session, str(context.job.id), task)
