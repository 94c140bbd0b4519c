"""How old a response is, and how long it stays fresh by its own account (RFC 9111 section 4.2)."""

from __future__ import annotations

import math
import re

from attrs import frozen

from regcache.http.dates import http_date
from regcache.http.directives import MOST_SECONDS, Directives
from regcache.http.fields import format_date
from regcache.http.messages import Headers

__all__ = ["HEURISTIC_STATUSES", "Lifetime", "date_of", "dated", "expires_after", "initial_age", "lifetime"]

#: Final statuses whose responses may be kept for a while though they say nothing of it (RFC 9110 section 15.1).
HEURISTIC_STATUSES = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
#: The part of the time since it was last changed for which a response that says nothing is fresh (RFC 9111 section
#: 4.2.2).
_HEURISTIC_PART = 0.1
_AGE = re.compile(r"[0-9]+", re.ASCII)


@frozen
class Lifetime:
    """
    For how long a response is fresh.

    :ivar seconds: from when the origin made it.
    :ivar stated: whether the response says so itself.
    """

    seconds: float
    stated: bool = True


def _single(headers: Headers, name: str) -> str | None:
    """A field's value if it has one, or several alike; None if it contradicts itself or is not there."""
    lines = {line.strip() for line in headers.lines(name)}
    return lines.pop() if len(lines) == 1 else None


def date_of(headers: Headers, received: float) -> float:
    """When a response was made: its Date, or when it came if that says nothing (RFC 9110 section 6.6.1)."""
    text = _single(headers, "date")
    when = None if text is None else http_date(text, received)
    return received if when is None else when


def dated(headers: Headers, received: float) -> Headers:
    """The fields with a Date, as whoever passes a response on has to give it one (RFC 9110 section 6.6.1)."""
    text = _single(headers, "date")
    if text is not None and http_date(text, received) is not None:
        return headers
    return headers.replacing({"date": format_date(received)})


def _age_value(headers: Headers) -> float:
    """What Age says: the first of several counts, and what is no number says nothing (RFC 9111 section 5.1)."""
    first = headers.get("age").split(",")[0].strip()
    return float(min(int(first[:20]), MOST_SECONDS)) if _AGE.fullmatch(first) else 0.0


def initial_age(headers: Headers, asked: float, received: float) -> float:
    """
    How old a response was when it came (RFC 9111 section 4.2.3), in seconds.

    :param asked: when it was asked for, by the wall clock.
    :param received: when its head came.
    """
    apparent = max(received - date_of(headers, received), 0.0)
    return max(apparent, _age_value(headers) + max(received - asked, 0.0))


def expires_after(headers: Headers, received: float) -> float | None:
    """
    Seconds from Date to Expires; None without Expires.

    An invalid one lies in the past (RFC 9111 section 5.3), and so do several that are not alike.
    """
    if "expires" not in headers:
        return None
    text = _single(headers, "expires")
    when = None if text is None else http_date(text, received)
    return 0.0 if when is None else max(when - date_of(headers, received), 0.0)


def lifetime(
    status: int, headers: Headers, said: Directives, received: float, longest_guess: float = math.inf
) -> Lifetime:
    """
    How long a response is fresh for a shared cache (RFC 9111 section 4.2.1).

    :param said: its directives.
    :param received: when it came, for one without a Date.
    :param longest_guess: the most that is guessed of one that says nothing.
    """
    for name in ("s-maxage", "max-age"):
        seconds = said.seconds(name)
        if seconds is not None:
            return Lifetime(seconds)
    until = None if said.targeted else expires_after(headers, received)
    if until is not None:
        return Lifetime(until)
    return Lifetime(_guess(status, headers, said, received, longest_guess), stated=False)


def _guess(status: int, headers: Headers, said: Directives, received: float, longest: float) -> float:
    if status not in HEURISTIC_STATUSES and "public" not in said:
        return 0.0
    text = _single(headers, "last-modified")
    changed = None if text is None else http_date(text, received)
    if changed is None:
        return 0.0
    return min(max(date_of(headers, received) - changed, 0.0) * _HEURISTIC_PART, longest)
