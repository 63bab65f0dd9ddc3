"""Every reason why a task is not running has a sentence and its facts."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.explain import Cause, Explanation, explain
from engine.core.task import Dispatch, Lane, Status, Task, Wait
from tests.support.builders import NOW, a_task, an_id, at

WHEN = "2026-01-02T03:04:05.678901Z"


def explained(task: Task, **facts: Any) -> Explanation:
    return explain(task, **{"holder": None, "executors_busy": 0, "executors": 4, **facts})


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_task_that_has_ended_says_so(status):
    found = explained(a_task(status=status))
    assert found.cause is Cause.ENDED
    assert found.sentence == f"It has ended, it is {status}."
    assert found.facts == {"status": status}


def test_the_reason_of_the_end_is_told():
    found = explained(a_task(status=Status.FAILED, reason="all 3 attempts failed"))
    assert found.sentence == "It has ended, it is Failed: all 3 attempts failed."


def test_a_running_task_tells_its_attempt():
    found = explained(a_task(status=Status.PROCESSING, attempt=2, executed_at=NOW))
    assert found.cause is Cause.RUNNING
    assert found.facts == {"attempt": 2, "since": WHEN}


def test_a_leased_task_tells_until_when():
    found = explained(a_task(status=Status.PENDING, expires_at=NOW))
    assert found.cause is Cause.LEASED
    assert found.facts == {"until": WHEN}


def test_a_lease_without_an_end_has_no_time_to_tell():
    assert explained(a_task(status=Status.PENDING)).facts == {"until": None}


def test_a_blocked_task_names_who_goes_before_it():
    task = a_task(2, wait=Wait.BLOCKED, partition_key="eu")
    found = explained(task, holder=an_id(1))
    assert found.cause is Cause.BLOCKED
    assert an_id(1) in found.sentence
    assert found.facts == {"behind": an_id(1), "partitionKey": "eu"}


def test_a_retry_in_the_future_tells_when_and_why():
    task = a_task(
        status=Status.RETRYING,
        wait=Wait.SCHEDULED,
        due_at=NOW,
        attempt=1,
        reason="the callback answered 500",
    )
    found = explained(task)
    assert found.cause is Cause.BACKOFF
    assert found.facts == {"nextAttemptAt": WHEN, "lastError": "the callback answered 500"}


def test_a_scheduled_task_tells_when_it_is_due():
    found = explained(a_task(wait=Wait.SCHEDULED, due_at=at(0)))
    assert found.cause is Cause.SCHEDULED
    assert found.facts == {"runAt": WHEN}


def test_a_manual_task_waits_for_a_client():
    found = explained(a_task(lane=Lane.TAKE, dispatch=Dispatch.MANUAL))
    assert found.cause is Cause.NO_CLIENT
    assert found.facts == {"dispatch": "manual"}


def test_a_ready_task_waits_for_an_executor():
    found = explained(a_task(), executors_busy=4)
    assert found.cause is Cause.NO_EXECUTOR
    assert found.facts == {"executorsBusy": 4, "executors": 4}


def test_with_an_executor_free_it_is_next():
    assert explained(a_task(), executors_busy=3).cause is Cause.NEXT
