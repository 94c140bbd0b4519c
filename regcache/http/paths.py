"""Request paths: split and decoded once, and refused if they could mean two things."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote as _quote
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from regcache.errors import BadRequest
from regcache.http.origins import LONGEST_AGAIN

__all__ = ["led_back", "quote", "requoted", "segments", "tidied"]

_BAD_CHARACTER = re.compile(r"[\x00-\x1f\x7f\\]")
#: A segment that stands for itself, encoded and decoded.
_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: A path that stands for itself, as most do: nothing in it is encoded, and what begins with a dot is looked at closely.
_PLAIN_PATH = re.compile(r"(?:/(?!\.)[A-Za-z0-9!$&'()*+,.:;=@_~-]+)+/?")

#: One of which each segment is its own encoding as well.
_SAME_PATH = re.compile(rf"(?:/{_PLAIN_SEGMENT.pattern})+")


def segments(raw_path: str, keep_slash: bool = False) -> tuple[str, ...]:
    """
    The decoded segments of a raw path (RFC 3986 section 3.3), empty ones kept.

    :param raw_path: still percent-encoded, beginning with ``/``.
    :param keep_slash: whether an encoded slash may stand inside a segment, as in ``@scope%2fname``.
    :raises regcache.errors.BadRequest: for what is no path, or one that could be read in two ways.
    """
    if _PLAIN_PATH.fullmatch(raw_path):
        return tuple(raw_path[1:].split("/"))
    if _BAD_ESCAPE.search(raw_path) or not raw_path.startswith("/"):
        raise BadRequest("The path is not well formed.")
    pieces = raw_path[1:].split("/")
    return tuple([piece if _PLAIN_SEGMENT.fullmatch(piece) else _segment(piece, keep_slash) for piece in pieces])


def _segment(piece: str, keep_slash: bool) -> str:
    try:
        text = unquote_to_bytes(piece.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        raise BadRequest("The path is not UTF-8.") from None
    if _BAD_CHARACTER.search(text):
        raise BadRequest("The path holds characters that no package name has.")
    # Some servers cut a segment at its semicolon before they resolve dots.
    if "." in text and any(part.partition(";")[0] in (".", "..") for part in text.split("/")):
        raise BadRequest("The path climbs.")
    if "/" in text and not keep_slash:
        raise BadRequest("The path holds an encoded slash.")
    return text


def quote(segment: str) -> str:
    """One segment, percent-encoded; ``+`` as well, which some servers read as a space."""
    if _PLAIN_SEGMENT.fullmatch(segment):
        return segment
    return _quoted(segment) if len(segment) <= LONGEST_AGAIN else _quoted.__wrapped__(segment)


def requoted(raw_path: str) -> str:
    """
    A raw path with each of its segments encoded anew, encoded slashes and empty segments kept; without its first slash.

    :raises regcache.errors.BadRequest: as :func:`segments` does.
    """
    if _SAME_PATH.fullmatch(raw_path):
        return raw_path[1:]
    return "/".join(map(quote, segments(raw_path, keep_slash=True)))


def tidied(raw_path: str, keep_slash: bool = False) -> tuple[str, list[str]]:
    """
    A raw path with each of its segments encoded anew, without its first slash, and the segments, decoded.

    Empty ones are left out of both.

    :param keep_slash: as for :func:`segments`.
    :raises regcache.errors.BadRequest: as :func:`segments` does.
    """
    if _SAME_PATH.fullmatch(raw_path):
        path = raw_path[1:]
        return path, path.split("/")
    parts = [part for part in segments(raw_path, keep_slash) if part]
    return "/".join(map(quote, parts)), parts


@lru_cache(4096)
def _quoted(segment: str) -> str:
    return _quote(segment, safe="!$&'()*,;=:@~")


def led_back(location: str, upstream: str, base: str) -> str:
    """
    Where a redirect of the upstream leads: below the mount if it stays below the upstream's URL, else where it did.

    :param upstream: the URL of the upstream, ending with a slash.
    :param base: that of the mount, the same way.
    """
    if location.startswith(upstream):
        return base + location[len(upstream) :]
    path, mount = (urlsplit(url).path or "/" for url in (upstream, base))
    if not location.startswith("/") or location.startswith("//"):
        return location
    return mount + location[len(path) :] if location.startswith(path) else urljoin(upstream, location)
