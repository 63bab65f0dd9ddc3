"""What an answer means, against the table of the specification."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, strategies as st

from engine.core.outcome import PERMANENT, Answer, Verdict, classify, retry_after_s
from engine.core.task import CallbackResult, ErrorClass

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# SPEC section 3, row by row.
SUCCESS = range(200, 300)
REDIRECT = range(300, 400)
RETRIED = {408, 425, 429, *range(500, 600)} - {501, 505}
FOR_GOOD = {400, 405, 406, 410, 411, 413, 414, 415, 422, 501, 505}
OTHER_4XX = set(range(400, 500)) - RETRIED - FOR_GOOD
TRANSIENT = {
    ErrorClass.DNS,
    ErrorClass.EGRESS_DENIED,
    ErrorClass.REFUSED,
    ErrorClass.TLS,
    ErrorClass.CONNECT_TIMEOUT,
    ErrorClass.TIMEOUT,
    ErrorClass.DISCONNECTED,
    ErrorClass.PROTOCOL,
    ErrorClass.INVALID_REQUEST,
    ErrorClass.CRASHED,
}
OUR_OWN_FAULT = {
    ErrorClass.INTERRUPTED,
    ErrorClass.LOST,
    ErrorClass.CANCELLED,
    ErrorClass.SHORTAGE,
}


def verdict_of_the_specification(status: int) -> Verdict:
    if status in SUCCESS:
        return Verdict.SUCCESS
    return Verdict.PERMANENT if status in FOR_GOOD else Verdict.RETRY


@pytest.mark.parametrize("status", range(100, 600))
def test_every_status(status: int) -> None:
    assert classify(Answer(status_code=status)) is verdict_of_the_specification(status)


def test_the_rows_of_the_specification_leave_no_gap() -> None:
    rows = [set(SUCCESS), set(REDIRECT), RETRIED, FOR_GOOD, OTHER_4XX]
    assert sum(map(len, rows)) == 400
    assert set().union(*rows) == set(range(200, 600))
    assert {401, 403, 404} <= OTHER_4XX
    assert PERMANENT == FOR_GOOD


@pytest.mark.parametrize("error_class", TRANSIENT)
def test_trouble_on_the_way_is_tried_again(error_class: ErrorClass) -> None:
    assert classify(Answer(error_class=error_class)) is Verdict.RETRY


@pytest.mark.parametrize("error_class", OUR_OWN_FAULT)
def test_our_own_fault_uses_up_nothing(error_class: ErrorClass) -> None:
    assert classify(Answer(error_class=error_class)) is Verdict.UNCOUNTED


def test_every_class_of_error_is_in_one_of_the_rows() -> None:
    of_answers = {ErrorClass.HTTP_STATUS, ErrorClass.REDIRECT}
    assert TRANSIENT | OUR_OWN_FAULT | of_answers == set(ErrorClass)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ("true", Verdict.PERMANENT),
        (" TRUE ", Verdict.PERMANENT),
        ("false", Verdict.RETRY),
        ("1", Verdict.RETRY),
        ("", Verdict.RETRY),
    ],
)
def test_a_callee_can_refuse_further_attempts(value: str, verdict: Verdict) -> None:
    assert classify(Answer(status_code=503, headers={"x-task-no-retry": value})) is verdict


def test_a_success_stays_one_whatever_the_header_says() -> None:
    answer = Answer(status_code=200, headers={"x-task-no-retry": "true"})
    assert classify(answer) is Verdict.SUCCESS


def test_an_answer_without_anything_is_tried_again() -> None:
    assert classify(Answer()) is Verdict.RETRY


# -- the result that is kept -------------------------------------------------------------------


def test_a_success_keeps_status_and_body() -> None:
    found = Answer(status_code=200, body="größe".encode(), truncated=True).result
    assert found == CallbackResult(status_code=200, body="größe", truncated=True)


def test_a_refusal_keeps_the_body_and_says_what_it_was() -> None:
    assert Answer(status_code=404, body=b"no").result == CallbackResult(
        status_code=404,
        body="no",
        error_class=ErrorClass.HTTP_STATUS,
        error="the callback answered 404",
    )


def test_a_redirect_is_named_as_such() -> None:
    found = Answer(status_code=302).result
    assert found.error_class is ErrorClass.REDIRECT
    assert found.error == "the callback answered 302; redirects are not followed"


def test_trouble_on_the_way_has_no_body() -> None:
    found = Answer(error_class=ErrorClass.DNS, error="no such host").result
    assert found == CallbackResult(error_class=ErrorClass.DNS, error="no such host")


@given(st.binary(max_size=200), st.integers(100, 599))
@example(b"a\x00b\xff", 200)
def test_any_body_can_be_stored(body: bytes, status: int) -> None:
    found = Answer(status_code=status, body=body).result.body
    assert found is not None
    assert "\x00" not in found
    found.encode()  # no lone surrogates


# -- Retry-After -------------------------------------------------------------------------------


def asked(value: str) -> float | None:
    return retry_after_s(Answer(status_code=503, headers={"retry-after": value}), NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("\t30 ", 30.0),
        ("0" * 20 + "120", 120.0),
        ("9" * 50, 1e12),
        ("9" * 500, 1e12),
        ("1.5", 1.5),
        ("1.", 1.0),
        ("9" * 50 + ".5", 1e12),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Fri, 02 Jan 2026 03:05:05 -0000", 60.0),  # zone unknown: read as UTC
        ("Fri, 02 Jan 2026 04:05:05 +0100", 60.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Friday, 02-Jan-26 03:05:05 GMT", 60.0),
        ("Fri Jan  2 03:05:05 2026", 60.0),
        ("", None),
        (" \t ", None),
        ("-5", None),
        ("-0", None),
        ("+5", None),
        (".5", None),
        ("1e3", None),
        ("1_000", None),
        ("0x10", None),
        ("120 s", None),
        ("1 2", None),
        ("120, 240", None),
        ("5\n", 5.0),
        ("NaN", None),
        ("inf", None),
        ("soon", None),
        ("\u0663", None),
        ("2026-01-02T03:05:05Z", None),
        ("Fri, 99 Jan 2026 03:05:05 GMT", None),
        ("Fri, 02 Jan 2026 03:05:05 +9999999999", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert asked(value) == seconds


@pytest.mark.parametrize("status", [302, 401, 408, 425, 429, 500, 502, 503, 504, 599])
def test_a_retry_after_counts_with_every_status_that_is_retried(status: int) -> None:
    answer = Answer(status_code=status, headers={"retry-after": "120"})
    assert classify(answer) is Verdict.RETRY
    assert retry_after_s(answer, NOW) == 120.0


def test_no_header_asks_for_nothing() -> None:
    assert retry_after_s(Answer(status_code=503), NOW) is None


def test_a_shortage_of_our_own_needs_a_pause_and_an_interruption_none() -> None:
    assert retry_after_s(Answer(error_class=ErrorClass.SHORTAGE), NOW) == 1.0
    assert retry_after_s(Answer(error_class=ErrorClass.INTERRUPTED), NOW) == 0.0
    assert retry_after_s(Answer(error_class=ErrorClass.REFUSED), NOW) is None


@given(
    st.text(max_size=60)
    | st.text("0123456789:+- ,JanFriGMTZ().", max_size=60)
    | st.from_regex(r"[A-Z][a-z]{2}, \d{1,4} [A-Z][a-z]{2} \d{1,5} \d+:\d+:\d+ [+-]?\w*")
    | st.from_regex(r"Fri, \d\d (Jan|Feb|Dec) \d{4} \d\d:\d\d:\d\d [+-]\d{4}", fullmatch=True)
)
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = asked(value)
    assert seconds is None or 0 <= seconds <= 1e12


@given(st.integers(-(10**6), 10**6))
def test_a_date_is_so_many_seconds_away(seconds: int) -> None:
    moment = NOW + timedelta(seconds=seconds)
    assert asked(moment.strftime("%a, %d %b %Y %H:%M:%S GMT")) == max(0, seconds)
