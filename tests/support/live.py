"""A real server, engine and callback receiver in a thread, for tests that are not async."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import attrs
import trio

from engine import EngineConfig, open_engine
from web.app import create_app
from web.receiver import Receiver, open_receiver
from web.server import serve
from web.settings import ServerConfig

T = TypeVar("T")
_CONFIG = EngineConfig(executors=4, grace_s=0.2)


@attrs.frozen
class Live:
    """What runs, and how to ask it from outside."""

    url: str
    receiver: Receiver
    _token: trio.lowlevel.TrioToken

    def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question that must be asked inside, such as about the receiver."""
        return trio.from_thread.run_sync(question, trio_token=self._token)


@contextmanager
def live_server(database: str) -> Iterator[Live]:
    """All of it, for the length of the block."""
    ready: Future[Live] = Future()
    stop = trio.Event()
    with ThreadPoolExecutor(1) as threads:
        running: Future[None] = threads.submit(trio.run, partial(_run, database, ready, stop))
        either: list[Future[Any]] = [ready, running]
        wait(either, timeout=30, return_when=FIRST_COMPLETED)
        if not ready.done():
            running.result(timeout=0)  # says why
        live = ready.result()
        try:
            yield live
        finally:
            live.ask(stop.set)
            running.result(timeout=30)


async def _run(database: str, ready: Future[Live], stop: trio.Event) -> None:
    async with (
        open_receiver(keep_requests=True) as receiver,
        open_engine(_CONFIG, database=database) as engine,
        trio.open_nursery() as nursery,
    ):
        app, config = create_app(engine), ServerConfig(port=0, grace_s=1)
        urls: list[str] = await nursery.start(
            partial(serve, app, config, express=app.express, shutdown_trigger=stop.wait)
        )
        ready.set_result(Live(urls[0], receiver, trio.lowlevel.current_trio_token()))
