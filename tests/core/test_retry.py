"""When to try again: bounds, jitter, overflow, Retry-After, and the plan that is shown."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from engine.core.lifecycle import ENDED
from engine.core.outcome import Verdict
from engine.core.retry import (
    PLANNED_MAX,
    GiveUp,
    PlannedAttempt,
    RetryIn,
    backoff_s,
    decide,
    planned_attempts,
)
from engine.core.task import RetryPolicy, Status, Task
from tests.support.builders import NOW, a_task, at

STEADY = RetryPolicy(max_attempts=5, jitter=False)
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    initial_interval_s=st.floats(0, 86_400),
    max_interval_s=st.floats(0, 86_400),
    multiplier=st.floats(1, 100),
    jitter=st.booleans(),
)
jitters = st.floats(0, 1, exclude_max=True)


def decided(
    failures: int, verdict: Verdict = Verdict.RETRY, asked_s: float | None = None
) -> RetryIn | GiveUp:
    return decide(STEADY, failures, verdict, asked_s=asked_s, asked_max_s=100.0, jitter=0.5)


def test_the_pause_grows_up_to_the_longest() -> None:
    pauses = [backoff_s(STEADY, failures, 0.0) for failures in range(1, 8)]
    assert pauses == [2, 4, 8, 16, 30, 30, 30]


def test_full_jitter_takes_a_part_of_the_pause() -> None:
    policy = attrs.evolve(STEADY, jitter=True)
    assert [backoff_s(policy, 2, jitter) for jitter in (0.0, 0.25, 0.5)] == [0, 1, 2]


@given(policies, st.integers(1, 10**9), jitters)
def test_the_pause_is_within_bounds_whatever_the_numbers(
    policy: RetryPolicy, failures: int, jitter: float
) -> None:
    pause = backoff_s(policy, failures, jitter)
    assert 0 <= pause <= policy.max_interval_s
    if not policy.jitter:
        assert pause >= min(policy.initial_interval_s, policy.max_interval_s)


@given(policies, st.integers(1, 99), jitters)
def test_the_pause_never_shrinks(policy: RetryPolicy, failures: int, jitter: float) -> None:
    assert backoff_s(policy, failures, jitter) <= backoff_s(policy, failures + 1, jitter)


@given(policies, st.integers(1, 100))
def test_full_jitter_spreads_over_the_whole_pause(policy: RetryPolicy, failures: int) -> None:
    """From nothing to the pause that there is without jitter, and evenly in between."""
    jittered, steady = (attrs.evolve(policy, jitter=jitter) for jitter in (True, False))
    longest = backoff_s(steady, failures, 0.0)
    assert backoff_s(jittered, failures, 0.0) == 0
    assert backoff_s(jittered, failures, 0.25) == pytest.approx(longest / 4, rel=1e-9)
    assert backoff_s(jittered, failures, 1 - 2**-53) == pytest.approx(longest, rel=1e-9)
    assert longest <= policy.max_interval_s


def test_the_greatest_policy_there_can_be_is_reckoned_without_overflow() -> None:
    policy = RetryPolicy(
        max_attempts=100,
        initial_interval_s=86_400.0,
        max_interval_s=86_400.0,
        multiplier=100.0,
        jitter=False,
    )
    assert [backoff_s(policy, failures, 0.0) for failures in range(1, 101)] == [86_400.0] * 100
    none = attrs.evolve(policy, initial_interval_s=0.0)
    assert [backoff_s(none, failures, 0.0) for failures in range(1, 101)] == [0.0] * 100


def test_a_power_too_large_for_a_float_is_the_longest_pause() -> None:
    assert backoff_s(attrs.evolve(STEADY, multiplier=100.0), 500, 0.0) == 30


def test_a_failure_is_tried_again_until_the_attempts_are_used_up() -> None:
    assert [decided(n) for n in (1, 2, 3, 4)] == [RetryIn(2), RetryIn(4), RetryIn(8), RetryIn(16)]
    assert decided(5) == GiveUp("all 5 attempts failed")
    assert decided(6) == GiveUp("all 5 attempts failed")


def test_a_task_with_one_attempt_is_not_said_to_have_had_all() -> None:
    only = attrs.evolve(STEADY, max_attempts=1)
    decision = decide(only, 1, Verdict.RETRY, asked_s=None, asked_max_s=100, jitter=0.0)
    assert decision == GiveUp("its only attempt failed")


def test_a_refusal_for_good_ends_it_at_once() -> None:
    assert decided(1, Verdict.PERMANENT) == GiveUp("the callback refused it for good")


@pytest.mark.parametrize("failures", [0, 1, 5, 100])
def test_what_was_not_counted_is_repeated_after_the_pause_asked_for(failures: int) -> None:
    assert decided(failures, Verdict.UNCOUNTED) == RetryIn(0.0)
    assert decided(failures, Verdict.UNCOUNTED, asked_s=1.0) == RetryIn(1.0)


@pytest.mark.parametrize(
    ("asked_s", "seconds"), [(None, 2), (0, 2), (1, 2), (3, 3), (100, 100), (1e11, 100)]
)
def test_the_callee_can_ask_for_a_longer_pause_up_to_a_cap(
    asked_s: float | None, seconds: float
) -> None:
    assert decided(1, asked_s=asked_s) == RetryIn(seconds)


def test_asking_does_not_buy_more_attempts() -> None:
    assert isinstance(decided(5, asked_s=1), GiveUp)


@given(policies, st.integers(1, 200), jitters, st.none() | st.floats(0, 1e12))
def test_a_decision_is_never_beyond_its_bounds(
    policy: RetryPolicy, failures: int, jitter: float, asked_s: float | None
) -> None:
    found = decide(
        policy, failures, Verdict.RETRY, asked_s=asked_s, asked_max_s=500.0, jitter=jitter
    )
    if isinstance(found, RetryIn):
        assert failures < policy.max_attempts
        assert min(asked_s or 0, 500) <= found.seconds <= max(policy.max_interval_s, 500)
    else:
        assert failures >= policy.max_attempts


# -- the plan ----------------------------------------------------------------------------------


def plan(task: Task) -> list[tuple[int, float, float]]:
    """Attempt, and between how many seconds from now."""
    return [
        (one.attempt, (one.not_before - NOW).total_seconds(), (one.not_after - NOW).total_seconds())
        for one in planned_attempts(task)
    ]


def retrying(**fields: Any) -> Task:
    """A task that has failed twice of five times, and whose third attempt is due in 3 s."""
    defaults = {
        "status": Status.RETRYING,
        "attempt": 2,
        "failures": 2,
        "due_at": at(3),
        "retry_policy": STEADY,
    }
    return a_task(**{**defaults, **fields})


def test_a_task_that_waits_shows_all_attempts_that_are_left() -> None:
    assert plan(retrying()) == [(3, 3, 3), (4, 11, 11), (5, 27, 27)]
    assert plan(a_task(retry_policy=STEADY)) == [
        *((1, 0, 0), (2, 2, 2), (3, 6, 6), (4, 14, 14), (5, 30, 30)),
    ]


def test_with_jitter_the_next_attempt_is_exact_and_later_ones_are_ranges() -> None:
    policy = attrs.evolve(STEADY, jitter=True)
    assert plan(retrying(retry_policy=policy)) == [(3, 3, 3), (4, 3, 11), (5, 3, 27)]


def test_while_an_attempt_runs_the_next_is_counted_from_its_beginning() -> None:
    running = {"status": Status.PROCESSING, "executed_at": at(-1), "attempt": 3}
    assert plan(retrying(**running)) == [(4, 7, 7), (5, 23, 23)]
    policy = attrs.evolve(STEADY, jitter=True)
    assert plan(retrying(**running, retry_policy=policy)) == [(4, -1, 7), (5, -1, 23)]


def test_during_the_last_attempt_nothing_is_planned() -> None:
    assert plan(retrying(status=Status.PROCESSING, executed_at=NOW, failures=4)) == []


@pytest.mark.parametrize("status", ENDED)
def test_a_task_that_has_ended_plans_nothing(status: Status) -> None:
    assert plan(retrying(status=status, completed_at=NOW)) == []


def test_attempts_that_were_not_counted_take_none_away() -> None:
    assert plan(retrying(attempt=7)) == [(8, 3, 3), (9, 11, 11), (10, 27, 27)]


def test_an_attempt_that_the_deadline_forbids_is_not_planned() -> None:
    assert plan(retrying(deadline=at(11))) == [(3, 3, 3)]
    assert plan(retrying(deadline=at(11.5))) == [(3, 3, 3), (4, 11, 11)]
    policy = attrs.evolve(STEADY, jitter=True)
    assert plan(retrying(deadline=at(10), retry_policy=policy)) == [
        *((3, 3, 3), (4, 3, 10), (5, 3, 10)),
    ]
    assert plan(retrying(deadline=at(3))) == []


def test_a_task_that_waits_for_the_end_of_time_has_a_plan() -> None:
    late = datetime(9999, 12, 31, 23, 59, 50, tzinfo=UTC)
    found = planned_attempts(retrying(due_at=late))
    assert [one.attempt for one in found] == [3, 4]
    assert found[1].not_before == late + timedelta(seconds=8)


def test_a_long_plan_is_cut() -> None:
    policy = attrs.evolve(STEADY, max_attempts=100)
    assert len(planned_attempts(a_task(retry_policy=policy))) == PLANNED_MAX
    assert planned_attempts(a_task(retry_policy=policy))[-1].attempt == PLANNED_MAX


@given(policies, st.integers(1, 99), st.lists(jitters, min_size=PLANNED_MAX), jitters)
def test_every_decision_falls_into_its_plan(
    policy: RetryPolicy, failures: int, chances: list[float], first: float
) -> None:
    """Play the attempts that were planned, each failing at once: the engine keeps to the plan."""
    task = retrying(retry_policy=policy, attempt=failures, failures=failures, due_at=at(first))
    planned = planned_attempts(task)
    assert len(planned) == min(max(policy.max_attempts - failures, 0), PLANNED_MAX)
    due_at = task.due_at
    for one, chance in zip(planned, chances, strict=False):
        assert almost(one.not_before) <= due_at <= almost(one.not_after, +1)
        decision = decide(
            policy, one.attempt, Verdict.RETRY, asked_s=None, asked_max_s=0.0, jitter=chance
        )
        if isinstance(decision, RetryIn):
            due_at += timedelta(seconds=decision.seconds)
    for earlier, later in itertools.pairwise(planned):
        assert earlier.attempt + 1 == later.attempt
        assert earlier.not_before <= later.not_before
        assert earlier.not_after <= later.not_after


def almost(moment: datetime, sign: int = -1) -> datetime:
    """Sums of rounded times differ by microseconds."""
    return moment + sign * timedelta(microseconds=PLANNED_MAX)


def test_a_plan_is_a_plain_record() -> None:
    assert planned_attempts(retrying())[0] == PlannedAttempt(
        attempt=3, not_before=at(3), not_after=at(3)
    )
