"""Asking and telling: an actor's inbox, and the one-shot reply to a question.

The runtime opens every inbox and closes it when all who may write to it have ended. That is why
nobody here clones channels: there is one owner.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Generic, TypeVar

import outcome
import trio

from engine.errors import EngineStopping, Overloaded

M = TypeVar("M")
R = TypeVar("R")


class Reply(Generic[R]):
    """One answer to one question. Answering never blocks; the asker may have gone."""

    __slots__ = ("_receive", "_send")

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[outcome.Outcome[R]](1)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._send.statistics().open_receive_channels == 0

    def answer(self, value: R) -> None:
        """Answer, unless nobody waits."""
        self._put(outcome.Value(value))

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless nobody waits."""
        self._put(outcome.Error(error))

    async def wait(self) -> R:
        """The answer, or the error given as the answer. ``EngineStopping`` if the one asked
        ended without answering."""
        with self._receive:
            try:
                answer = await self._receive.receive()
            except trio.EndOfChannel:
                raise EngineStopping from None
        return answer.unwrap()

    def _put(self, answer: outcome.Outcome[R]) -> None:
        with self._send:
            # The asker was cancelled, or has been answered: the first answer counts.
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                self._send.send_nowait(answer)


class Inbox(Generic[M]):
    """An actor's inbox: bounded, written to by many, read by its actor alone."""

    def __init__(self, name: str, capacity: float) -> None:
        self._name = name
        self._send, self._receive = trio.open_memory_channel[M](capacity)

    def __repr__(self) -> str:
        return f"<Inbox {self._name} {len(self)}>"

    def __len__(self) -> int:
        return self._send.statistics().current_buffer_used

    def tell(self, message: M) -> None:
        """Put a message in; raises ``Overloaded`` if there is no room."""
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            raise Overloaded(f"the {self._name} is overloaded") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise EngineStopping from None

    async def ask(self, question: Callable[[Reply[R]], M]) -> R:
        """Put a question in and wait for its answer."""
        reply: Reply[R] = Reply()
        self.tell(question(reply))
        return await reply.wait()

    async def receive(self) -> M:
        """The next message; raises ``trio.EndOfChannel`` when closed and empty."""
        return await self._receive.receive()

    def receive_nowait(self, most: float = math.inf) -> list[M]:
        """What is there now, at most ``most``."""
        messages: list[M] = []
        try:
            while len(messages) < most:
                messages.append(self._receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            pass
        return messages

    def close(self) -> None:
        """Nothing more will be told. What is in it can still be received."""
        self._send.close()

    def abandon(self) -> None:
        """The actor reads no more."""
        self._receive.close()
