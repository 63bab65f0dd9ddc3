"""When to try again, and when all the tries will be. Decides; does nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

from .lifecycle import ENDED
from .outcome import Verdict
from .task import RetryPolicy, Status, Task

PLANNED_MAX = 20
_LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


@attrs.frozen
class RetryIn:
    """Try again after so many seconds."""

    seconds: float


@attrs.frozen
class GiveUp:
    """Do not try again."""

    reason: str


@attrs.frozen(kw_only=True)
class PlannedAttempt:
    """An attempt that is still to come, should those before it fail, and between when it falls
    due. The time that attempts take themselves, and a Retry-After, come on top."""

    attempt: int
    not_before: datetime
    not_after: datetime


def backoff_s(policy: RetryPolicy, failures: int, jitter: float) -> float:
    """Pause after the ``failures``-th failure. ``jitter`` is a random number in [0, 1)."""
    longest = _longest_s(policy, failures)
    return longest * jitter if policy.jitter else longest


def _longest_s(policy: RetryPolicy, failures: int) -> float:
    exponent = min(failures - 1, 1000)  # beyond that a float would overflow; max rules long before
    try:
        grown = policy.initial_interval_s * policy.multiplier**exponent
    except OverflowError:
        grown = policy.max_interval_s
    return min(grown, policy.max_interval_s)


def decide(
    policy: RetryPolicy,
    failures: int,
    verdict: Verdict,
    *,
    asked_s: float | None,
    asked_max_s: float,
    jitter: float,
) -> RetryIn | GiveUp:
    """What follows a failed attempt.

    ``failures`` counts the attempts used up, this one included; ``asked_s`` is the callee's
    Retry-After, honoured up to ``asked_max_s``. An uncounted attempt is repeated after that alone.
    """
    if verdict is Verdict.UNCOUNTED:
        return RetryIn(min(asked_s or 0.0, asked_max_s))
    if verdict is Verdict.PERMANENT:
        return GiveUp("the callback refused it for good")
    if failures >= policy.max_attempts:
        most = policy.max_attempts
        return GiveUp(f"all {most} attempts failed" if most > 1 else "its only attempt failed")
    planned = backoff_s(policy, failures, jitter)
    return RetryIn(max(planned, min(asked_s or 0.0, asked_max_s)))


def planned_attempts(task: Task) -> list[PlannedAttempt]:
    """The attempts that are left, at most ``PLANNED_MAX``; none if the task has ended.

    The next one is exact while the task waits for it. What follows is counted from there, or from
    the beginning of the attempt that runs. An attempt that the deadline forbids is not planned.
    """
    policy, running = task.spec.retry_policy, task.status is Status.PROCESSING
    failures = task.failures + running
    left = 0 if task.status in ENDED else min(policy.max_attempts - failures, PLANNED_MAX)
    earliest = latest = task.executed_at if running and task.executed_at else task.due_at
    last = task.spec.deadline or _LAST_MOMENT
    planned: list[PlannedAttempt] = []
    for number in range(left):
        if number or running:
            longest = _longest_s(policy, failures + number)
            earliest = _later(earliest, 0.0 if policy.jitter else longest)
            latest = _later(latest, longest)
        if earliest >= last:
            break
        planned.append(
            PlannedAttempt(
                attempt=task.attempt + 1 + number,
                not_before=earliest,
                not_after=min(latest, last),
            )
        )
    return planned


def _later(moment: datetime, seconds: float) -> datetime:
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:  # a task may wait for the last day of the calendar
        return _LAST_MOMENT
