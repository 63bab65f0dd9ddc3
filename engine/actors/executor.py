"""An executor: takes a task, calls its callback, stores what came of it; one hundred of them run.

The call is never inside a shield. Its result is: once the callback has answered, the result is
stored even while the engine stops, else the callback would be repeated for nothing.
"""

from __future__ import annotations

from functools import partial

import attrs
import trio

from engine.config import EngineConfig
from engine.core.callback import build_request
from engine.core.commands import Finish
from engine.core.destination import Report, report_of
from engine.core.outcome import Answer
from engine.core.redact import without_secrets
from engine.core.task import ErrorClass, Lane, Task, TaskId
from engine.errors import (
    ClaimLost,
    EngineStopping,
    Overloaded,
    StoreRejected,
    StoreUnavailable,
    TaskNotFound,
)
from engine.messages import Next, QueueMessage, RepositoryMessage, Request
from engine.ports.callback_net import CallbackNet, Caller
from engine.ports.clock import Clock
from engine.ports.rng import Rng
from engine.secret import PREFIX

from .mailbox import Inbox

_ERROR_MAX = 1_000  # characters of a crash that are kept


class InFlight:
    """The attempts that are running now, and how to cut one off."""

    def __init__(self) -> None:
        self._scopes: dict[TaskId, tuple[int, trio.CancelScope]] = {}
        self.late_results = 0  # results that came after somebody else had moved the task on

    def __len__(self) -> int:
        return len(self._scopes)

    def enter(self, task: Task, scope: trio.CancelScope) -> None:
        """An attempt begins."""
        self._scopes[task.id] = (task.attempt, scope)

    def task_ids(self) -> frozenset[TaskId]:
        """The tasks they belong to."""
        return frozenset(self._scopes)

    def leave(self, task: Task) -> None:
        """It has ended, and its result is stored."""
        if self._scopes.get(task.id, (0, None))[0] == task.attempt:
            del self._scopes[task.id]

    def moved_on(self, task: Task, attempt: int) -> None:
        """The stored task has left the attempt: if it still runs, cut it off."""
        running, scope = self._scopes.get(task.id, (0, None))
        if scope is not None and running <= attempt:
            scope.cancel(reason=f"task {task.id} is {task.status}")


@attrs.frozen
class ExecutorKit:
    """What all executors share."""

    queue: Inbox[QueueMessage]
    repository: Inbox[RepositoryMessage]
    net: CallbackNet
    clock: Clock
    rng: Rng
    config: EngineConfig
    in_flight: InFlight
    owner: str
    user_agent: str


async def executor(kit: ExecutorKit, *, task_status: trio.TaskStatus[None]) -> None:
    """Owns its connections. Asks the queue for a task, runs it, stores the result, again and
    again; each question tells how the attempt before it went. Stops when the queue drains; cut
    off, it puts its task back first."""
    async with kit.net.open_caller() as caller:
        task_status.started()
        seat, report = object(), None
        while True:
            question = partial(Next, Lane.RUN, owner=kit.owner, seat=seat, report=report)
            try:
                task = await kit.queue.ask(question)
            except EngineStopping:
                return
            except Overloaded:  # the question did not arrive, nor did the report
                await trio.sleep(kit.config.store_retry_s)
                continue
            except (ClaimLost, TaskNotFound):
                report = None
                continue
            except (StoreRejected, StoreUnavailable):
                report = None
                await trio.sleep(kit.config.store_retry_s)
                continue
            report = await _attempt(kit, caller, task)


async def _attempt(kit: ExecutorKit, caller: Caller, task: Task) -> Report:
    """One attempt and its record. Raises only when the executor itself is cut off."""
    started_at, began = kit.clock.now(), kit.clock.monotonic()
    answer = Answer(error_class=ErrorClass.INTERRUPTED, error="the server stopped")
    scope = trio.CancelScope()
    kit.in_flight.enter(task, scope)
    try:
        with scope:
            answer = await _call(kit, caller, task)
    finally:
        finish = Finish(
            task_id=task.id,
            owner=kit.owner,
            attempt=task.attempt,
            answer=_without_secrets(kit, task, answer),
            started_at=started_at,
            duration_s=kit.clock.monotonic() - began,
            jitter=kit.rng.random(),
        )
        moved_on = scope.cancelled_caught  # by somebody who has recorded how the attempt ended
        try:
            if not moved_on:
                await _store(kit, finish)  # noqa: ASYNC102 - it is its own shield, with a limit
        finally:
            kit.in_flight.leave(task)
    return report_of(finish.answer, finish.duration_s)


def _without_secrets(kit: ExecutorKit, task: Task, answer: Answer) -> Answer:
    """The answer as it may be kept: callees repeat what they got, credentials included."""
    ours = [secret.reveal().removeprefix(PREFIX) for secret in kit.config.signing_secrets]
    return without_secrets(answer, task.spec.headers, ours)


async def _store(kit: ExecutorKit, finish: Finish) -> None:
    """Store the result even if the executor is being cut off; but then not for ever. If nobody
    hurries us, keep the slot until the store has taken it."""
    with trio.move_on_after(kit.config.cleanup_timeout_s, shield=True) as bound:
        await _store_patiently(kit, finish)
    if bound.cancelled_caught:
        await _store_patiently(kit, finish, again=True)


async def _call(kit: ExecutorKit, caller: Caller, task: Task) -> Answer:
    span_id = f"{kit.rng.getrandbits(64):016x}"
    try:
        secrets = kit.config.signing_secrets
        request = build_request(task, kit.clock.now(), span_id, kit.user_agent, secrets=secrets)
        # The caller keeps to the timeout. Should it not, the attempt must still end, because its
        # lease is renewed as long as it is in flight.
        with trio.move_on_after(request.timeout_s + kit.config.lease_margin_s):
            return await caller.call(request)
    except Exception as error:  # noqa: BLE001 - one task's trouble must not end the others
        words = f"{type(error).__name__}: {error}"[:_ERROR_MAX]
        return Answer(error_class=ErrorClass.CRASHED, error=words)
    return Answer(error_class=ErrorClass.CRASHED, error="the call did not end at its timeout")


async def _store_patiently(kit: ExecutorKit, finish: Finish, *, again: bool = False) -> None:
    """Store the result, however long the store needs. A late result changes nothing; one that is
    sent ``again`` may only seem late, because it was stored the first time."""
    while True:
        try:
            await kit.repository.ask(partial(Request, finish))
        except (ClaimLost, TaskNotFound):
            kit.in_flight.late_results += not again
            return
        except EngineStopping:
            return
        except StoreRejected:  # for the words in it, perhaps: keep the verdict alone
            bare = _without_words(finish)
            if bare == finish:
                return  # its lease will end
            finish = bare
        except (Overloaded, StoreUnavailable):
            await trio.sleep(kit.config.store_retry_s)
        else:
            return


def _without_words(finish: Finish) -> Finish:
    error = "what went wrong cannot be stored" if finish.answer.error is not None else None
    return attrs.evolve(finish, answer=attrs.evolve(finish.answer, body=b"", error=error))
