"""Why a task is not running, in one sentence and as data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from .breaker import BreakerState
from .destination import destination_of
from .destinations import BreakerHold, Hold, LimitHold, SuspectHold
from .lifecycle import ENDED
from .outcome import UNCOUNTED_PAUSE_S
from .retry import backoff_s
from .suspects import PRIME_AFTER, SUSPECTS_MAX, UP_S
from .task import Lane, Status, Task, TaskId, Wait
from .times import rfc3339

_INEXACT_S = 0.001


class Cause(enum.StrEnum):
    """What a task waits for."""

    ENDED = "ended"
    RUNNING = "running"
    LEASED = "leased_to_client"
    BLOCKED = "behind_earlier_task"
    SCHEDULED = "scheduled"
    BACKOFF = "waiting_to_retry"
    RETRY_AFTER = "asked_to_wait"
    OWN_FAULT = "repeating_after_own_fault"
    STOPPING = "engine_stopping"
    STORE_TROUBLE = "store_unavailable"
    SUSPECT = "suspect"
    BREAKER_OPEN = "breaker_open"
    DESTINATION_LIMIT = "destination_limit"
    NO_EXECUTOR = "no_executor_free"
    NEXT = "next_in_line"
    NO_CLIENT = "waiting_for_dequeue"


@attrs.frozen
class Explanation:
    """Why a task is not running."""

    cause: Cause
    sentence: str
    facts: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Situation:
    """What is around a task."""

    now: datetime
    executors: int
    executors_busy: int = 0
    holder: TaskId | None = None  # the task that goes before all others of its partition key
    hold: Hold | None = None  # why its destination is given nothing
    stopping: bool = False
    store_error: str | None = None  # why the store cannot be written


def explain(task: Task, around: Situation) -> Explanation:
    """The first thing that must change before the task can run."""
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
    if task.wait is Wait.BLOCKED:
        return _blocked(task, around.holder)
    if task.due_at > around.now:
        return _retrying(task) if task.status is Status.RETRYING else _scheduled(task)
    found = _ready(task, around)
    if task.status is not Status.PENDING:
        return found
    sentence = f"A client has asked for its execution. {found.sentence}"
    return attrs.evolve(found, sentence=sentence, facts={**found.facts, "executeAsked": True})


def _blocked(task: Task, holder: TaskId | None) -> Explanation:
    key = task.spec.partition_key
    facts = {"behind": holder, "partitionKey": key}
    sentence = f"It waits for task {holder}, which goes before it under the partition key {key!r}."
    if holder is None:  # it has ended since
        sentence = f"It is about to be the first of the partition key {key!r}."
    return Explanation(Cause.BLOCKED, sentence, facts)


def _scheduled(task: Task) -> Explanation:
    return Explanation(
        Cause.SCHEDULED,
        f"It is not due before {_when(task.due_at)}.",
        {"runAt": _when(task.due_at)},
    )


def _retrying(task: Task) -> Explanation:
    number, why, when = task.attempt, task.reason, _when(task.due_at)
    facts = {"nextAttemptAt": when, "lastError": why}
    if task.result is not None and task.result.error_class in UNCOUNTED_PAUSE_S:
        return Explanation(
            Cause.OWN_FAULT,
            f"Attempt {number} used up nothing, the fault was ours ({why}); it is repeated at {when}.",
            facts,
        )
    longest_s = backoff_s(task.spec.retry_policy, task.failures, jitter=1.0)
    waits_s = (task.due_at - task.updated_at).total_seconds()
    if waits_s > longest_s + _INEXACT_S:  # no pause that we plan is so long
        return Explanation(
            Cause.RETRY_AFTER,
            f"Attempt {number} failed ({why}), and the answer asked us to wait (Retry-After); "
            f"the next is due at {when}.",
            facts,
        )
    sentence = f"Attempt {number} failed ({why}); the next is due at {when}."
    return Explanation(Cause.BACKOFF, sentence, facts)


def _ready(task: Task, around: Situation) -> Explanation:
    if around.stopping:
        return Explanation(
            Cause.STOPPING,
            "The server is stopping and hands out no more tasks; it goes on after the next start.",
            {},
        )
    if around.store_error is not None:
        return Explanation(
            Cause.STORE_TROUBLE,
            f"Nothing can be started, because the store cannot be written: {around.store_error}.",
            {"storeError": around.store_error},
        )
    if task.lane is Lane.TAKE:
        return Explanation(
            Cause.NO_CLIENT,
            "Its dispatch is manual: it waits for a client to dequeue and execute it.",
            {"dispatch": "manual"},
        )
    if isinstance(around.hold, SuspectHold):
        return _suspected(task, around.hold)
    if around.hold is not None:
        return _held(destination_of(task.spec.callback_url), around.hold, around.now)
    facts = {"executorsBusy": around.executors_busy, "executors": around.executors}
    if around.executors_busy >= around.executors:
        return Explanation(Cause.NO_EXECUTOR, f"All {around.executors} executors are busy.", facts)
    return Explanation(Cause.NEXT, "It is about to be taken by a free executor.", facts)


def _suspected(task: Task, hold: SuspectHold) -> Explanation:
    sentence = f"Its last {task.recoveries} attempts were lost, so it may be what ends the server. "
    if hold.for_s > 0:
        sentence += f"Such a task waits until the server has been up for {UP_S:g} s."
    elif task.recoveries >= PRIME_AFTER:
        sentence += f"It runs while no other such task does; {hold.running} run now."
    else:
        sentence += f"At most {SUSPECTS_MAX} such tasks run at once; {hold.running} run now."
    return Explanation(
        Cause.SUSPECT, sentence, {"lostInARow": task.recoveries, "running": hold.running}
    )


def _held(destination: str, hold: BreakerHold | LimitHold, now: datetime) -> Explanation:
    if isinstance(hold, BreakerHold):
        return _behind_breaker(destination, hold, now)
    why = f"it has not answered well in the last {hold.unproven_s:g} s and others are served"
    if hold.slow_s is not None:
        why = f"its recent ones mostly failed or took longer than {hold.slow_s:g} s"
    return Explanation(
        Cause.DESTINATION_LIMIT,
        f"{destination} is held to {hold.limit} attempts at once, because {why}; "
        f"{hold.running} run now.",
        {"destination": destination, "limit": hold.limit, "running": hold.running},
    )


def _behind_breaker(destination: str, hold: BreakerHold, now: datetime) -> Explanation:
    until = _when(now + timedelta(seconds=hold.for_s))
    failed = f"{hold.failures} of {hold.attempts} recent attempts failed"
    if hold.last_error:
        failed += f" (last: {hold.last_error})"
    state = f"is open until {until}"
    if hold.state is BreakerState.HALF_OPEN:
        state = "is half-open and waits for the attempt that tries it out"
    return Explanation(
        Cause.BREAKER_OPEN,
        f"The circuit breaker of {destination} {state}: {failed}. Waiting uses up no attempt.",
        {
            "destination": destination,
            "breaker": hold.state,
            "until": until,
            "failures": hold.failures,
            "attempts": hold.attempts,
            "lastError": hold.last_error,
        },
    )


def _when(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None
