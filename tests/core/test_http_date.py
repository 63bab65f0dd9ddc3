"""HTTP-date: the three forms of RFC 9110 §5.6.7, and what is none of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from engine.core.http_date import parse_http_date

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXAMPLE = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
moments = st.datetimes(
    datetime(1900, 1, 1),  # noqa: DTZ001
    datetime(2199, 12, 31),  # noqa: DTZ001
).map(lambda moment: moment.replace(microsecond=0, tzinfo=UTC))


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        # Not in the grammar, but plain:
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37",
        "Sun Nov 06 08:49:37 1994 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 Z",
        "Sun, 06 Nov 1994 08:49:37 -0000",
        "Sun, 06 Nov 1994 10:19:37 +0130",
        "Sun, 06 Nov 1994 00:49:37 -0800",
    ],
)
def test_every_form_of_a_date(text: str) -> None:
    found = parse_http_date(text, NOW)
    assert found == EXAMPLE
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sun",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 EST",
        "Sun, 06 Nov 1994 08:49:37 GMT and more",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +2400",
        "Fri, 31 Dec 9999 23:59:59 -0001",
        "Sat, 01 Jan 0001 00:00:00 +0001",
        "Sunday, 29-Feb-00 00:00:00 GMT in 2100",
        "S\u00fcn, 06 Nov 1994 08:49:37 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert parse_http_date(text, NOW) is None


def test_a_leap_second_is_the_second_before_it() -> None:
    found = parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW)
    assert found == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("Friday, 02-Jan-26 03:04:05 GMT", 2026),
        ("Friday, 02-Jan-25 03:04:05 GMT", 2025),
        ("Friday, 02-Jan-75 03:04:05 GMT", 2075),
        ("Friday, 02-Jan-76 03:04:05 GMT", 2076),  # 50 years ahead, not more
        ("Friday, 02-Jan-76 03:04:06 GMT", 1976),
        ("Friday, 03-Jan-76 00:00:00 GMT", 1976),
        ("Friday, 02-Jan-77 03:04:05 GMT", 1977),
        ("Friday, 02-Jan-99 03:04:05 GMT", 1999),
        ("Friday, 02-Jan-00 03:04:05 GMT", 2000),
    ],
)
def test_two_digits_more_than_fifty_years_ahead_mean_the_past(text: str, year: int) -> None:
    found = parse_http_date(text, NOW)
    assert found is not None
    assert found.year == year


def test_at_the_end_of_a_century_two_digits_mean_the_next() -> None:
    found = parse_http_date("Friday, 01-Jan-00 00:00:00 GMT", NOW.replace(year=2099))
    assert found == datetime(2100, 1, 1, tzinfo=UTC)


def test_a_day_that_the_settled_century_does_not_have_is_none() -> None:
    assert parse_http_date("Monday, 29-Feb-00 00:00:00 GMT", NOW.replace(year=2099)) is None


@given(moments)
def test_a_date_written_in_any_form_is_read_back(moment: datetime) -> None:
    forms = ["%a, %d %b %Y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
    if timedelta(0) < moment - NOW < timedelta(days=365 * 49):
        forms.append("%A, %d-%b-%y %H:%M:%S GMT")
    for form in forms:
        assert parse_http_date(moment.strftime(form), NOW) == moment
