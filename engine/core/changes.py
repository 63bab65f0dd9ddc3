"""What each command does to the records. Decides and collects; the batch writes.

Every function validates before it changes anything, so a refused command leaves no trace in the
transaction it shares with others.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, assert_never

import attrs

from engine.errors import (
    ClaimLost,
    IdempotencyConflict,
    IllegalTransition,
    NotTakeable,
    Overloaded,
    VersionMismatch,
)

from .commands import (
    AnyCommand,
    Cancel,
    Claim,
    Create,
    Created,
    Execute,
    Finish,
    Prune,
    Receipt,
    Recover,
    Refill,
    Release,
    Retry,
    StoredAnswer,
    Sweep,
    Take,
    Update,
)
from .entries import Page, Reading, Side
from .lifecycle import TRANSITIONS, WAITING, Trigger, advance
from .moves import Moves
from .outcome import Answer, Verdict, classify, retry_after_s
from .retry import GiveUp, decide
from .task import (
    Dispatch,
    ErrorClass,
    Lane,
    Status,
    Task,
    TaskSpec,
    Wait,
    evolved,
)
from .times import rfc3339


class Changes(Moves):
    """Applies commands to one batch at one moment."""

    def apply(self, command: AnyCommand) -> Any:
        """The command's result; raises an ``EngineError`` if it is refused."""
        match command:
            case Create():  # the most frequent ones first: each case costs
                return self._create(command)
            case Claim():
                return self._claim(command)
            case Finish():
                return self._finish(command)
            case Take():
                return self._take(command)
            case Execute():
                return self._execute(command)
            case Release(task_id=task_id):
                return self.move(self._batch.task(task_id), Trigger.RELEASE, reason="released")
            case Cancel():
                return self._cancel(command)
            case Retry(task_id=task_id):
                return self._retry(self._batch.task(task_id))
            case Update():
                return self._update(command)
            case Sweep():
                return self._sweep(command)
            case Recover():
                return self._recover(command)
            case Refill():
                return self._refill(command)
            case Prune(limit=limit):
                return self._prune(limit)
            case _:
                assert_never(command)

    # -- accepting ---------------------------------------------------------------------------

    def _create(self, command: Create) -> Created:
        key = command.key
        if key is not None:
            since = self._now - timedelta(seconds=self._config.idempotency_s)
            known = self._batch.answer(key.hash, since)
            if known is not None:
                if known.key.fingerprint != key.fingerprint:
                    raise IdempotencyConflict
                return Created(known.receipts, replayed=True)
        waiting = sum(self._batch.count(status) for status in WAITING)
        if waiting + len(command.tasks) > self._config.queue_max:
            raise Overloaded(f"the queue holds {waiting} tasks and has no room", 5.0)
        for task_id, spec in command.tasks:
            self._accept(task_id, spec)
        receipts = tuple(Receipt(task_id, self._now) for task_id, _ in command.tasks)
        if key is not None:
            self._batch.answered(StoredAnswer(key, receipts, self._now))
        return Created(receipts)

    def _accept(self, task_id: str, spec: TaskSpec) -> None:
        due_at = spec.run_at or self._now
        if spec.delay_s is not None:
            due_at = self._now + timedelta(seconds=spec.delay_s)
        if spec.dispatch is None:
            spec = evolved(spec, dispatch=Dispatch(self._config.dispatch))
        due_at = max(due_at, self._now)
        key = spec.partition_key
        blocked = key is not None and self._batch.flushed().holder(key) is not None
        task = Task(
            id=task_id,
            spec=spec,
            status=Status.QUEUED,
            version=1,
            created_at=self._now,
            updated_at=self._now,
            due_at=due_at,
            rank=self.rank(spec, due_at),
            **self.place(Status.QUEUED, spec, due_at, blocked=blocked),
        )
        self._batch.add(task)
        self.log(task, None)

    # -- taking ------------------------------------------------------------------------------

    def _take(self, command: Take) -> Task:
        task = self._batch.task(command.task_id)
        advance(task, Trigger.DEQUEUE)
        if task.lane is Lane.RUN:
            raise NotTakeable(task.id, "its dispatch is auto, the engine's executors take it")
        if not self._is_free(task):
            self._batch.show(task)
            raise NotTakeable(task.id, self._why_not_free(task))
        lease_end = self._now + timedelta(seconds=command.lease_s)
        return self.move(task, Trigger.DEQUEUE, expires_at=lease_end)

    def _is_free(self, task: Task) -> bool:
        """Whether nothing keeps a waiting task from being taken. One that has become ready stays
        so when the clock is set back: the store gives it out as ready, again and again."""
        return task.wait is Wait.READY or (
            task.wait is not Wait.BLOCKED and task.due_at <= self._now
        )

    def _why_not_free(self, task: Task) -> str:
        if task.wait is Wait.BLOCKED and task.spec.partition_key is not None:
            behind = self._batch.flushed().holder(task.spec.partition_key)
            return f"it waits for task {behind} of the same partition key"
        return f"it is not due before {rfc3339(task.due_at)}"

    def _execute(self, command: Execute) -> Task:
        task = self._batch.task(command.task_id)
        advance(task, Trigger.EXECUTE)
        if task.status is not Status.PENDING or task.lane is not None:
            allowed = [name for name in TRANSITIONS[task.status] if name is not Trigger.EXECUTE]
            raise IllegalTransition(task.id, task.status, "execute again", allowed)
        rank = self.rank(task.spec, self._now)
        return self.put(
            task,
            lane=Lane.RUN,
            wait=Wait.READY,
            expires_at=task.spec.deadline,
            due_at=self._now,
            rank=rank,
        )

    def _claim(self, command: Claim) -> Task:
        task = self._batch.task(command.task_id)
        if task.lane is not Lane.RUN or not self._is_free(task):
            self._batch.show(task)
            raise ClaimLost(task.id)
        if task.status is Status.QUEUED:
            task = self.passing(task, Trigger.DEQUEUE)
        return self.move(
            task,
            Trigger.EXECUTE,
            owner=command.owner,
            attempt=task.attempt + 1,
            executed_at=self._now,
            expires_at=self._lease_end(task),
        )

    def _lease_end(self, task: Task) -> datetime:
        seconds = task.spec.timeout_s + self._config.lease_margin_s
        return self._now + timedelta(seconds=seconds)

    # -- ending an attempt -------------------------------------------------------------------

    def _finish(self, command: Finish) -> Task:
        task = self._batch.task(command.task_id)
        if (task.status, task.owner, task.attempt) != (
            Status.PROCESSING,
            command.owner,
            command.attempt,
        ):
            raise ClaimLost(task.id)
        verdict = classify(command.answer)
        counted = verdict is not Verdict.UNCOUNTED
        self.log_attempt(task, command.answer, command.started_at, command.duration_s, counted)
        result = command.answer.result
        if verdict is Verdict.SUCCESS:
            return self.move(task, Trigger.SUCCEED, recoveries=0, result=result)
        failures = task.failures + counted
        changed: dict[str, Any] = {"result": result, "failures": failures}
        if counted:  # else nobody can say that it would not have ended the process
            changed["recoveries"] = 0
        decision = decide(
            task.spec.retry_policy,
            failures,
            verdict,
            asked_s=retry_after_s(command.answer, self._now),
            asked_max_s=self._config.retry_after_max_s,
            jitter=command.jitter,
        )
        error = result.error
        if isinstance(decision, GiveUp):
            reason = f"{decision.reason}: {error}"
            return self.move(task, Trigger.GIVE_UP, reason=reason, **changed)
        due_at = self._now + timedelta(seconds=decision.seconds)
        if task.spec.deadline is not None and due_at >= task.spec.deadline:
            reason = f"the deadline leaves no time for another attempt: {error}"
            return self.move(task, Trigger.GIVE_UP, reason=reason, **changed)
        trigger = Trigger.FAIL_FOR_NOW if counted else Trigger.LOSE
        return self.move(task, trigger, due_at=due_at, reason=error, **changed)

    def _lost(self, task: Task, why: str) -> Task:
        """Nobody will tell how this attempt ended: repeat it, unless it may be what kills us."""
        answer = Answer(error_class=ErrorClass.LOST, error=why)
        began = task.executed_at or self._now
        self.log_attempt(task, answer, began, (self._now - began).total_seconds(), counted=False)
        recoveries = task.recoveries + 1
        changed: dict[str, Any] = {"recoveries": recoveries, "result": answer.result}
        if recoveries >= self._config.recoveries_max:
            reason = f"{recoveries} attempts in a row were lost: {why}"
            return self.move(task, Trigger.GIVE_UP, reason=reason, **changed)
        return self.move(task, Trigger.LOSE, due_at=self._now, reason=why, **changed)

    # -- by people ---------------------------------------------------------------------------

    def _cancel(self, command: Cancel) -> Task:
        task = self._versioned(command.task_id, command.if_version)
        advance(task, Trigger.CANCEL)
        result = task.result
        if task.status is Status.PROCESSING:
            if not command.in_flight:
                raise IllegalTransition(task.id, task.status, "cancel", ["cancel in flight"])
            answer = Answer(error_class=ErrorClass.CANCELLED, error="cancelled in flight")
            began = task.executed_at or self._now
            duration_s = (self._now - began).total_seconds()
            self.log_attempt(task, answer, began, duration_s, counted=False)
            result = answer.result
        return self.move(task, Trigger.CANCEL, reason="cancelled by a client", result=result)

    def _retry(self, task: Task) -> Task:
        advance(task, Trigger.RETRY)
        key = task.spec.partition_key
        blocked = key is not None and self._batch.flushed().holder(key) is not None
        return self.move(
            task,
            Trigger.RETRY,
            due_at=self._now,
            reason="another round was asked for",
            blocked=blocked,
            failures=0,
            recoveries=0,
            completed_at=None,
        )

    def _update(self, command: Update) -> Task:
        task = self._versioned(command.task_id, command.if_version)
        if task.status not in (Status.QUEUED, Status.PENDING):
            raise IllegalTransition(task.id, task.status, "update", list(TRANSITIONS[task.status]))
        spec = attrs.evolve(task.spec, **command.changes)
        if "run_at" in command.changes:
            spec = attrs.evolve(spec, delay_s=None)
        spec.check()
        due_at = task.due_at
        if "run_at" in command.changes:
            due_at = max(spec.run_at or self._now, self._now)
        wait = task.wait
        if wait in (Wait.READY, Wait.SCHEDULED):
            wait = Wait.SCHEDULED if due_at > self._now else Wait.READY
        rank = self.rank(spec, due_at)
        return self.put(task, spec=spec, due_at=due_at, rank=rank, wait=wait)

    def _versioned(self, task_id: str, version: int | None) -> Task:
        task = self._batch.task(task_id)
        if version is not None and version != task.version:
            raise VersionMismatch(task_id, version, task.version)
        return task

    # -- by the clock ------------------------------------------------------------------------

    def _sweep(self, command: Sweep) -> int:
        expired = self._batch.flushed().expired(self._now, command.limit)
        found = [self._batch.adopt(task).id for task in expired]
        for task in map(self._batch.task, found):  # as it is now: one end may unblock another
            if task.status is Status.PENDING and task.lane is None:
                self.move(task, Trigger.LEASE_EXPIRED, reason="the client's lease ended")
            elif task.status is Status.PENDING:  # it was to run, and had to wait too long
                queued = self.move(task, Trigger.LEASE_EXPIRED, reason="its deadline passed")
                self.move(queued, Trigger.EXPIRE, reason="its deadline passed")
            elif task.status is not Status.PROCESSING:
                self.move(task, Trigger.EXPIRE, reason="its deadline passed")
            elif task.id in command.in_flight:
                self.put(task, expires_at=self._lease_end(task))
            else:
                self._lost(task, "the executor's lease ended")
        return len(found)

    def _recover(self, command: Recover) -> int:
        found = self._batch.flushed().running(command.owner, command.limit)
        for task in found:
            self._lost(self._batch.adopt(task), "the server stopped during the attempt")
        return len(found)

    def _refill(self, command: Refill) -> Reading:
        """What has become due counts as ready; of that, at most ``limit`` join the ready ones at
        once. Due ones beyond that lead the scheduled, and what is ready is then not complete."""
        records = self._batch.flushed()
        lane, limit, side_limit = command.lane, command.limit, command.side_limit
        records.promote(lane, self._now, limit)
        # One more than is wanted tells whether there are others.
        scheduled = records.scheduled(lane, limit + 1 if command.page else 1)
        all_are_ready = not scheduled or scheduled[0].due_at > self._now
        page: Page | None = None
        if command.page:
            ready = records.ready(lane, limit + 1, command.without)
            page = Page(
                ready=tuple(ready[:limit]),
                ready_complete=len(ready) <= limit and all_are_ready,
                scheduled=tuple(scheduled[:limit]),
                scheduled_complete=len(scheduled) <= limit,
            )
        sides = []
        for destination in command.sides:
            found = records.ready_at(destination, side_limit + 1)
            complete = len(found) <= side_limit and all_are_ready
            sides.append(Side(destination, tuple(found[:side_limit]), complete))
        return Reading(page, tuple(sides))

    def _prune(self, limit: int) -> int:
        config = self._config
        records = self._batch.flushed()
        self._batch.forget()  # what goes now may have been read before
        return records.prune(
            self._now - timedelta(seconds=config.event_retention_s),
            self._now - timedelta(seconds=config.archive_retention_s),
            self._now - timedelta(seconds=config.idempotency_s),
            limit,
        )
