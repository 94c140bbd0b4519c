"""The portion of a stored response that a request gets: by its conditions, and by its range."""

from __future__ import annotations

from attrs import evolve

from regcache.flow.reply import Reply
from regcache.http.fields import parse_date
from regcache.http.held import Held
from regcache.http.messages import Headers, RequestHead
from regcache.http.ranges import NotModified, Part, PreconditionFailed, Unsatisfiable, Whole, evaluate, wanted_part

__all__ = ["portion"]

#: The fields that a 304 repeats (RFC 9110 section 15.4.5).
_NOT_MODIFIED_FIELDS = frozenset(
    {"etag", "last-modified", "cache-control", "vary", "age", "date", "expires", "content-location"}
)


def portion(request: RequestHead, one: Held, reply: Reply) -> Reply:
    """The part of a whole response that the request's preconditions and range leave (RFC 9110 section 13.2)."""
    if one.status == 206:
        return _part_of_part(request, one, reply)
    if one.status != 200:
        # Conditions are of what would else succeed.
        return reply
    changed = one.headers.get("last-modified") or one.headers.get("date")
    verdict = evaluate(
        request.method,
        request.headers,
        etag=one.headers.get("etag"),
        last_modified=parse_date(changed),
        size=reply.length,
    )
    if isinstance(verdict, NotModified):
        kept = Headers(tuple(pair for pair in reply.headers if pair[0] in _NOT_MODIFIED_FIELDS))
        return reply.without_body(304, kept)
    if isinstance(verdict, PreconditionFailed):
        return reply.without_body(412, Headers())
    if isinstance(verdict, Unsatisfiable):
        return reply.without_body(416, Headers.of({"content-range": f"bytes */{reply.length}"}))
    if isinstance(verdict, Whole):
        return reply
    fields = {"content-range": f"bytes {verdict.start}-{verdict.stop - 1}/{reply.length}"}
    headers = reply.headers.replacing(fields)
    return evolve(reply, status=206, headers=headers, start=verdict.start, stop=verdict.stop)


def _part_of_part(request: RequestHead, one: Held, reply: Reply) -> Reply:
    """Of a stored part, what of it was asked for; one that comes is what was asked for."""
    wanted = wanted_part(request.headers.get("range"), one.part[1]) if one.part is not None else None
    if one.part is None or not isinstance(wanted, Part):
        return reply
    there, size = one.part
    fields = {"content-range": f"bytes {wanted.start}-{wanted.stop - 1}/{size}"}
    start, stop = wanted.start - there.start, wanted.stop - there.start
    return evolve(reply, headers=reply.headers.replacing(fields), start=start, stop=stop)
