"""HTTP dates, read as strictly as they are defined: for what a lifetime hangs on (RFC 9110 section 5.6.7)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["http_date"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = "(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        rf"{_DAY}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",
        rf"{_LONG_DAY}, (?P<day>\d\d)-{_MONTH}-(?P<short>\d\d) {_TIME} GMT",
        rf"{_DAY} {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)
_LONGEST_DATE = 40
#: A year of two digits that seems further ahead than this lies in the past (RFC 9110 section 5.6.7).
_FURTHEST_YEARS = 50


def http_date(text: str, now: float) -> float | None:
    """
    Seconds since the epoch of a date in one of the three forms that there are, in whatever case; else None.

    :param now: the wall clock, by which the century of a year of two digits is told.
    """
    if len(text) > _LONGEST_DATE:
        return None
    for form in _FORMS:
        match = form.fullmatch(text.strip(" \t"))
        if match is not None:
            return _seconds(match.groupdict(), now)
    return None


def _seconds(parts: dict[str, str], now: float) -> float | None:
    year = int(parts["year"]) if "year" in parts else _full_year(int(parts["short"]), now)
    month, day = _MONTHS.index(parts["month"].lower()) + 1, int(parts["day"])
    hour, minute, second = (int(parts[name]) for name in ("hour", "minute", "second"))
    try:
        # A leap second counts as the one before it, as it does for the operating system.
        when = datetime(year, month, day, hour, minute, second - (second == 60), tzinfo=UTC)
    except ValueError:
        return None
    return when.timestamp()


def _full_year(short: int, now: float) -> int:
    this = datetime.fromtimestamp(now, UTC).year
    year = this - this % 100 + short
    return year - 100 if year > this + _FURTHEST_YEARS else year
