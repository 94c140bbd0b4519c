"""What a client is answered with, and how the cache came by it."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from attrs import frozen
from msgspec.structs import replace
from zope.interface import implementer

from regcache.http.messages import Headers, Stored
from regcache.http.ranges import NotModified, Part, PreconditionFailed, Unsatisfiable, Verdict
from regcache.interfaces import IBody

__all__ = ["Figures", "How", "Reply", "Standing", "Unknown", "cache_status", "figures", "timed", "ttl_left"]

#: The fields that a 304 repeats (RFC 9110 section 15.4.5).
_NOT_MODIFIED_FIELDS = frozenset(
    {"etag", "last-modified", "cache-control", "vary", "age", "date", "expires", "content-location"}
)


class How(enum.Enum):
    """How a request was answered: the value of ``X-Cache``."""

    # There is one of each: an enumeration's own is made of the name again every time.
    __hash__ = object.__hash__

    #: A stored copy; no registry was asked for it.
    HIT = "HIT"
    #: What the registry sent, or what it is sending; or why it could not be had.
    MISS = "MISS"
    #: A stored copy past its time, since the registry could not be asked for a newer one.
    STALE = "STALE"
    #: A stored copy, after the registry said that it still holds.
    REVALIDATED = "REVALIDATED"
    #: Nothing of a registry's that could be stored: what the service says itself, and what is passed on.
    BYPASS = "BYPASS"


@implementer(IBody)
class Unknown:
    """The body of an answer to HEAD, when nobody has said how long it is."""

    size = None

    def read(self, offset: int, length: int) -> bytes:
        del offset, length
        return b""

    def close(self) -> None:
        """Nothing was open."""


@frozen(kw_only=True)
class Standing:
    """
    How long the reply to such a request stays what it is, but for its age: nothing has to be decided anew meanwhile.

    Times are seconds by the wall clock.

    :ivar until: from when on it has to be.
    :ivar entries: what is stored, by key, None for nothing: as soon as any of it is another, it has to be as well.
    :ivar vouched_at: since when it ages.
    :ivar fresh_until: when it becomes stale; infinite for never.
    :ivar used: the key of the entry whose use each answer is.
    :ivar given: told when it is given, at least once in every second in which it is.
    :ivar selected_by: the fields of a request, in lower case, that choose among what is stored: with others it may
        get another reply.
    """

    until: float
    entries: tuple[tuple[str, Stored | None], ...]
    vouched_at: float
    fresh_until: float = math.inf
    used: str
    given: Callable[[], None]
    selected_by: frozenset[str] = frozenset()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """
    A response, ready to be sent.

    :ivar body: bytes, or something to read them from; a body to read from must be closed by whoever sends it.
    :ivar start: the first byte of the body to send.
    :ivar stop: the byte after the last, or None to send until the body ends.
    :ivar how: how it was come by.
    :ivar detail: the rest of the Cache-Status field's parameters.
    :ivar told: the Cache-Status parameters, where they say more than ``how`` and ``detail`` do.
    :ivar relayed: whether the fields are the upstream's own word, in whose place nothing of ours is put.
    :ivar upstream_seconds: how long the upstream was waited for.
    :ivar standing: how long it holds, where that is known.
    :ivar packages: those it is of, where whoever made it knows that.
    """

    status: int
    headers: Headers
    body: bytes | IBody = b""
    start: int = 0
    stop: int | None = None
    how: How = How.BYPASS
    detail: str = ""
    told: str = ""
    relayed: bool = False
    upstream_seconds: float | None = None
    standing: Standing | None = None
    packages: tuple[str, ...] | None = None

    @property
    def length(self) -> int | None:
        """How many bytes will be sent, or None while that is not known."""
        if self.stop is not None:
            return self.stop - self.start
        size = len(self.body) if isinstance(self.body, bytes) else self.body.size
        return None if size is None else size - self.start

    def close(self) -> None:
        """It will not be sent."""
        if not isinstance(self.body, bytes):
            self.body.close()

    def unsent(self, verdict: Verdict) -> Reply | None:
        """The mere head that a request gets whose preconditions or range leave none of the body; None if they do."""
        if isinstance(verdict, NotModified):
            return self.without_body(304, Headers(tuple(one for one in self.headers if one[0] in _NOT_MODIFIED_FIELDS)))
        if isinstance(verdict, PreconditionFailed):
            return self.without_body(412, Headers())
        if isinstance(verdict, Unsatisfiable):
            return self.without_body(416, Headers.of({"content-range": f"bytes */{self.length}"}))
        return None

    def of_part(self, part: Part) -> Reply:
        """That part of the whole body."""
        fields = {"content-range": f"bytes {part.start}-{part.stop - 1}/{self.length}"}
        return replace(self, status=206, headers=self.headers.replacing(fields), start=part.start, stop=part.stop)

    def without_body(self, status: int, headers: Headers) -> Reply:
        """The same answer as a mere head."""
        self.close()
        return replace(self, status=status, headers=headers, body=b"", start=0, stop=0)


_CACHE_STATUS = {
    How.HIT: "hit",
    How.MISS: "fwd=uri-miss",
    How.STALE: "hit; detail=stale",
    How.REVALIDATED: "hit; detail=revalidated",
    How.BYPASS: "fwd=bypass",
}


def ttl_left(fresh_until: float, now: float) -> str:
    """The parameter of Cache-Status that says how many seconds are left; nothing for ever."""
    return f"ttl={int(fresh_until - now)}" if math.isfinite(fresh_until) else ""


class Figures(NamedTuple):
    """
    What counts on with the time of a reply that stands.

    :ivar age: the value of its Age, if it has that field.
    :ivar detail: the rest of the Cache-Status field's parameters.
    :ivar until: when these are others.
    """

    age: str
    detail: str
    until: float


def figures(reply: Reply, standing: Standing, now: float) -> Figures:
    """
    Those of a reply at that time.

    :param now: seconds by the wall clock.
    """
    age = max(int(now - standing.vouched_at), 0)
    until = min(math.floor(now) + 1, standing.vouched_at + age + 1, standing.until)
    left = standing.fresh_until - now
    if not math.isfinite(left):
        return Figures(str(age), reply.detail, until)
    return Figures(str(age), ttl_left(standing.fresh_until, now), min(until, now + left - int(left)))


def timed(reply: Reply, now: float) -> tuple[Reply, float]:
    """
    A reply that stands, as it is at that time, and until when it is that: its age and its time to live count on.

    :param now: seconds by the wall clock.
    """
    if reply.standing is None:
        return reply, now
    age, detail, until = figures(reply, reply.standing, now)
    headers = reply.headers
    if headers.get("age", age) != age:
        headers = headers.replacing({"age": age})
    if headers is not reply.headers or detail != reply.detail:
        reply = replace(reply, headers=headers, detail=detail)
    return reply, until


def cache_status(reply: Reply, detail: str | None = None) -> str:
    """
    The Cache-Status field's value (RFC 9211).

    :param detail: in place of the reply's own.
    """
    if reply.told:
        return f"regcache; {reply.told}"
    rest = reply.detail if detail is None else detail
    return f"regcache; {_CACHE_STATUS[reply.how]}{rest and f'; {rest}'}"
