"""procrastinate's worker, on uvloop."""

from __future__ import annotations

import tasks
import uvloop
from callbacks import CONCURRENCY, client


async def main() -> None:
    async with client() as tasks.session, tasks.app.open_async():
        await tasks.app.run_worker_async(concurrency=CONCURRENCY)


if __name__ == "__main__":
    uvloop.run(main())
