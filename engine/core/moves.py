"""How a task changes its status, and what is written with it: there is one way, for all commands."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import attrs

from engine.config import EngineConfig

from .batch import Batch
from .entries import rank_of
from .lifecycle import ENDED, FINAL, WAITING, Trigger, advance
from .outcome import Answer
from .task import (
    Attempt,
    CallbackResult,
    Dispatch,
    Event,
    Lane,
    Status,
    Task,
    TaskSpec,
    Wait,
    evolved,
)

_BRING_RESULTS = ENDED | {Status.RETRYING}
_EVENT_BODY_MAX = 1024  # characters of a callback's body that an event repeats


def _shortened(result: CallbackResult | None) -> CallbackResult | None:
    if result is None or result.body is None or len(result.body) <= _EVENT_BODY_MAX:
        return result
    return attrs.evolve(result, body=result.body[:_EVENT_BODY_MAX], truncated=True)


class Moves:
    """Moves tasks of one batch at one moment."""

    def __init__(self, batch: Batch, config: EngineConfig, now: datetime) -> None:
        self._batch = batch
        self._config = config
        self._now = now

    def move(
        self,
        task: Task,
        trigger: Trigger,
        *,
        due_at: datetime | None = None,
        expires_at: datetime | None = None,
        owner: str | None = None,
        reason: str | None = None,
        blocked: bool = False,
        **fields: Any,
    ) -> Task:
        """The task in its next status, with its event; raises ``IllegalTransition``. ``fields``
        are other attributes to change. The end of a task lets the next of its key go."""
        status = advance(task, trigger)
        if due_at is not None:
            fields["due_at"] = due_at
            fields["rank"] = self.rank(task.spec, due_at)
        fields["lane"] = fields["wait"] = None
        fields["expires_at"] = expires_at
        if status in WAITING:
            fields |= self.place(status, task.spec, due_at or task.due_at, blocked=blocked)
        if status in ENDED:
            fields["completed_at"] = self._now
        if status in FINAL:
            fields["archived_at"] = self._now
        moved = self.put(task, status=status, owner=owner, reason=reason, **fields)
        self.log(moved, task.status)
        if status in ENDED and task.wait is not Wait.BLOCKED:
            self._unblock_next(moved)
        return moved

    def passing(self, task: Task, trigger: Trigger) -> Task:
        """The task in a status that it leaves at once: the event tells of it, no record does."""
        status = advance(task, trigger)
        passed = evolved(task, status=status, version=task.version + 1, reason=None)
        self.log(passed, task.status)
        return passed

    def _unblock_next(self, ended: Task) -> None:
        key = ended.spec.partition_key
        follower = self._batch.flushed().next_blocked(key) if key is not None else None
        if follower is not None:
            follower = self._batch.adopt(follower)
            place = self.place(follower.status, follower.spec, follower.due_at, blocked=False)
            self.put(follower, **place)

    def place(
        self, status: Status, spec: TaskSpec, due_at: datetime, *, blocked: bool
    ) -> dict[str, Any]:
        """The fields of a waiting task that say where it waits, and why."""
        manual = status is Status.QUEUED and spec.dispatch is not Dispatch.AUTO
        wait = Wait.SCHEDULED if due_at > self._now else Wait.READY
        return {
            "lane": Lane.TAKE if manual else Lane.RUN,
            "wait": Wait.BLOCKED if blocked else wait,
            "expires_at": spec.deadline,
        }

    def put(self, task: Task, **fields: Any) -> Task:
        """The task with these attributes changed, as its next version."""
        task = evolved(task, version=task.version + 1, updated_at=self._now, **fields)
        self._batch.put(task)
        return task

    def rank(self, spec: TaskSpec, due_at: datetime) -> int:
        """Where a task of this description stands in its lane."""
        return rank_of(due_at, spec.priority, self._config.ageing_s)

    def log(self, task: Task, before: Status | None) -> None:
        """One event: the task came from ``before`` to where it is."""
        self._batch.log(
            Event(
                at=self._now,
                task_id=task.id,
                name=task.spec.name,
                from_status=before,
                to_status=task.status,
                attempt=task.attempt,
                reason=task.reason,
                result=_shortened(task.result) if task.status in _BRING_RESULTS else None,
            )
        )

    def log_attempt(
        self, task: Task, answer: Answer, started_at: datetime, duration_s: float, counted: bool
    ) -> None:
        """One line of the attempt log."""
        self._batch.log_attempt(
            Attempt(
                task_id=task.id,
                number=task.attempt,
                started_at=started_at,
                finished_at=started_at + timedelta(seconds=duration_s),
                duration_s=duration_s,
                method=task.spec.method,
                url=task.spec.callback_url,
                counted=counted,
                result=answer.result,
            )
        )
