"""Preconditions and ranges: which part of a representation a request gets (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

import re

from attrs import frozen

from regcache.http.fields import etags, parse_date, same_strong, same_weak
from regcache.http.messages import Headers

__all__ = [
    "NotModified",
    "Part",
    "PreconditionFailed",
    "Unsatisfiable",
    "Verdict",
    "Whole",
    "content_range",
    "evaluate",
    "wanted_part",
    "wants_whole",
]

#: The fields of a request by which it may get another answer than the whole.
_SELECTING = frozenset({"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range"})
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,40})-([0-9]{0,40})[ \t]*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)


@frozen
class Whole:
    """All of it."""


@frozen
class NotModified:
    """The client has it already."""


@frozen
class PreconditionFailed:
    """The client wanted another version of it."""


@frozen
class Part:
    """The bytes from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int


@frozen
class Unsatisfiable:
    """No byte of the range exists."""


Verdict = Whole | NotModified | PreconditionFailed | Part | Unsatisfiable


def wants_whole(headers: Headers) -> bool:
    """Whether a request has no preconditions and no range, so that it gets all, whatever it is of."""
    return _SELECTING.isdisjoint([name for name, _ in headers.items])


def evaluate(
    method: str, headers: Headers, *, etag: str = "", last_modified: float | None = None, size: int | None = None
) -> Verdict:
    """
    What a request gets, in the order of RFC 9110 section 13.2.2.

    :param etag: the representation's entity tag, or empty.
    :param last_modified: its date, or None.
    :param size: its length in bytes, or None while it is not known; then no range can be given.
    """
    if _has_changed(headers, etag, last_modified):
        return PreconditionFailed()
    if _is_known(headers, etag, last_modified):
        return NotModified()
    if method != "GET" or size is None or not _may_be_part(headers, etag, last_modified):
        return Whole()
    return _range(headers.get("range"), size)


def content_range(text: str) -> tuple[Part, int] | None:
    """
    Which bytes a 206 holds, and the length of the whole (RFC 9110 section 14.4); None if it does not say both.
    """
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    part, size = Part(int(match[1]), int(match[2]) + 1), int(match[3])
    return (part, size) if part.start < part.stop <= size else None


def wanted_part(text: str, size: int) -> Part | Unsatisfiable | None:
    """The bytes that a Range field asks for; None for those of a whole, or several ranges."""
    found = _range(text, size) if text else Whole()
    return found if isinstance(found, Part | Unsatisfiable) else None


def _has_changed(headers: Headers, etag: str, last_modified: float | None) -> bool:
    if "if-match" in headers:
        return not any(tag == "*" or same_strong(tag, etag) for tag in etags(headers.get("if-match")))
    since = parse_date(headers.get("if-unmodified-since"))
    return last_modified is not None and since is not None and int(last_modified) > since


def _is_known(headers: Headers, etag: str, last_modified: float | None) -> bool:
    if "if-none-match" in headers:
        return any(tag == "*" or same_weak(tag, etag) for tag in etags(headers.get("if-none-match")))
    since = parse_date(headers.get("if-modified-since"))
    return last_modified is not None and since is not None and int(last_modified) <= since


def _may_be_part(headers: Headers, etag: str, last_modified: float | None) -> bool:
    if "if-range" not in headers:
        return True
    condition = headers.get("if-range").strip()
    if condition.startswith(('"', "W/")):
        return same_strong(condition, etag)
    return last_modified is not None and parse_date(condition) == float(int(last_modified))


def _range(text: str, size: int) -> Verdict:
    match = _RANGE.fullmatch(text.strip())
    if match is None or match[1] == match[2] == "":
        return Whole()
    if not match[1]:
        length = int(match[2])
        return Part(max(size - length, 0), size) if length and size else Unsatisfiable()
    start = int(match[1])
    stop = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:
        return Whole()
    return Part(start, stop) if start < size else Unsatisfiable()
