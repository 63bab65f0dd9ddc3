"""The breaker opens when enough fails, lets one attempt try it out, and closes when that goes well."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from engine.core.breaker import Breaker, BreakerPolicy, BreakerState, Ending, Recent, ending_of
from engine.core.outcome import Answer
from engine.core.task import ErrorClass

POLICY = BreakerPolicy(ratio=0.5, window_s=60.0, attempts_min=10, open_s=30.0)
OPEN, HALF_OPEN, CLOSED = BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED
GOOD, FAILED, NEUTRAL = Ending.GOOD, Ending.FAILED, Ending.NEUTRAL


def tried(breaker: Breaker, now: float, *endings: Ending) -> bool:
    """Attempts that end as soon as they begin; whether one has opened the breaker."""
    opens = [breaker.end(breaker.begin(now), now, ending) for ending in endings]
    return any(opens)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    assert tried(breaker, now, *[FAILED] * 10)
    return breaker


# -- what an answer tells ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 301, 304, 400, 401, 403, 404, 410, 422, 451])
def test_who_answers_lives(status: int) -> None:
    assert ending_of(Answer(status_code=status)) is GOOD


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
def test_who_cannot_now_or_cannot_at_all_has_failed(status: int) -> None:
    assert ending_of(Answer(status_code=status)) is FAILED


@pytest.mark.parametrize("error", ErrorClass)
def test_what_is_our_own_fault_tells_nothing(error: ErrorClass) -> None:
    theirs = {
        ErrorClass.DNS,
        ErrorClass.REFUSED,
        ErrorClass.TLS,
        ErrorClass.CONNECT_TIMEOUT,
        ErrorClass.TIMEOUT,
        ErrorClass.DISCONNECTED,
        ErrorClass.PROTOCOL,
    }
    given_up = {ErrorClass.HTTP_STATUS, ErrorClass.REDIRECT}  # never in an answer
    if error not in given_up:
        assert ending_of(Answer(error_class=error)) is (FAILED if error in theirs else NEUTRAL)


# -- recent ------------------------------------------------------------------------------------


def test_what_is_recent_is_forgotten_after_the_window() -> None:
    recent = Recent(60.0)
    recent.add(0.0, failed=True)
    recent.add(30.0, failed=False)
    recent.forget_old(59.9)
    assert (recent.attempts, recent.failures) == (2, 1)
    recent.forget_old(60.1)
    assert (recent.attempts, recent.failures) == (1, 0)
    assert repr(recent) == "<Recent 0 of 1 failed>"
    recent.forget_old(1e9)
    assert (recent.attempts, recent.failures) == (0, 0)


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=200))
def test_recent_counts_are_those_of_the_window_within_a_twelfth(
    steps: list[tuple[float, bool]],
) -> None:
    recent, all_of_them, now = Recent(60.0), [], 0.0
    for pause, failed in steps:
        now += pause
        recent.add(now, failed=failed)
        all_of_them.append((now, failed))
        surely = [f for at, f in all_of_them if at > now - 55.0 + 1e-6]
        perhaps = [f for at, f in all_of_them if at >= now - 60.0 - 1e-6]
        assert len(surely) <= recent.attempts <= len(perhaps)
        assert sum(surely) <= recent.failures <= sum(perhaps)
        assert len(recent._buckets) <= 12


# -- the machine -------------------------------------------------------------------------------


def test_it_opens_at_the_ratio_and_not_before_enough_attempts() -> None:
    breaker = Breaker(POLICY)
    assert not tried(breaker, 0.0, *[FAILED] * 9)
    assert breaker.state(0.0) is CLOSED
    assert tried(breaker, 1.0, FAILED)
    assert breaker.state(1.0) is OPEN
    assert breaker.opened_by == (10, 10)
    assert repr(breaker) == "<Breaker opened at 1, <Recent 10 of 10 failed>>"


@pytest.mark.parametrize(
    ("good", "failed", "opens"), [(6, 5, False), (5, 5, True), (95, 94, False)]
)
def test_the_ratio_decides(good: int, failed: int, opens: bool) -> None:
    breaker = Breaker(POLICY)
    tried(breaker, 0.0, *[GOOD] * good)
    assert tried(breaker, 1.0, *[FAILED] * failed) is opens
    assert breaker.closed is not opens


def test_a_good_answer_never_opens_it() -> None:
    breaker = Breaker(POLICY)
    assert not tried(breaker, 0.0, *[FAILED] * 9, GOOD)
    assert breaker.closed
    assert tried(breaker, 0.0, FAILED)


def test_failures_that_lie_far_apart_do_not_open_it() -> None:
    breaker = Breaker(POLICY)
    assert not any(tried(breaker, now, FAILED) for now in range(0, 700, 7))


def test_what_tells_nothing_counts_for_nothing() -> None:
    breaker = Breaker(POLICY)
    assert not tried(breaker, 0.0, *[NEUTRAL] * 50)
    assert breaker.recent.attempts == 0
    assert repr(breaker) == "<Breaker closed, <Recent 0 of 0 failed>>"


def test_it_half_opens_by_time_alone() -> None:
    breaker = opened(100.0)
    assert breaker.state(129.9) is OPEN
    assert breaker.state(130.0) is HALF_OPEN
    assert breaker.admits_at() == 130.0
    assert Breaker(POLICY).admits_at() == float("-inf")


def test_one_attempt_tries_it_out() -> None:
    breaker = opened()
    breaker.begin(31.0)
    assert breaker.admits_at() == 61.0  # and if it hangs, another one


def test_a_good_probe_closes_it_and_the_past_is_forgotten() -> None:
    breaker = opened()
    assert not tried(breaker, 31.0, GOOD)
    assert breaker.closed
    assert not tried(breaker, 31.0, *[FAILED] * 8)
    assert (breaker.recent.attempts, breaker.recent.failures) == (9, 8)
    assert tried(breaker, 31.0, FAILED)


def test_a_failed_probe_opens_it_again_for_the_whole_time() -> None:
    breaker = opened()
    assert tried(breaker, 31.0, FAILED)
    assert breaker.state(60.9) is OPEN
    assert breaker.state(61.0) is HALF_OPEN


def test_a_probe_that_tells_nothing_lets_another_one_go() -> None:
    breaker = opened()
    assert not tried(breaker, 31.0, NEUTRAL)
    assert breaker.admits_at() <= 31.0
    assert breaker.state(31.0) is HALF_OPEN


@pytest.mark.parametrize("ending", [GOOD, FAILED])
def test_what_began_before_it_opened_decides_nothing(ending: Ending) -> None:
    breaker = Breaker(POLICY)
    before = breaker.begin(0.0)
    tried(breaker, 0.0, *[FAILED] * 10)
    assert not breaker.end(before, 10.0, ending)
    assert breaker.state(29.9) is OPEN
    probe = breaker.begin(30.0)
    assert not breaker.end(before, 31.0, ending)
    assert breaker.state(31.0) is HALF_OPEN
    breaker.end(probe, 32.0, GOOD)
    assert breaker.closed


def test_of_two_probes_the_first_to_end_decides() -> None:
    breaker = opened()
    first, second = breaker.begin(30.0), breaker.begin(60.0)
    assert breaker.end(second, 61.0, FAILED)
    assert not breaker.end(first, 62.0, GOOD)
    assert breaker.state(90.9) is OPEN


@given(st.lists(st.tuples(st.floats(0, 40), st.sampled_from(Ending)), max_size=100))
def test_it_never_stays_open_for_ever(steps: list[tuple[float, Ending]]) -> None:
    breaker, now = Breaker(POLICY), 0.0
    for pause, ending in steps:
        now += pause
        if now >= breaker.admits_at():
            tried(breaker, now, ending)
        assert breaker.admits_at() <= now + POLICY.open_s
        if breaker.closed and breaker.recent.failures:
            few = breaker.recent.attempts < POLICY.attempts_min
            assert (
                few
                or ending is not FAILED
                or breaker.recent.failures < 0.5 * breaker.recent.attempts
            )
