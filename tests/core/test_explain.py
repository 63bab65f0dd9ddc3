"""Every reason why a task is not running has a sentence and its facts."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from engine.core.breaker import BreakerState
from engine.core.destinations import BreakerHold, LimitHold, SuspectHold
from engine.core.explain import Cause, Explanation, Situation, explain
from engine.core.task import (
    CallbackResult,
    Dispatch,
    ErrorClass,
    Lane,
    RetryPolicy,
    Status,
    Task,
    Wait,
)
from tests.support.builders import NOW, a_task, an_id, at

WHEN = "2026-01-02T03:04:05.678901Z"
LATER = "2026-01-02T03:04:15.678901Z"


def explained(task: Task, **around: Any) -> Explanation:
    return explain(task, Situation(**{"now": NOW, "executors": 4, **around}))


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


def test_a_blocked_task_that_has_just_become_the_first_names_nobody():
    found = explained(a_task(2, wait=Wait.BLOCKED, partition_key="eu"))
    assert found.sentence == "It is about to be the first of the partition key 'eu'."


def a_retry(wait_s: float, **fields: Any) -> Task:
    policy = RetryPolicy(initial_interval_s=2.0, jitter=True)
    result = CallbackResult(status_code=503, error_class=ErrorClass.HTTP_STATUS)
    defaults = {
        "status": Status.RETRYING,
        "wait": Wait.SCHEDULED,
        "updated_at": at(10 - wait_s),
        "due_at": at(10),
        "attempt": 1,
        "failures": 1,
        "reason": "the callback answered 503",
        "retry_policy": policy,
        "result": result,
    }
    return a_task(**{**defaults, **fields})


@pytest.mark.parametrize("wait_s", [0.1, 2.0])
def test_a_retry_in_the_future_tells_when_and_why(wait_s):
    found = explained(a_retry(wait_s))
    assert found.cause is Cause.BACKOFF
    assert found.facts == {"nextAttemptAt": LATER, "lastError": "the callback answered 503"}
    assert (
        found.sentence
        == f"Attempt 1 failed (the callback answered 503); the next is due at {LATER}."
    )


def test_a_retry_that_the_answer_asked_to_put_off_says_so():
    found = explained(a_retry(2.1))
    assert found.cause is Cause.RETRY_AFTER
    assert found.facts["nextAttemptAt"] == LATER
    assert "Retry-After" in found.sentence


def test_a_repetition_after_our_own_fault_says_so():
    result = CallbackResult(error_class=ErrorClass.SHORTAGE, error="no descriptors")
    found = explained(a_retry(1.0, result=result, failures=0, reason="no descriptors"))
    assert found.cause is Cause.OWN_FAULT
    assert "the fault was ours (no descriptors)" in found.sentence


def test_a_scheduled_task_tells_when_it_is_due():
    found = explained(a_task(wait=Wait.SCHEDULED, due_at=at(10)))
    assert found.cause is Cause.SCHEDULED
    assert found.facts == {"runAt": LATER}


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RETRYING])
def test_what_has_become_due_is_ready_even_if_nobody_has_looked_yet(status):
    assert explained(a_task(wait=Wait.SCHEDULED, status=status, due_at=NOW)).cause is Cause.NEXT


def test_a_manual_task_waits_for_a_client():
    found = explained(a_task(lane=Lane.TAKE, dispatch=Dispatch.MANUAL))
    assert found.cause is Cause.NO_CLIENT
    assert found.facts == {"dispatch": "manual"}


@pytest.mark.parametrize("lane", Lane)
def test_a_stopping_engine_and_a_store_in_trouble_hold_up_everybody(lane):
    task = a_task(lane=lane)
    assert explained(task, stopping=True, store_error="full").cause is Cause.STOPPING
    found = explained(task, store_error="the disk is full")
    assert found.cause is Cause.STORE_TROUBLE
    assert found.facts == {"storeError": "the disk is full"}
    assert found.sentence.endswith("the store cannot be written: the disk is full.")


def test_a_ready_task_waits_for_an_executor():
    found = explained(a_task(), executors_busy=4)
    assert found.cause is Cause.NO_EXECUTOR
    assert found.facts == {"executorsBusy": 4, "executors": 4}


def test_with_an_executor_free_it_is_next():
    assert explained(a_task(), executors_busy=3).cause is Cause.NEXT


def test_a_client_that_asked_for_its_execution_is_told_that_it_did():
    task = a_task(status=Status.PENDING, lane=Lane.RUN, wait=Wait.READY)
    found = explained(task, executors_busy=4)
    assert found.cause is Cause.NO_EXECUTOR
    assert found.sentence == "A client has asked for its execution. All 4 executors are busy."
    assert found.facts == {"executorsBusy": 4, "executors": 4, "executeAsked": True}


def an_open_breaker(**fields: Any) -> BreakerHold:
    defaults = {
        "state": BreakerState.OPEN,
        "for_s": 10.0,
        "failures": 12,
        "attempts": 15,
        "last_error": "connection refused",
    }
    return BreakerHold(**{**defaults, **fields})


def test_an_open_breaker_tells_until_when_and_why():
    found = explained(a_task(), hold=an_open_breaker(), executors_busy=4)
    assert found.cause is Cause.BREAKER_OPEN
    assert found.sentence == (
        f"The circuit breaker of http://127.0.0.1:9 is open until {LATER}: 12 of 15 recent attempts "
        "failed (last: connection refused). Waiting uses up no attempt."
    )
    assert found.facts == {
        "destination": "http://127.0.0.1:9",
        "breaker": "open",
        "until": LATER,
        "failures": 12,
        "attempts": 15,
        "lastError": "connection refused",
    }


def test_a_half_open_breaker_waits_for_its_probe():
    hold = an_open_breaker(state=BreakerState.HALF_OPEN, last_error=None)
    found = explained(a_task(), hold=hold)
    assert found.sentence == (
        "The circuit breaker of http://127.0.0.1:9 is half-open and waits for the attempt that tries "
        "it out: 12 of 15 recent attempts failed. Waiting uses up no attempt."
    )


@pytest.mark.parametrize(
    ("slow_s", "why"),
    [
        (5.0, "its recent ones mostly failed or took longer than 5 s"),
        (None, "it has not answered well in the last 60 s and others are served"),
    ],
)
def test_a_destination_that_is_held_tells_to_how_many_and_why(slow_s, why):
    hold = LimitHold(limit=20, running=20, slow_s=slow_s, unproven_s=60.0)
    found = explained(a_task(), hold=hold)
    assert found.cause is Cause.DESTINATION_LIMIT
    assert found.sentence == (
        f"http://127.0.0.1:9 is held to 20 attempts at once, because {why}; 20 run now."
    )
    assert found.facts == {"destination": "http://127.0.0.1:9", "limit": 20, "running": 20}


@pytest.mark.parametrize(
    ("recoveries", "hold", "why"),
    [
        (2, SuspectHold(0.5, 0), "Such a task waits until the server has been up for 5 s."),
        (3, SuspectHold(0.5, 0), "Such a task waits until the server has been up for 5 s."),
        (2, SuspectHold(0.0, 20), "At most 20 such tasks run at once; 20 run now."),
        (3, SuspectHold(0.0, 2), "It runs while no other such task does; 2 run now."),
    ],
)
def test_a_suspect_waits_for_those_that_run_or_for_the_server_to_be_older(recoveries, hold, why):
    found = explained(attrs.evolve(a_task(), recoveries=recoveries), hold=hold)
    assert found.cause is Cause.SUSPECT
    assert found.sentence == (
        f"Its last {recoveries} attempts were lost, so it may be what ends the server. {why}"
    )
    assert found.facts == {"lostInARow": recoveries, "running": hold.running}
