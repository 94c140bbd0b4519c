"""The fields with which every response leaves: what this cache is and did, and what a browser may not do with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus

from attrs import define, field
from twisted.web.http_headers import Headers as WireHeaders

from regcache.express import timed_fields
from regcache.flow.reply import How, Reply, cache_status
from regcache.http.fields import format_date
from regcache.http.messages import Headers
from regcache.http.storing import end_to_end

__all__ = ["FOR_BROWSERS", "AlikeHeads", "interim_head", "stamp", "stamped", "stamped_lines"]

#: What a registry's pages may not do in a browser: be taken for another type, run as ours, be part of others' pages.
FOR_BROWSERS = (
    (b"x-content-type-options", [b"nosniff"]),
    (b"content-security-policy", [b"sandbox allow-same-origin; frame-ancestors 'none'"]),
    (b"cross-origin-resource-policy", [b"same-origin"]),
)
#: What stands in each answer that is no upstream's own word.
_ALWAYS = [(name.title(), value) for name, (value,) in FOR_BROWSERS] + [(b"Server", b"regcache")]
_FOR_BROWSERS_ONLY = frozenset(name.decode() for name, _ in FOR_BROWSERS)
#: What is ours to say alone; of these the name of the request is each one's own, and comes last.
_OURS = _FOR_BROWSERS_ONLY | {"x-cache", "cache-status", "date", "server", "via", "content-length", "x-request-id"}
#: Types of which a browser runs nothing, once it may take them for no other.
_INERT = ("text/plain", "text/css", "application/json", "application/octet-stream", "image/png", "image/jpeg")

#: A head: what is alike before the fields of its own, these, what is alike behind them, and what is told last.
_HEAD = b"%b%b%bContent-Length: %d\r\nX-Request-Id: %b\r\n\r\n"


def _for_browsers(headers: Headers, *, alone: bool) -> list[tuple[bytes, list[bytes]]]:
    """
    The fields that keep a browser from running what comes from an upstream as if it were ours, beside those that the
    upstream has set itself.

    :param headers: of the response.
    :param alone: whether nothing else is served under that origin, so that the upstream's own word is enough.
    """
    kind = headers.get("content-type").lower()
    # Of several types a browser takes the last.
    enough = alone or ("," not in kind and kind.partition(";")[0].strip() in _INERT)
    return [
        (name, value if name.decode() not in headers else [*map(str.encode, headers.lines(name.decode())), *value])
        for name, value in FOR_BROWSERS
        if name.decode() not in headers or not enough
    ]


def stamp(reply: Reply, fields: WireHeaders, token: str, now: float, *, alone: bool) -> None:
    """
    Set the fields of ours beside an upstream's own word that is passed on.

    :param fields: those of the reply.
    :param token: names this service.
    :param now: the wall clock.
    :param alone: whether nothing else is served under the same origin.
    """
    fields.setRawHeaders(b"x-cache", [reply.how.value.encode()])
    for counted, figure in timed_fields(reply, now).items():
        before = fields.getRawHeaders(counted, []) if counted == b"Cache-Status" else []
        fields.setRawHeaders(counted, [*before, figure])
    for name, value in _for_browsers(reply.headers, alone=alone):
        fields.setRawHeaders(name, value)
    if "server" not in reply.headers:
        fields.setRawHeaders(b"server", [b"regcache"])
    fields.setRawHeaders(b"via", [*fields.getRawHeaders(b"via", []), f"1.1 {token}".encode()])


def stamped(
    reply: Reply, token: str, now: float, *, alone: bool, own: bool, last: bool = False
) -> list[tuple[bytes, bytes]]:
    """
    The fields of a reply with those of ours, and its length: as they are sent, in their order.

    :param own: whether it is the service that says it, which may say otherwise of its own pages to browsers.
    :param last: whether the connection ends with it.
    """
    length = None if reply.status in (204, 304) else reply.length
    stamped_so = _stamped_beside if reply.relayed else _stamped_alone
    said = stamped_so(reply, token, now, length, alone=alone, own=own)
    return [*[pair for pair in said if pair[0] != b"Connection"], (b"Connection", b"close")] if last else said


def _stamped_beside(
    reply: Reply, token: str, now: float, length: int | None, *, alone: bool, own: bool
) -> list[tuple[bytes, bytes]]:
    """Beside what an upstream says itself."""
    del own
    fields = WireHeaders()
    for name, value in reply.headers:
        fields.addRawHeader(name, _clean(value))
    stamp(reply, fields, token, now, alone=alone)
    if length is not None:
        fields.setRawHeaders(b"content-length", [b"%d" % length])
    # It is each request's own, and comes last.
    fields.removeHeader(b"x-request-id")
    return [(name, value) for name, values in fields.getAllRawHeaders() for value in values]


def _stamped_alone(
    reply: Reply, token: str, now: float, length: int | None, *, alone: bool, own: bool
) -> list[tuple[bytes, bytes]]:
    """The same of what is this cache's word alone: Twisted's way to put that together takes many times as long."""
    del alone
    kept = _FOR_BROWSERS_ONLY.intersection([name for name, _ in reply.headers.items]) if own else frozenset[str]()
    told = [pair for pair in reply.headers.items if pair[0] not in _OURS or pair[0] in kept]
    said = [*_on_the_wire(told), *_ours(reply.how, cache_status(reply), token, now, kept)]
    if length is not None:
        said.append((b"Content-Length", b"%d" % length))
    return said


def stamped_lines(reply: Reply, token: str, now: float, *, alone: bool, own: bool, last: bool = False) -> bytes:
    """The fields of :func:`stamped`, as lines of a head: for most replies without a pair for each."""
    length = reply.length
    if not (reply.relayed or own or last or length is None or reply.status in (204, 304)):
        told = [f"{_wire_text(name)}: {value}\r\n" for name, value in reply.headers.items if name not in _OURS]
        said = "".join(told).encode("latin-1", "replace")
        if said.count(b"\r") == said.count(b"\n") == len(told):
            ours = _our_lines(reply.how, cache_status(reply), token, int(now))
            return b"%b%bContent-Length: %d\r\n" % (said, ours, length)
    return _lines(stamped(reply, token, now, alone=alone, own=own, last=last))


def _on_the_wire(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(_wire_name(name), _clean(value)) for name, value in fields]


def _ours(
    how: How, status: str, token: str, now: float, kept: frozenset[str] = frozenset()
) -> list[tuple[bytes, bytes]]:
    """
    The fields of this cache's own in an answer that no upstream has a word in.

    :param status: its Cache-Status.
    :param kept: the names of those for browsers that it says itself.
    """
    always = [pair for pair in _ALWAYS if pair[0].lower().decode() not in kept] if kept else _ALWAYS
    return [
        (b"X-Cache", how.value.encode()),
        (b"Cache-Status", status.encode()),
        (b"Date", format_date(now).encode()),
        *always,
        (b"Via", b"1.1 " + token.encode()),
    ]


@lru_cache(64)
def _our_lines(how: How, status: str, token: str, second: int) -> bytes:
    """The same as lines of a head: all answers of one second that came about alike have them."""
    return _lines(_ours(how, status, token, second))


@define(eq=False)
class AlikeHeads:
    """
    The heads of answers that are alike but for some fields and their length: the rest is written once a second.

    They are those of :func:`stamped`, for what is given over and over.

    :ivar reply: one of the answers, without its body.
    :ivar start: the status line.
    """

    reply: Reply
    start: bytes
    _token: str
    _first: bytes = field(init=False)
    _last: bytes = field(default=b"", init=False)
    _from: float = field(default=0.0, init=False)
    _until: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._first = self.start + b"\r\n" + _lines(_on_the_wire(self.reply.headers.items))

    def of(self, own: Sequence[tuple[str, str]], length: int, request_id: str, now: float) -> bytes:
        """
        The head of one of them.

        :param own: the fields that it has beside those of all.
        :param request_id: the name of its request.
        """
        if not self._from <= now < self._until:
            self._from, self._until = now, int(now) + 1
            self._last = _lines(_ours(self.reply.how, cache_status(self.reply), self._token, now))
        said = "".join([f"{_wire_text(name)}: {value}\r\n" for name, value in own]).encode("latin-1", "replace")
        if not said.count(b"\r") == said.count(b"\n") == len(own):
            said = _lines(_on_the_wire(own))
        return _HEAD % (self._first, said, self._last, length, request_id.encode())


def _lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % pair for pair in fields])


def _clean(value: str) -> bytes:
    """The value of a field as it is sent."""
    return value.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"")


@lru_cache(256)
def _wire_name(name: str) -> bytes:
    """The name of a field as it is sent."""
    ((sent, _),) = WireHeaders({name.encode(): [b""]}).getAllRawHeaders()
    return sent


@lru_cache(256)
def _wire_text(name: str) -> str:
    return _wire_name(name).decode()


def interim_head(status: int, headers: Headers) -> bytes:
    """An interim response as it is sent."""
    phrase = next((one.phrase for one in HTTPStatus if one == status), "Interim")
    lines = [f"HTTP/1.1 {status} {phrase}", *[f"{name}: {value}" for name, value in end_to_end(headers)]]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
