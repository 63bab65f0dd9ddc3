"""How long a client wants to wait, from its ``Prefer`` header."""

from __future__ import annotations

import pytest

from web.prefer import wait_s
from web.problems import Problem


@pytest.mark.parametrize(
    ("header", "seconds", "applied"),
    [
        (None, 30.0, None),
        ("", 30.0, None),
        ("handling=lenient", 30.0, None),
        ("respond-async", 0.0, "respond-async"),
        ("Respond-Async", 0.0, "respond-async"),
        ("wait=5", 5.0, "wait=5"),
        ('wait="5"', 5.0, "wait=5"),
        ("WAIT = 5", 5.0, "wait=5"),
        ("wait=5; really", 5.0, "wait=5"),
        ("wait=0", 0.0, "wait=0"),
        ("wait=999999", 600.0, "wait=600"),
        ("handling=strict, wait=7", 7.0, "wait=7"),
        ("wait=7, wait=8", 7.0, "wait=7"),
        ("respond-async, wait=10", 10.0, "wait=10"),
        ("wait=10, respond-async", 10.0, "wait=10"),
    ],
)
def test_the_wait_is_what_the_header_says_up_to_the_limit(
    header: str | None, seconds: float, applied: str | None
) -> None:
    assert wait_s(header, 30.0, 600.0) == (seconds, applied)


@pytest.mark.parametrize(
    "header", ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "wait=²", "wait=" + "9" * 50]
)
def test_a_wait_that_is_no_number_of_seconds_is_a_bad_request(header: str) -> None:
    with pytest.raises(Problem) as caught:
        wait_s(header, 30.0, 600.0)
    assert caught.value.status == 400
    assert "wait=10" in caught.value.detail
