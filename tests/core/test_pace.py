"""How far claims may run ahead of calls."""

from __future__ import annotations

import pytest

from engine.core.pace import Pace, ahead_max


def pace_of(executors: int, per_s: int) -> Pace:
    pace = Pace(executors)
    for n in range(per_s):
        pace.ended(n / per_s)
    return pace


@pytest.mark.parametrize(
    ("per_s", "ahead"),
    [(0, 0), (3, 0), (49, 0), (50, 1), (500, 10), (2_000, 25), (10_000, 25)],
)
def test_as_many_as_will_begin_within_two_hundredths_of_a_second(per_s, ahead):
    assert pace_of(100, per_s).ahead(0.999) == ahead


def test_what_ended_more_than_a_second_ago_says_nothing():
    pace = pace_of(100, 1_000)
    assert pace.ahead(1.5) == pytest.approx(10, abs=1)
    assert pace.ahead(2.0) == 0
    assert repr(pace) == "<Pace 0 ended of late>"


@pytest.mark.parametrize(("executors", "most"), [(1, 0), (3, 0), (4, 1), (7, 1), (100, 25)])
def test_a_small_pool_claims_little_ahead(executors, most):
    assert ahead_max(executors) == most
    assert pace_of(executors, 10_000).ahead(0.999) == most
