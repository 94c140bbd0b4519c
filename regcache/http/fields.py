"""The grammar of header fields (RFC 9110, RFC 9111): from text to values and back."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_tz
from functools import lru_cache

from regcache.http.messages import Digest, Headers

__all__ = [
    "accepts_gzip",
    "cache_control",
    "date_as_sent",
    "etags",
    "format_date",
    "hop_by_hop",
    "members",
    "negotiate",
    "parse_date",
    "parse_digests",
    "parse_sri",
    "same_strong",
    "same_weak",
    "seconds",
]

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: What Connection says nearly always: nothing that is not among those.
_USUAL = frozenset({"", "close", "keep-alive"})
_ETAG = re.compile(r'[\s,]*(\*|(?:W/)?"[\x21\x23-\x7e\x80-\xff]*")\s*(?=,|\Z)')
_LONGEST_DATE = 64
#: A date in the form to be sent, in which nearly all come.
_USUAL_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4})"
    r" (\d\d):(\d\d):(\d\d) GMT",
    re.ASCII,
)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FIRST_YEAR = 1970
_LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
_QUALITY = re.compile(r"(?:0(?:\.\d*)?|1(?:\.0*)?|\.\d+)")
_DIGEST_NAMES = {"sha-512": "sha512", "sha-256": "sha256", "sha": "sha1", "md5": "md5"}
_DELAY = re.compile(r"[0-9]{1,12}")
#: A quoted string; and as much of a text as lies before a quote that has no end.
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_CLOSED = re.compile(rf'(?:[^"]++|{_QUOTED})*+', re.DOTALL)
_DIVIDER = re.compile(rf"{_QUOTED}|(,)", re.DOTALL)
_DIRECTIVE = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s,;]*))?')


def members(text: str) -> list[str]:
    """
    What stands between the commas of a list; one in a quoted string is none of them (RFC 9110 section 5.6.1).

    A quote that has no end quotes nothing. However many there are, the time this takes grows only as the text does.
    """
    match = _CLOSED.match(text)
    closed = match.end() if match is not None else 0
    commas = [found.start() for found in _DIVIDER.finditer(text, 0, closed) if found[1]]
    commas += [at for at in range(closed, len(text)) if text[at] == ","]
    return [text[start + 1 : stop] for start, stop in itertools.pairwise([-1, *commas, len(text)])]


def _qualities(text: str) -> Iterator[tuple[str, float]]:
    for item in text.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = (part.strip() for part in parameter.partition("="))
            if key == "q":
                quality = float(value) if _QUALITY.fullmatch(value) else 0.0
        if name:
            yield name, quality


def negotiate(accept: str, offers: Sequence[str]) -> str | None:
    """
    The offer that an Accept field likes best, or None (RFC 9110 section 12.5.1).

    The most specific range decides an offer's quality; among equals the one named most specifically wins, then the
    first. An empty field takes all.
    """
    wanted = dict(_qualities(accept)) or {"*/*": 1.0}

    def liking(offer: str) -> tuple[float, int]:
        kind = offer.partition("/")[0]
        for generality, form in enumerate((offer, f"{kind}/*", "*/*")):
            if form in wanted:
                return wanted[form], -generality
        return 0.0, 0

    best = max(offers, key=liking, default=None)
    return best if best is not None and liking(best)[0] > 0 else None


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding field takes gzip; an empty field is not taken to ask for it."""
    wanted = dict(_qualities(accept_encoding))
    for name in ("gzip", "x-gzip", "*"):
        if name in wanted:
            return wanted[name] > 0
    return False


def parse_date(text: str) -> float | None:
    """
    Seconds since the epoch of an HTTP date in any of its three forms (RFC 9110 section 5.6.7), or None.

    None as well for what lies outside the years 1970 to 9999: such a date could not be sent again.
    """
    parsed = parsedate_tz(text) if len(text) <= _LONGEST_DATE else None
    if parsed is None:
        return None
    year, month, day, hour, minute, second = parsed[:6]
    try:
        # A leap second counts as the one before it, as it does for the operating system.
        when = datetime(year, month, day, hour, minute, second - (second == 60), tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    found = when.timestamp() - (parsed[9] or 0)
    return found if 0 <= found <= _LAST_SECOND else None


def format_date(when: float) -> str:
    """An HTTP date, in the form to be sent."""
    return _dated(int(when))


@lru_cache(1024)
def _dated(second: int) -> str:
    return formatdate(second, usegmt=True)


def date_as_sent(text: str) -> str | None:
    """
    A date as :func:`format_date` writes what :func:`parse_date` reads; None if that reads none.

    Hardly any needs to be written anew, which takes several times as long as to see that it does not.
    """
    if _is_as_sent(text):
        return text
    when = parse_date(text)
    return None if when is None else format_date(when)


def _is_as_sent(text: str) -> bool:
    usual = _USUAL_DATE.fullmatch(text)
    if usual is None:
        return False
    name, day, month, year, hour, minute, second = usual.groups()
    try:
        date = datetime(int(year), _MONTHS.index(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return False
    return date.year >= _FIRST_YEAR and _DAYS[date.weekday()] == name


def etags(text: str) -> list[str]:
    """
    The entity tags of a list, ``*`` among them (RFC 9110 section 8.8.3).

    Empty items are passed over, as section 5.6.1.2 asks; what is malformed ends the list.
    """
    found, at = [], 0
    while match := _ETAG.match(text, at):
        found.append(match[1])
        at = match.end()
    return found


def same_strong(one: str, other: str) -> bool:
    """Strong comparison of two entity tags (RFC 9110 section 8.8.3.2)."""
    return one == other and one.startswith('"')


def same_weak(one: str, other: str) -> bool:
    """Weak comparison of two entity tags."""
    return one.removeprefix("W/") == other.removeprefix("W/") and bool(one)


def cache_control(text: str) -> dict[str, str | None]:
    """The directives of a Cache-Control field, names in lower case; the first of a repeated one counts."""
    found: dict[str, str | None] = {}
    for name, value in _DIRECTIVE.findall(text):
        found.setdefault(name.lower(), value.strip('"') if value else None)
    return found


def parse_sri(text: str) -> tuple[Digest, ...]:
    """The digests of an ``integrity`` value (W3C SRI); what is unknown or malformed is passed over."""
    found = []
    for item in text.split():
        algorithm, _, value = item.partition("?")[0].partition("-")
        with contextlib.suppress(ValueError):
            found.append(Digest.from_base64(algorithm, value))
    return tuple(found)


def parse_digests(text: str) -> tuple[Digest, ...]:
    """
    The digests of a Repr-Digest field (RFC 9530 section 3) or of the Digest field before it (RFC 3230 section 4.3.2).

    Quotes in place of the colons are read as well, since the public gem index sends them. What is unknown or malformed
    is passed over.
    """
    found = []
    for item in text.split(","):
        name, _, value = item.partition(";")[0].partition("=")
        algorithm = _DIGEST_NAMES.get(name.strip().lower(), "")
        with contextlib.suppress(ValueError):
            found.append(Digest.from_base64(algorithm, value.strip().strip(':"')))
    return tuple(found)


def hop_by_hop(headers: Headers) -> frozenset[str]:
    """The names of fields that concern one connection only (RFC 9110 section 7.6.1)."""
    named = headers.get("connection").lower()
    return _HOP_BY_HOP if named in _USUAL else _HOP_BY_HOP.union(filter(None, map(str.strip, named.split(","))))


def seconds(text: str, now: float) -> float | None:
    """The seconds a Retry-After field asks for (RFC 9110 section 10.2.3), or None; never negative, always finite."""
    if _DELAY.fullmatch(text.strip()):
        return float(text)
    when = parse_date(text)
    return None if when is None else max(when - now, 0.0)
