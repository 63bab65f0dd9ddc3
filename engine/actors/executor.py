"""An executor: takes a task, calls its callback, stores what came of it; one hundred of them run.

The call is never inside a shield. Its result is: once the callback has answered, the result is
stored even while the engine stops, else the callback would be repeated for nothing.

An executor asks for its next task as soon as its result lies in the repository's inbox, not when
it is stored. The claim of the next task then lies right behind the result, as a rule in the same
transaction: one commit between two callbacks, not two. It does not begin the next one before the
result is stored; if storing fails, it gives the claim up.

So that a commit does not leave room for calls unused, there are more executors than calls that may
be in flight (``CallSlots``): while one stores its result, another that has its task already calls.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from datetime import datetime

import attrs
import trio

from engine.config import EngineConfig
from engine.core.callback import build_request
from engine.core.commands import Finish, never_began
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
    TaskDamaged,
    TaskNotFound,
)
from engine.messages import Next, QueueMessage, RepositoryMessage, Request
from engine.ports.callback_net import CallbackNet, Caller
from engine.ports.clock import Clock
from engine.ports.rng import Rng
from engine.secret import PREFIX

from .mailbox import Inbox, Reply
from .slots import CallSlots

_ERROR_MAX = 1_000  # characters of a crash that are kept
_CUT_OFF = Answer(error_class=ErrorClass.INTERRUPTED, error="the server stopped")
_ENDLESS = Answer(error_class=ErrorClass.TIMEOUT, error="the call did not end at its timeout")


class InFlight:
    """The attempts that are running now, and how to cut one off."""

    def __init__(self) -> None:
        # The attempt, and what cuts its call off while that lasts.
        self._scopes: dict[TaskId, tuple[int, trio.CancelScope | None]] = {}
        self.late_results = 0  # results that came after somebody else had moved the task on

    def __len__(self) -> int:
        return len(self._scopes)

    def enter(self, task: Task, scope: trio.CancelScope) -> None:
        """An attempt begins."""
        self._scopes[task.id] = (task.attempt, scope)

    def task_ids(self) -> frozenset[TaskId]:
        """The tasks they belong to."""
        return frozenset(self._scopes)

    def called(self, task: Task) -> None:
        """Its call has ended: there is nothing left to cut off."""
        if self._scopes.get(task.id, (0, None))[0] == task.attempt:
            self._scopes[task.id] = (task.attempt, None)

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
    secrets: tuple[str, ...] = attrs.field(init=False, repr=False)  # as a callee may repeat them

    slots: CallSlots = attrs.field(init=False)

    @slots.default
    def _one_for_each_executor(self) -> CallSlots:
        return CallSlots(self.config.executors)

    @secrets.default
    def _reveal(self) -> tuple[str, ...]:
        return tuple(s.reveal().removeprefix(PREFIX) for s in self.config.signing_secrets)


async def executor(kit: ExecutorKit, *, task_status: trio.TaskStatus[None]) -> None:
    """Owns its connections. Asks the queue for a task, runs it, stores the result, again and
    again; each question tells how the attempt before it went. Stops when the queue drains; cut
    off, it puts its task back first."""
    async with kit.net.open_caller() as caller:
        task_status.started()
        seat = _Seat(kit)
        while True:
            try:
                task = await seat.next()
            except EngineStopping:
                return
            except (ClaimLost, TaskDamaged, TaskNotFound):
                continue
            except (Overloaded, StoreRejected, StoreUnavailable):
                await trio.sleep(kit.config.store_retry_s)
            else:
                await _attempt(kit, caller, seat, task)


class _Seat:
    """An executor's place in the queue: the open question for its next task, and what it has to
    tell of the last one."""

    def __init__(self, kit: ExecutorKit) -> None:
        self._kit = kit
        self._asked: Reply[Task] | None = None
        self.report: Report | None = None

    def ask(self) -> None:
        """Ask for the next task, without waiting for it. Raises ``Overloaded``; then nothing has
        been told."""
        self._asked = self._question()

    async def next(self) -> Task:
        """The next task, which is claimed; asks for it if that was not done. Raises what the queue
        or the repository says instead, or what ``ask`` raises."""
        asked, self._asked = self._asked or self._question(), None
        return await asked.wait()

    def withdraw(self) -> Task | None:
        """Want no task any more; the one that has been claimed already, if any."""
        asked, self._asked = self._asked, None
        return None if asked is None else asked.withdraw()

    def _question(self) -> Reply[Task]:
        reply: Reply[Task] = Reply()
        question = Next(Lane.RUN, reply, self._kit.owner, seat=self, report=self.report)
        self._kit.queue.tell(question)
        self.report = None
        return reply


class _Result:
    """What came of an attempt, on its way into the store."""

    def __init__(self, kit: ExecutorKit, finish: Finish, *, called: bool = True) -> None:
        self._kit = kit
        self._finish = finish
        self._called = called
        self._told: Reply[Task] | None = None  # the question to the repository that is open
        self._pause_s = 0.0  # before it is told again

    def tell(self) -> bool:
        """Put it into the repository's inbox; whether it lies there."""
        told: Reply[Task] = Reply()  # not Reply[Task](), which takes a microsecond
        self._told = told
        try:
            self._kit.repository.tell(Request(self._finish, told))
        except Overloaded as refused:
            told.fail(refused)
            return False
        return True

    async def is_settled(self) -> bool:
        """Whether nothing is left to do, as soon as the repository has said so. A late result
        changes nothing."""
        if self._told is None:
            return False
        try:
            await self._told.wait()
        except (ClaimLost, TaskDamaged, TaskNotFound):
            self._kit.in_flight.late_results += self._called
        except EngineStopping:
            pass
        except (Overloaded, StoreUnavailable):
            self._told, self._pause_s = None, self._kit.config.store_retry_s
            return False
        except StoreRejected:  # for the words in it, perhaps: keep the verdict alone
            bare = _without_words(self._finish)
            if bare != self._finish:  # else its lease will end
                self._finish, self._told, self._pause_s = bare, None, 0.0
                return False
        return True

    async def settle(self) -> None:
        """Store it, however long the store needs."""
        while not await self.is_settled():
            await trio.sleep(self._pause_s)
            self.tell()


async def _attempt(kit: ExecutorKit, caller: Caller, seat: _Seat, task: Task) -> None:
    """One attempt and its record. Raises only when the executor itself is cut off."""
    began: _Beginning | None = None
    answer, cut_off = _CUT_OFF, True
    scope = trio.CancelScope()
    kit.in_flight.enter(task, scope)
    try:
        with scope:
            if _lease_lasts(task, kit.clock.now()):
                async with kit.slots:  # claims run ahead of calls
                    began = _Beginning(kit.clock.now(), kit.clock.monotonic())
                    # The caller keeps to the timeout. Should it not, the attempt must still end,
                    # because its lease is renewed as long as it is in flight.
                    limit_s = task.spec.timeout_s + kit.config.lease_margin_s
                    scope.deadline = trio.current_time() + limit_s
                    answer = await _call(kit, caller, task, began.at)
        cut_off = False
    finally:
        kit.in_flight.called(task)
        moved_on = scope.cancelled_caught  # by somebody who has recorded how the attempt ended
        if moved_on and trio.current_time() >= scope.deadline:
            moved_on, answer = False, _ENDLESS
        finish = _finish(kit, task, began, answer)
        if began is not None:
            seat.report = report_of(finish.answer, finish.duration_s)
        try:
            if not moved_on:
                result = _Result(kit, finish, called=began is not None)
                await _store(kit, seat, result, cut_off=cut_off)  # noqa: ASYNC102 - its own shield
        finally:
            kit.in_flight.leave(task)


def _lease_lasts(task: Task, now: datetime) -> bool:
    """Whether the attempt is still ours. A store that answers a claim later than its lease ends may
    have given the task to somebody else by then."""
    return task.expires_at is None or now < task.expires_at


@attrs.frozen
class _Beginning:
    """When a call began."""

    at: datetime
    monotonic_s: float


def _finish(kit: ExecutorKit, task: Task, began: _Beginning | None, answer: Answer) -> Finish:
    if began is None:
        return never_began(task, kit.owner)
    return Finish(
        task_id=task.id,
        owner=kit.owner,
        attempt=task.attempt,
        answer=without_secrets(answer, task.spec.headers, kit.secrets),
        started_at=began.at,
        duration_s=kit.clock.monotonic() - began.monotonic_s,
        jitter=kit.rng.random(),
    )


async def _call(kit: ExecutorKit, caller: Caller, task: Task, now: datetime) -> Answer:
    span_id = f"{kit.rng.getrandbits(64):016x}"
    try:
        secrets = kit.config.signing_secrets
        request = build_request(task, now, span_id, kit.user_agent, secrets=secrets)
        return await caller.call(request)
    except Exception as error:  # noqa: BLE001 - one task's trouble must not end the others
        words = f"{type(error).__name__}: {error}"[:_ERROR_MAX]
        return Answer(error_class=ErrorClass.CRASHED, error=words)


async def _store(kit: ExecutorKit, seat: _Seat, result: _Result, *, cut_off: bool) -> None:
    """Store the result, and ask for the next task behind it. If the executor is being cut off, or
    the store is in trouble, the result alone matters."""
    if result.tell() and not cut_off:
        with suppress(Overloaded):  # the executor will ask again
            seat.ask()
    stored = False
    try:
        stored = await result.is_settled()
    finally:
        if not stored:
            await _insist(kit, seat, result)  # noqa: ASYNC102 - its own shield, with a limit


async def _insist(kit: ExecutorKit, seat: _Seat, result: _Result) -> None:
    """Store the result even if the executor is being cut off; but then not for ever. If nobody
    hurries us, keep the slot until the store has taken it. The next task, if there is one, is not
    begun: its lease may end, or somebody cancel it, while this lasts."""
    results = deque([result])
    if (claimed := seat.withdraw()) is not None:
        results.append(_Result(kit, never_began(claimed, kit.owner), called=False))
    with trio.move_on_after(kit.config.cleanup_timeout_s, shield=True):
        await _settle_all(results)
    await _settle_all(results)


async def _settle_all(results: deque[_Result]) -> None:
    while results:
        await results[0].settle()
        results.popleft()


def _without_words(finish: Finish) -> Finish:
    error = "what went wrong cannot be stored" if finish.answer.error is not None else None
    return attrs.evolve(finish, answer=attrs.evolve(finish.answer, body=b"", error=error))
