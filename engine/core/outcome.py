"""What an answer to a callback means.

The table follows Standard Webhooks and CloudEvents webhooks where they speak: a redirect is a
failure and never followed, 410 is for good, Retry-After is honoured. 401, 403 and 404 are retried,
because deploys cause them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from types import MappingProxyType

import attrs

from .http_date import parse_http_date
from .task import CallbackResult, ErrorClass

PERMANENT = frozenset({400, 405, 406, 410, 411, 413, 414, 415, 422, 501, 505})
"""Statuses that no repetition can mend."""

UNCOUNTED_PAUSE_S: Mapping[ErrorClass, float] = MappingProxyType(
    {
        ErrorClass.INTERRUPTED: 0.0,
        ErrorClass.LOST: 0.0,
        ErrorClass.CANCELLED: 0.0,
        ErrorClass.SHORTAGE: 1.0,
    }
)
"""What is our own fault, and how long to wait before the attempt is repeated."""


class Verdict(enum.Enum):
    """What the engine makes of an attempt."""

    SUCCESS = enum.auto()
    RETRY = enum.auto()  # another attempt may help
    PERMANENT = enum.auto()  # no attempt will help
    UNCOUNTED = enum.auto()  # our own fault: uses up nothing


@attrs.frozen(kw_only=True)
class Answer:
    """What came back from a callback: a response, or the class of what went wrong."""

    status_code: int | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)  # names in lower case
    body: bytes = b""
    truncated: bool = False
    error_class: ErrorClass | None = None
    error: str | None = None

    @cached_property
    def result(self) -> CallbackResult:
        """What of it is kept. The body is read as UTF-8; bad bytes and NUL are shown as U+FFFD,
        because no store could keep them. Made once: the task and its attempt log share it."""
        error_class, error = self.error_class, self.error
        if error_class is None and classify(self) is not Verdict.SUCCESS:
            status = self.status_code or 0
            error_class = ErrorClass.REDIRECT if 300 <= status <= 399 else ErrorClass.HTTP_STATUS
            error = f"the callback answered {status}"
            if error_class is ErrorClass.REDIRECT:
                error += "; redirects are not followed"
        body = None
        if self.status_code is not None:
            body = self.body.decode("utf-8", "replace").replace("\x00", "\ufffd")
        return CallbackResult(
            status_code=self.status_code,
            body=body,
            truncated=self.truncated,
            error_class=error_class,
            error=error,
        )


def classify(answer: Answer) -> Verdict:
    """The verdict on an answer."""
    if answer.error_class is not None:
        return Verdict.UNCOUNTED if answer.error_class in UNCOUNTED_PAUSE_S else Verdict.RETRY
    status = answer.status_code or 0
    if 200 <= status <= 299:
        return Verdict.SUCCESS
    if status in PERMANENT or answer.headers.get("x-task-no-retry", "").strip().lower() == "true":
        return Verdict.PERMANENT
    return Verdict.RETRY


_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")  # the grammar has no fractions, some callees do
_SECONDS_MAX = 1e12  # whatever is more is capped anyway


def retry_after_s(answer: Answer, now: datetime) -> float | None:
    """Seconds the callee asks us to wait (RFC 9110 §10.2.3: seconds or a date), or ``None`` if it
    does not ask or asks for nonsense. After our own fault, what we need ourselves."""
    if answer.error_class is not None and answer.error_class in UNCOUNTED_PAUSE_S:
        return UNCOUNTED_PAUSE_S[answer.error_class]
    value = answer.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), _SECONDS_MAX)
    moment = parse_http_date(value, now)
    return None if moment is None else max(0.0, (moment - now).total_seconds())
