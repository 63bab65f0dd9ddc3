"""Asking and telling: an actor's inbox, and the one-shot reply to a question.

The runtime opens every inbox and closes it when all who may write to it have ended. That is why
nobody here clones channels: there is one owner.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import trio

from engine.errors import EngineStopping, Overloaded

M = TypeVar("M")
R = TypeVar("R")


class Reply(Generic[R]):
    """One answer to one question. Answering never blocks; the asker may have gone.

    One task waits for it. If that was cancelled, it may wait once more, but whoever answers has
    been told meanwhile that nobody does.
    """

    __slots__ = ("_answered", "_asker", "_error", "_value", "abandoned")

    def __init__(self) -> None:
        self._answered = False
        self._value: R | None = None
        self._error: Exception | None = None
        self._asker: trio.lowlevel.Task | None = None
        self.abandoned = False  # whether nobody waits for the answer any more

    def answer(self, value: R) -> None:
        """Answer. Only the first answer counts."""
        if not self._answered:
            self._value = value
            self._wake()

    def fail(self, error: Exception) -> None:
        """Answer with an error. Only the first answer counts."""
        if not self._answered:
            self._error = error
            self._wake()

    async def wait(self) -> R:
        """The answer, or the error given as the answer. Not a checkpoint if it is there already:
        so a cancellation cannot come between an answer and who needs it."""
        if not self._answered:
            self._asker = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
        if self._error is not None:
            raise self._error
        return cast("R", self._value)

    def withdraw(self) -> R | None:
        """Wait no longer; the answer, if one has come that is not an error."""
        self.abandoned = True
        return self._value

    def _leave(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._asker, self.abandoned = None, True
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self) -> None:
        self._answered = True
        if self._asker is not None:
            trio.lowlevel.reschedule(self._asker)
            self._asker = None


class Inbox(Generic[M]):
    """An actor's inbox: bounded, written to by many, read by its actor alone.

    What is told while the actor is busy gathers in one batch, and the channel carries batches: one
    turn of the loop for all that came, and no more work for each message than a list needs.
    """

    def __init__(self, name: str, capacity: float) -> None:
        self._name = name
        self._capacity = capacity
        self._send, self._receive = trio.open_memory_channel[deque[M]](1)
        self._messages: deque[M] = deque()  # the batch: it grows until it is read
        self._closed = False

    def __repr__(self) -> str:
        return f"<Inbox {self._name} {len(self)}>"

    def __len__(self) -> int:
        return len(self._messages)

    def tell(self, message: M) -> None:
        """Put a message in; raises ``Overloaded`` if there is no room."""
        if self._closed:
            raise EngineStopping
        if len(self._messages) >= self._capacity:
            raise Overloaded(f"the {self._name} is overloaded")
        self._messages.append(message)
        if len(self._messages) == 1:
            with contextlib.suppress(trio.WouldBlock):  # it was told, and has not looked yet
                self._send.send_nowait(self._messages)

    async def ask(self, question: Callable[[Reply[R]], M]) -> R:
        """Put a question in and wait for its answer."""
        reply: Reply[R] = Reply()
        self.tell(question(reply))
        return await reply.wait()

    async def receive(self) -> M:
        """The next message; raises ``trio.EndOfChannel`` when closed and empty. A checkpoint."""
        if self._messages:
            await trio.lowlevel.checkpoint()
        while not self._messages:
            await self._receive.receive()
        return self._messages.popleft()

    def receive_nowait(self, most: float = math.inf) -> list[M]:
        """What is there now, at most ``most``."""
        if most >= len(self._messages):
            messages = list(self._messages)
            self._messages.clear()
            return messages
        return [self._messages.popleft() for _ in range(int(most))]

    def close(self) -> None:
        """Nothing more will be told. What is in it can still be received."""
        self._closed = True
        self._send.close()

    def abandon(self) -> None:
        """The actor reads no more."""
        self._closed = True
        self._receive.close()
