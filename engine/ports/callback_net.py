"""The network on which callbacks are made, as a port."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from engine.core.callback import CallbackRequest
from engine.core.outcome import Answer


class Caller(Protocol):
    """One executor's own connections. Used by one task at a time."""

    async def call(self, request: CallbackRequest) -> Answer:
        """Make the request and say what came of it.

        Sends exactly the request's bytes, once; never follows a redirect; reads at most the cap of
        the body and then stops (``truncated``). Whatever the other side does is an ``Answer``, also
        a URL that cannot be called: only bugs raise. Ends within ``request.timeout_s``; cancelling
        it closes the connection. Header names in the answer are lower case.
        """
        ...


class CallbackNet(Protocol):
    """Opens callers."""

    def open_caller(self) -> AbstractAsyncContextManager[Caller]:
        """A caller with connections of its own, closed at the end of the block."""
        ...
