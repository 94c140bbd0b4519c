"""
The fast way for hits: what a plain request was answered with is given again, in one write, while it holds.

Nothing is decided here. The slow way answers first, with all its checks; its very fields and body are remembered under
the bytes of the request's head and the place it came by, which is all that its answer depended on beside what is
stored, the time and the configuration. Whatever of these changes sends the next request the slow way again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from attrs import define, evolve, field
from twisted.web.http_headers import Headers as WireHeaders

from regcache.flow.context import Bounded
from regcache.flow.reply import Reply, Standing, cache_status, timed
from regcache.flow.sending import at_once
from regcache.http.fields import format_date

__all__ = ["Express", "Place", "Prepared", "asked_plainly", "is_all", "timed_fields"]

_END = b"\r\n\r\n"
_NAME = b"x-request-id"
_MOST_HEAD = 8192
#: What tells who asks and with which tool, and changes from one run of it to the next. Nothing here looks at any.
_UNREAD = re.compile(
    rb"\r\n(?:user-agent|referer|npm-session|npm-scope|npm-command|npm-in-ci|pacote-[a-z-]+|x-request-id|traceparent)"
    rb":[\t\x20-\x7e\x80-\xff]*(?=\r\n)",
    re.IGNORECASE,
)
#: What makes more of a request than its head, or something else of the connection than the next request.
_NOT_PLAIN = (b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer")
#: Bytes of a file that are kept; larger ones leave through the kernel.
_MOST_READ = 1 << 17
#: Requests that are known to have come once.
_MOST_ASKED = 16_384
#: Bytes that an answer takes beside its body.
_OVERHEAD = 2048


class Place(NamedTuple):
    """
    Where a request came in: with the bytes of its head all that an answer depends on.

    :ivar registry: the one that is served there alone; empty for all.
    :ivar local: our own address and port, as in a URL.
    :ivar proxy: the address of the proxy it came from, whose word counts; empty where the client is allowed itself.
    """

    registry: str
    local: str
    secure: bool
    proxy: str


def asked_plainly(data: bytes) -> bytes | None:
    """
    What came on a connection, less what no answer depends on, if it is one whole head that asks to read; else None.
    """
    if len(data) > _MOST_HEAD or data[:4] not in (b"GET ", b"HEAD") or data.find(_END) != len(data) - 4:
        return None
    return _UNREAD.sub(b"", data)


def timed_fields(reply: Reply, now: float) -> dict[bytes, bytes]:
    """The fields of an answer that count on with the time."""
    fields = {b"Cache-Status": cache_status(reply).encode()}
    if not (reply.relayed and "date" in reply.headers):
        fields[b"Date"] = format_date(now).encode()
    if "age" in reply.headers:
        fields[b"Age"] = reply.headers.get("age").encode()
    return fields


@define(eq=False)
class Prepared:
    """
    An answer, ready to be given again.

    :ivar reply: as the cache gave it, without its body.
    :ivar client: whom the log names; empty for the peer of the connection.
    :ivar registry: whose it is, for the numbers.
    :ivar start: the status line.
    :ivar package: what it is of, for the log.
    :ivar fields: all fields as they were sent, but the name of the request, which is each one's own.
    """

    reply: Reply
    standing: Standing
    client: str
    registry: str
    method: str
    target: str
    package: str
    start: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    _head: bytes = field(default=b"", init=False)
    _from: float = field(default=0.0, init=False)
    _until: float = field(default=0.0, init=False)

    @classmethod
    def of(cls, reply: Reply, fields: WireHeaders, start: bytes, body: bytes, **about: str) -> Prepared | None:
        """What the slow way has just said; None if it does not hold, or not for all who ask alike."""
        if reply.standing is None or any(map(_is_unread, reply.standing.selected_by)):
            return None
        said = tuple((name, value) for name, values in fields.getAllRawHeaders() for value in values)
        said = tuple(pair for pair in said if pair[0].lower() != _NAME)
        bare = evolve(reply, body=b"", start=0, stop=0)
        return cls(bare, reply.standing, start=start, fields=said, body=body, **about)

    @property
    def weight(self) -> int:
        """Bytes that it takes, about: its fields as they were said, and as they will be."""
        return len(self.body) + 2 * sum(len(name) + len(value) for name, value in self.fields) + _OVERHEAD

    def head(self, now: float, request_id: str) -> bytes:
        """The whole head, as the slow way would write it at that time for a request of that name."""
        if not self._from <= now < self._until:
            reply, self._until = timed(self.reply, now)
            self._from, counted = now, timed_fields(reply, now)
            self.standing.given()
            lines = [name + b": " + counted.get(name, value) for name, value in self.fields]
            self._head = b"\r\n".join((self.start, *lines, b"X-Request-Id: "))
        return self._head + request_id.encode() + _END


class Express:
    """
    The answers that are ready, as many as fit.

    :param most: bytes; 0 for none at all.
    :param stands: whether an answer still holds.
    """

    def __init__(self, most: int, stands: Callable[[Standing, float], bool]) -> None:
        self.on = most > 0
        self._most = most
        self._stands = stands
        self._ready: Bounded[tuple[Place, bytes], Prepared] = Bounded(most)
        # By their hashes: a wrong one costs no more than a place.
        self._asked: Bounded[int, bool] = Bounded(_MOST_ASKED)

    def find(self, place: Place, asked: bytes, now: float) -> Prepared | None:
        """What to answer, if that is ready and still holds."""
        key = (place, asked)
        found = self._ready.get(key)
        if found is not None and not self._stands(found.standing, now):
            self._ready.drop(key)
            return None
        return found

    def taken(self, reply: Reply) -> bytes | None:
        """What is sent of a body, if that may be kept and can be had at once: one must not push out all others."""
        most = self._most // 8
        return at_once(reply, most if isinstance(reply.body, bytes) else min(most, _MOST_READ))

    def wants(self, place: Place, asked: bytes, size: int) -> bool:
        """
        Whether an answer is to be remembered: while half of the memory is free any, then what was asked for before, not
        long ago.

        What is asked for once pushes nothing out that is asked for again and again.

        :param size: bytes of its body.
        """
        if self._ready.room - size >= self._most // 2:
            return True
        key = hash((place, asked))
        if self._asked.get(key):
            return True
        self._asked.put(key, True, 1)
        return False

    def remember(self, place: Place, asked: bytes, prepared: Prepared) -> None:
        """That is the answer, while it holds."""
        head = asked.lower()
        if is_all(head) and b"\r\nauthorization:" not in head:
            self._ready.put((place, asked), prepared, prepared.weight + 2 * len(asked))


def _is_unread(name: str) -> bool:
    """Whether a field is one at which nothing looks here, though its upstream may."""
    return _UNREAD.match(b"\r\n%s:\r\n" % name.encode("latin-1")) is not None


def is_all(head: bytes) -> bool:
    """
    Whether a request is its head and no more, and the connection goes on as it was after the answer.

    :param head: in lower case.
    """
    if any(b"\r\n" + name + b":" in head for name in _NOT_PLAIN):
        return False
    start, _, fields = head.partition(b"\r\n")
    said = re.findall(rb"\r\nconnection:[ \t]*([^\r]*)", b"\r\n" + fields)
    return start.endswith(b" http/1.1") and all(one.strip() == b"keep-alive" for one in said)
