"""The repository actor: the only one that changes stored tasks.

It takes whatever is in its inbox, applies it in one transaction, answers everybody, and then tells
others what has become durable. While one transaction is being written to disk the next batch
gathers, so many small changes share one fsync without anybody waiting on purpose.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import attrs
import trio

from engine.config import EngineConfig
from engine.core.batch import Batch, Records
from engine.core.changes import Changes
from engine.core.commands import AnyCommand, Claim, Create, Finish, Release, Take, never_began
from engine.core.task import Attempt, Event, Task, TaskId
from engine.errors import (
    ClaimLost,
    EngineError,
    EngineStopping,
    StoreConflict,
    StoreError,
    StoreUnavailable,
    TaskDamaged,
)
from engine.messages import RepositoryMessage, Request
from engine.ports.clock import Clock
from engine.ports.store import Store

from .mailbox import Inbox, Reply

_ANSWER_BYTES_MAX = 2**20  # of callbacks' answers in one transaction, where there is a choice
_CONFLICT_TRIES = 5
_TRUSTED_AFTER_S = 2.0  # without trouble
_log = logging.getLogger("ringback.repository")


@attrs.frozen
class Applied:
    """What one transaction made durable."""

    tasks: tuple[Task, ...]
    events: tuple[Event, ...]
    attempts: tuple[Attempt, ...]


class Announcer(Protocol):
    """Told after every commit. Must not block or raise."""

    def __call__(self, applied: Applied) -> None:
        """These changes are durable."""
        ...

    def lost_track(self, rest_s: float) -> None:
        """A transaction failed: tasks that were to be claimed still wait in the store, which should
        be left alone for so long."""
        ...


class Repository:
    """Owns the store's write side. Receives ``Request``s; answers each; announces what is durable.
    Stops when its inbox is closed and empty."""

    def __init__(
        self,
        inbox: Inbox[RepositoryMessage],
        store: Store,
        clock: Clock,
        config: EngineConfig,
        announce: Announcer,
    ) -> None:
        self._inbox = inbox
        self._store = store
        self._clock = clock
        self._config = config
        self._announce = announce
        self.commits = 0
        self.store_error: StoreUnavailable | None = None  # what transactions have met of late
        self._failed_at = 0.0

    async def run(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        """Serve until the inbox ends. It outlives cancellation, because those who are being
        cancelled still have results to store: only ``task_status``'s scope can end it early."""
        # A start that is being cancelled would wait for us behind our shield for ever.
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True) as scope:
            task_status.started(scope)
            serving: list[RepositoryMessage] = []
            try:
                while True:
                    serving = [await self._inbox.receive()]
                    # Behind a result comes the claim of who handed it in, by way of the queue.
                    await trio.lowlevel.checkpoint()
                    serving += self._inbox.receive_nowait(self._config.commit_batch - 1)
                    for part in _parts(serving):
                        await self._serve(part)
                    serving = []
            except trio.EndOfChannel:
                pass
            finally:  # ended early: nobody may wait for an answer that will not come
                for request in (*serving, *self._inbox.receive_nowait()):
                    request.reply.fail(EngineStopping())
                self._inbox.abandon()

    async def _serve(self, requests: Sequence[RepositoryMessage]) -> None:
        try:
            applied, results = await self._commit(requests)
        except StoreUnavailable as error:
            self._note(error)
            for request in requests:
                request.reply.fail(error)
            # The queue has let go of tasks it wanted claimed.
            self._announce.lost_track(self._config.store_retry_s)
            return
        except StoreError as error:
            if len(requests) == 1:
                requests[0].reply.fail(error)
                self._announce.lost_track(0.0)
                return
            for request in requests:  # one of them is at fault: it must not sink the others
                await self._serve([request])
            return
        self._note(None)
        self.commits += 1
        now_is = {task.id: task.version for task in applied.tasks}
        given_back: list[RepositoryMessage] = []
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, EngineError):
                request.reply.fail(result)
            elif isinstance(request.command, Claim) and now_is[result.id] != result.version:
                request.reply.fail(ClaimLost(result.id))  # cancelled in this same transaction
            else:
                if request.reply.abandoned:
                    given_back += _giving_back(request.command, result)
                request.reply.answer(result)
        self._announce(applied)
        if given_back:  # not through the inbox: it may be full or closed
            await self._serve(given_back)

    async def _commit(self, requests: Sequence[RepositoryMessage]) -> tuple[Applied, list[Any]]:
        for _ in range(_CONFLICT_TRIES):
            with contextlib.suppress(StoreConflict):
                now = self._clock.now()  # here, because the transaction may run in another thread
                return await self._store.transact(partial(self._apply, requests, now))
        raise StoreUnavailable("others keep changing the same tasks")

    def _note(self, error: StoreUnavailable | None) -> None:
        now = self._clock.monotonic()
        if error is not None:
            if self.store_error is None:
                _log.error("the store does not answer: %s", error)
            self.store_error, self._failed_at = error, now
        # On a full disk, what only reads or writes little succeeds between what fails.
        elif self.store_error is not None and now >= self._failed_at + _TRUSTED_AFTER_S:
            _log.warning("the store answers again")
            self.store_error = None

    def _apply(
        self, requests: Sequence[RepositoryMessage], now: datetime, records: Records
    ) -> tuple[Applied, list[Any]]:
        """Runs inside the transaction, perhaps in another thread."""
        batch = Batch(records)
        batch.prefetch(_named(requests))
        changes = Changes(batch, self._config, now)
        results = [self._outcome(changes, request) for request in requests]
        batch.flush()
        applied = Applied(tuple(batch.changed.values()), tuple(batch.events), tuple(batch.attempts))
        return applied, results

    def _outcome(self, changes: Changes, request: RepositoryMessage) -> Any:
        """The command's result, or the ``EngineError`` that refuses it."""
        try:
            return changes.apply(request.command)
        except TaskDamaged as refused:
            return refused
        except StoreError:
            raise
        except EngineError as refused:
            return refused


def _parts(requests: Sequence[RepositoryMessage]) -> Iterator[Sequence[RepositoryMessage]]:
    """Cut them where they hold too much of callees' answers: until it is written, an answer is in
    memory up to ten times over, as bytes, text and JSON, in a task and in its attempt."""
    part: list[RepositoryMessage] = []
    size = 0
    for request in requests:
        if isinstance(request.command, Finish):
            size += (own := len(request.command.answer.body))
            if size > _ANSWER_BYTES_MAX and part:
                yield part
                part, size = [], own
        part.append(request)
    yield part


def _named(requests: Iterable[RepositoryMessage]) -> set[TaskId]:
    """The stored tasks that commands are about; not those that are only just created."""
    named: set[TaskId] = set()
    new: set[TaskId] = set()
    for request in requests:
        if isinstance(request.command, Create):
            new.update(task_id for task_id, _ in request.command.tasks)
        elif (task_id := getattr(request.command, "task_id", None)) is not None:
            named.add(task_id)
    return named - new


def _giving_back(command: AnyCommand, result: Any) -> list[RepositoryMessage]:
    """Whoever wanted this task was cancelled while it was being claimed: nobody will run it."""
    match command:
        case Take(task_id=task_id):
            return [Request(Release(task_id), Reply())]
        case Claim(owner=owner):
            return [Request(never_began(result, owner), Reply())]
        case _:
            return []
