"""Figures of attempts: totals for ever, latency and success of a bounded window."""

from __future__ import annotations

import pytest

from engine.core.tally import Tally, outcome_name, percentile
from engine.core.task import CallbackResult, ErrorClass
from tests.support.builders import an_attempt, an_id

FAILED = CallbackResult(status_code=500, error_class=ErrorClass.HTTP_STATUS, error="answered 500")


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 0.0, 1.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 3.0),
        ([1.0, 2.0, 3.0, 4.0], 1.0, 4.0),
        ([float(n) for n in range(100)], 0.95, 95.0),
    ],
)
def test_a_percentile_is_one_of_the_values(values, share, expected):
    assert percentile(values, share) == expected


def test_an_outcome_is_success_or_the_class_of_error():
    assert outcome_name(CallbackResult(status_code=204)) == "success"
    assert outcome_name(FAILED) == "http_status"


def test_without_attempts_nothing_is_claimed():
    figures = Tally(10).figures()
    assert (figures.total, figures.by_outcome, figures.success_rate) == (0, {}, None)
    assert figures.latency.p50_s is figures.latency.p95_s is figures.latency.p99_s is None


def test_attempts_are_counted_by_outcome():
    tally = Tally(10)
    for number, result in enumerate([CallbackResult(status_code=200), FAILED, FAILED, FAILED], 1):
        tally.add(an_attempt(an_id(), number, result=result, duration_s=float(number)))
    figures = tally.figures()
    assert figures.total == 4
    assert figures.by_outcome == {"success": 1, "http_status": 3}
    assert figures.success_rate == 0.25
    assert figures.latency.p50_s == 3.0
    assert figures.latency.p99_s == 4.0


def test_latency_speaks_of_the_window_and_totals_of_everything():
    tally = Tally(2)
    for number in range(1, 6):
        result = FAILED if number <= 3 else CallbackResult(status_code=200)
        tally.add(an_attempt(an_id(), number, result=result, duration_s=float(number)))
    figures = tally.figures()
    assert figures.total == 5
    assert figures.success_rate == 1.0
    assert figures.latency.p50_s == 5.0
