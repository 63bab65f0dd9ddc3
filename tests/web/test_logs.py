"""The log: one line each, no secrets, and clients cannot forge lines."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import TracebackType

import pytest

from tests.support.server import environment
from web.logs import LogFormatter

KEY = "rbk_ci_" + "x" * 43
KNOWN = "c2VjcmV0IGtleSBvZiBvdXJz"


def record(message: str, *values: object, error: BaseException | None = None) -> logging.LogRecord:
    info: tuple[type[BaseException], BaseException, TracebackType | None] | None = None
    if error is not None:
        info = (type(error), error, error.__traceback__)
    return logging.LogRecord("ringback.web", logging.INFO, "", 0, message, values, info)


def logged(message: str, *values: object, error: BaseException | None = None) -> str:
    return LogFormatter([KNOWN]).format(record(message, *values, error=error))


@pytest.mark.parametrize(
    "secret", [KEY, KNOWN, f"whsec_{KNOWN}", "Bearer abcdefgh", "Authorization: Basic YTpi"]
)
def test_secrets_are_masked_in_messages_values_and_tracebacks(secret: str) -> None:
    error = RuntimeError(f"with {secret}")
    error.__cause__ = ValueError(f"because of {secret}")
    text = logged(f"said {secret} and %s", {"key": secret}, error=error)
    assert secret.rpartition(" ")[2] not in text
    assert text.count("***") >= 4
    assert "RuntimeError: with" in text


@pytest.mark.parametrize("char", list("\n\r\x00\x1b\x7f\x85\u2028\u202e\v\f\t"))
def test_a_message_is_one_line_and_cannot_steer_a_terminal(char: str) -> None:
    text = logged("refused %s", f"/x{char}2026-01-01 00:00:00,000 INFO ringback: all is well")
    assert len(text.splitlines()) == 1
    assert char not in text
    assert repr(char)[1:-1] in text


def test_lines_of_a_traceback_cannot_be_taken_for_lines_of_the_log() -> None:
    forged = "x\n2026-01-01 INFO a\r2026-01-01 INFO b\u20282026-01-01 INFO c\x1b[2J"
    first, *rest = logged("failed", error=RuntimeError(forged)).splitlines()
    assert first.endswith("INFO ringback.web: failed")
    assert len(rest) == 4
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in "".join(rest)


def test_ordinary_lines_stay_as_they_are() -> None:
    text = logged("the store does not answer: %s", "disk I/O error: 5 é")
    assert text.endswith(" INFO ringback.web: the store does not answer: disk I/O error: 5 é")


CRASH = f"""
import logging, sys
from web import logs
logs.configure("debug", ["{KNOWN}"])
logging.getLogger("ringback.web").debug("hello")
logging.getLogger("httpcore.http11").debug("a header: {KNOWN}")
logging.getLogger("other").debug("also %s", "Bearer abcdefgh")
raise RuntimeError("it was {KNOWN} and {KEY}")
"""


def test_what_ends_the_process_is_told_without_secrets_too() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CRASH],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert KNOWN not in ended.stderr
    assert KEY not in ended.stderr
    assert "RuntimeError: it was *** and rbk_ci_***" in ended.stderr
    assert "DEBUG ringback.web: hello" in ended.stderr
    assert "DEBUG other: also Bearer ***" in ended.stderr
    assert "a header" not in ended.stderr
