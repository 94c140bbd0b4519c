"""
Documents that grow at their end: asking for the end alone, and whether what comes fits what is there.

Half of an old document and half of a new one must never become one: the byte before the end is asked for again and
compared, and the whole has to have a digest that came with its end. What does not fit is asked for whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from regcache.flow.answers import Answer
from regcache.http.fields import etags, parse_digests
from regcache.http.messages import Digest, Headers, Stored
from regcache.http.ranges import Part, content_range
from regcache.routes import Document

__all__ = ["Misfit", "agrees", "joined", "published", "range_after", "tagged"]


class Misfit(Exception):
    """An end does not belong to what is stored, or nothing proves that it does."""


def range_after(route: Document, stored: Stored | None) -> str:
    """
    The Range field that asks for what follows the stored body, with its last byte; empty to ask for the whole.

    Where the stored body came without a digest, the next will too, and could not be proven to fit.
    """
    if not route.grows or stored is None or not stored.verified or not stored.size:
        return ""
    return f"bytes={stored.size - 1}-"


def published(headers: Headers) -> tuple[Digest, ...]:
    """The digests that came with a document, of the whole of it."""
    return parse_digests(headers.get("repr-digest")) + parse_digests(headers.get("digest"))


def tagged(route: Document, headers: Headers) -> tuple[Digest, ...]:
    """The digest that the entity tag of a document is, where the protocol says so and it looks like one."""
    found = []
    for tag in etags(headers.get("etag")):
        with contextlib.suppress(ValueError):
            found.append(Digest(route.etag, tag.removeprefix("W/").strip('"')))
    return tuple(found)


def agrees(told: Iterable[Digest], found: Iterable[Digest]) -> bool:
    """Whether the strongest of the digests that are told is among those found; of none, it is not."""
    strongest = Digest.strongest(told)
    return strongest is not None and strongest in tuple(found)


def joined(before: bytes, end: bytes, answer: Answer) -> bytes:
    """
    The whole document, not proven yet.

    :param before: what is stored.
    :param end: the body of a 206, beginning with the last byte of that.
    :raises Misfit: if it is another part, or another byte.
    """
    part = content_range(answer.headers.get("content-range"))
    start, size = len(before) - 1, len(before) - 1 + len(end)
    if answer.coding or part != (Part(start, size), size) or end[:1] != before[-1:]:
        raise Misfit(f"{answer.url} did not give the end of what is stored.")
    return before + end[1:]
