"""HTTP-date (RFC 9110 §5.6.7) as a moment: the one form senders must use, and the two old ones.

    Sun, 06 Nov 1994 08:49:37 GMT     IMF-fixdate
    Sunday, 06-Nov-94 08:49:37 GMT    RFC 850, a year of two digits
    Sun Nov  6 08:49:37 1994          asctime

More is taken than the grammar has, where the meaning is plain: a missing zone is GMT, an offset is
reckoned with, the name of the day is not looked at. What is no date in one of these forms is none.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_ZONE = r"(?: +(?:GMT|UTC?|Z|(?P<offset>[+-]\d{4})))?"
_FORMS = (
    rf"[a-z]+,? +(?P<day>\d\d?)[ -](?P<month>[a-z]{{3}})[ -](?P<year>\d{{4}}|\d\d) +{_TIME}{_ZONE}",
    rf"[a-z]+ +(?P<month>[a-z]{{3}}) +(?P<day>\d\d?) +{_TIME} +(?P<year>\d{{4}}){_ZONE}",
)
_DATES = tuple(re.compile(form, re.ASCII | re.IGNORECASE) for form in _FORMS)


def parse_http_date(text: str, now: datetime) -> datetime | None:
    """The moment, or ``None``. ``now`` settles the century of a year of two digits."""
    found = next(filter(None, (date.fullmatch(text) for date in _DATES)), None)
    if found is None:
        return None
    year, month = int(found["year"]), _MONTHS.get(found["month"].lower(), 0)
    clock = (int(found["hour"]), int(found["minute"]), min(int(found["second"]), 59))  # leap second
    day = int(found["day"])
    if len(found["year"]) == 2:
        year = _full_year(year, (month, day, *clock), now)
    try:
        return datetime(year, month, day, *clock, tzinfo=_zone(found["offset"])).astimezone(UTC)
    except (ValueError, OverflowError):  # no such day, or none in UTC
        return None


def _full_year(year: int, rest: tuple[int, ...], now: datetime) -> int:
    """The year that ends in these two digits; more than 50 years ahead means the past."""
    ahead = (year - now.year) % 100
    if (ahead, rest) > (50, now.timetuple()[1:6]):
        ahead -= 100
    return now.year + ahead


def _zone(offset: str | None) -> timezone:
    if offset is None:
        return UTC
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
