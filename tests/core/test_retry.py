"""When to try again: bounds, jitter, overflow, Retry-After."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, strategies as st

from engine.core.outcome import Verdict
from engine.core.retry import GiveUp, RetryIn, backoff_s, decide
from engine.core.task import RetryPolicy

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
