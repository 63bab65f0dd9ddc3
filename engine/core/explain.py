"""Why a task is not running, in one sentence and as data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from .lifecycle import ENDED
from .task import Lane, Status, Task, TaskId, Wait
from .times import rfc3339


class Cause(enum.StrEnum):
    """What a task waits for."""

    ENDED = "ended"
    RUNNING = "running"
    LEASED = "leased_to_client"
    BLOCKED = "behind_earlier_task"
    SCHEDULED = "scheduled"
    BACKOFF = "waiting_to_retry"
    NO_EXECUTOR = "no_executor_free"
    NEXT = "next_in_line"
    NO_CLIENT = "waiting_for_dequeue"


@attrs.frozen
class Explanation:
    """Why a task is not running."""

    cause: Cause
    sentence: str
    facts: Mapping[str, Any]


def explain(
    task: Task, *, holder: TaskId | None, executors_busy: int, executors: int
) -> Explanation:
    """``holder`` is the task that goes before all others of its partition key."""
    if task.status in ENDED:
        why = f": {task.reason}" if task.reason else ""
        return Explanation(
            Cause.ENDED, f"It has ended, it is {task.status}{why}.", {"status": task.status}
        )
    if task.status is Status.PROCESSING:
        return Explanation(
            Cause.RUNNING,
            f"It is running: attempt {task.attempt} began at {_when(task.executed_at)}.",
            {"attempt": task.attempt, "since": _when(task.executed_at)},
        )
    if task.wait is None:
        return Explanation(
            Cause.LEASED,
            f"A client has dequeued it and may execute it until {_when(task.expires_at)}.",
            {"until": _when(task.expires_at)},
        )
    return _waiting(task, holder, executors_busy, executors)


def _waiting(task: Task, holder: TaskId | None, busy: int, executors: int) -> Explanation:
    if task.wait is Wait.BLOCKED:
        key = task.spec.partition_key
        return Explanation(
            Cause.BLOCKED,
            f"It waits for task {holder}, which goes before it under the partition key {key!r}.",
            {"behind": holder, "partitionKey": key},
        )
    if task.wait is Wait.SCHEDULED and task.status is Status.RETRYING:
        return Explanation(
            Cause.BACKOFF,
            f"Attempt {task.attempt} failed ({task.reason}); the next is due at {_when(task.due_at)}.",
            {"nextAttemptAt": _when(task.due_at), "lastError": task.reason},
        )
    if task.wait is Wait.SCHEDULED:
        return Explanation(
            Cause.SCHEDULED,
            f"It is not due before {_when(task.due_at)}.",
            {"runAt": _when(task.due_at)},
        )
    if task.lane is Lane.TAKE:
        return Explanation(
            Cause.NO_CLIENT,
            "Its dispatch is manual: it waits for a client to dequeue and execute it.",
            {"dispatch": "manual"},
        )
    facts = {"executorsBusy": busy, "executors": executors}
    if busy >= executors:
        return Explanation(Cause.NO_EXECUTOR, f"All {executors} executors are busy.", facts)
    return Explanation(Cause.NEXT, "It is about to be taken by a free executor.", facts)


def _when(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None
