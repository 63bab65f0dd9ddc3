"""Fakes behind ports: scripted, and they remember what they saw."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import trio

from engine.core.callback import CallbackRequest
from engine.core.outcome import Answer
from engine.core.task import ErrorClass, TaskId
from engine.ports.callback_net import Caller
from engine.ports.store import Store, StoreOpener

FINE = Answer(status_code=200, body=b'{"ok":true}')


@attrs.frozen
class Held:
    """Not answered before the net is told to let go; then with this answer."""

    answer: Answer = FINE


class ScriptedNet:
    """A network that ends in this object. The n-th attempt of a task at a URL gets the n-th answer
    scripted for it, later ones the last; without a script every attempt goes well."""

    def __init__(self) -> None:
        self.seen: list[CallbackRequest] = []
        self.cut: list[CallbackRequest] = []  # cancelled before they were answered
        self.in_flight = 0
        self._scripts: dict[str, tuple[Answer | Held, ...]] = {}
        self._let_go = trio.Event()
        self._seen_more = trio.Event()

    def script(self, url: str, *answers: Answer | Held) -> str:
        """What attempts at a URL are answered; gives the URL back."""
        self._scripts[url] = answers
        return url

    def let_go(self) -> None:
        """Answer everything that is held, now and from now on."""
        self._let_go.set()

    def attempts(self, task_id: TaskId) -> list[int]:
        """The attempts of a task that were seen."""
        return [
            int(request.headers["X-Task-Attempt"])
            for request in self.seen
            if request.headers["webhook-id"] == task_id
        ]

    async def wait_for_calls(self, count: int) -> None:
        """Return as soon as so many requests have been seen in all."""
        while len(self.seen) < count:
            await self._seen_more.wait()

    def open_caller(self) -> AbstractAsyncContextManager[Caller]:
        """One executor's way in."""
        return self._caller()

    @asynccontextmanager
    async def _caller(self) -> AsyncIterator[Caller]:
        await trio.lowlevel.checkpoint()
        yield self

    async def call(self, request: CallbackRequest) -> Answer:
        """Answer as scripted."""
        self.seen.append(request)
        self._seen_more.set()
        self._seen_more = trio.Event()
        self.in_flight += 1
        try:
            return await self._answer(request)
        except trio.Cancelled:
            self.cut.append(request)
            raise
        finally:
            self.in_flight -= 1

    async def _answer(self, request: CallbackRequest) -> Answer:
        await trio.lowlevel.checkpoint()
        answers = self._scripts.get(request.url, (FINE,))
        step = answers[min(int(request.headers["X-Task-Attempt"]), len(answers)) - 1]
        if isinstance(step, Answer):
            return step
        with trio.move_on_after(request.timeout_s):
            await self._let_go.wait()
            return step.answer
        return Answer(error_class=ErrorClass.TIMEOUT, error="no answer in time")


class FaultyStore:
    """A store in front of another: methods named in ``faults`` raise instead."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.faults: dict[str, Exception] = {}

    def __getattr__(self, name: str) -> Any:
        if name in self.faults:
            return self._fail
        return getattr(self._store, name)

    async def _fail(self, *_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise next(iter(self.faults.values()))


class FaultyStores:
    """Opens a ``FaultyStore``; what stands in ``faults`` goes wrong from then on."""

    def __init__(self, opener: StoreOpener) -> None:
        self._opener = opener
        self.faults: dict[str, Exception] = {}

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Store]:
        async with self._opener() as store:
            faulty = FaultyStore(store)
            faulty.faults = self.faults
            yield faulty
