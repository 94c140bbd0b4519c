"""The portion of a stored response that a request gets: by its conditions, and by its range."""

from __future__ import annotations

from msgspec.structs import replace

from regcache.flow.reply import Reply
from regcache.http.fields import parse_date
from regcache.http.held import Held
from regcache.http.messages import RequestHead
from regcache.http.ranges import Part, evaluate, wanted_part

__all__ = ["portion"]


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
    return reply.of_part(verdict) if isinstance(verdict, Part) else reply.unsent(verdict) or reply


def _part_of_part(request: RequestHead, one: Held, reply: Reply) -> Reply:
    """Of a stored part, what of it was asked for; one that comes is what was asked for."""
    wanted = wanted_part(request.headers.get("range"), one.part[1]) if one.part is not None else None
    if one.part is None or not isinstance(wanted, Part):
        return reply
    there, size = one.part
    fields = {"content-range": f"bytes {wanted.start}-{wanted.stop - 1}/{size}"}
    start, stop = wanted.start - there.start, wanted.stop - there.start
    return replace(reply, headers=reply.headers.replacing(fields), start=start, stop=stop)
