"""
Heads of requests as they came: what of one an answer depends on, and what it tells beside.

Clients send the same bytes over and over, so that what is made of them is remembered under these very bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from attrs import define, field
from twisted.web.http import HTTPChannel

from regcache.flow.context import Bounded
from regcache.http.messages import Headers
from regcache.lean import may_open
from regcache.lines import Form

__all__ = ["Below", "Head", "Heads", "comes_again", "is_unread", "told_id"]

_END = b"\r\n\r\n"
_MOST_HEAD = 8192
_MOST_KNOWN, _MOST_BELOW = 4 << 20, 1 << 20
#: Bytes that a head takes beside its own.
_OVERHEAD = 512
#: What tells who asks and with which tool, and changes from one run of it to the next. Nothing here looks at any.
_UNREAD = re.compile(
    rb"\r\n(?:user-agent|referer|npm-session|npm-scope|npm-command|npm-in-ci|pacote-[a-z-]+|x-request-id|traceparent)"
    rb":[\t\x20-\x7e\x80-\xff]*(?=\r\n)",
    re.IGNORECASE,
)
#: What is another in each request: such a head does not come again.
_ONCE = re.compile(rb"\r\n(?:x-request-id|traceparent):", re.IGNORECASE)
#: What another may have named a request.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)


@define(eq=False)
class Below:
    """
    What follows the first line of a head, the end of that included: the same in all that a client asks for.

    :ivar raw: its bytes.
    :ivar asked: these, less what no answer depends on.
    """

    raw: bytes
    asked: bytes
    _logged: str = field(default="", init=False)
    _form: Form | None = field(default=None, init=False)

    def logged(self, form: Form) -> str:
        """The part of a line of the access log that the client has said of itself."""
        if self._form is not form:
            told = (_said_in(self.raw, name) for name in (b"referer", b"user-agent"))
            self._logged, self._form = form.told(*told), form
        return self._logged


@define(eq=False)
class Head:
    """
    The head of a request that asks to read, and nothing behind it.

    :ivar raw: its bytes.
    :ivar asked: these, less what no answer depends on.
    :ivar below: what follows its first line.
    :ivar known: whether its bytes are when they come again.
    """

    raw: bytes
    asked: bytes
    below: Below
    known: bool = field(default=False, init=False)

    @property
    def named(self) -> str:
        """What a proxy before us has named the request; empty if it has not."""
        name = "x-request-id"
        return told_id(Headers(tuple([(name, told) for told in _lines_in(self.raw, name.encode())])))


class Heads:
    """
    The heads that were answered from memory lately, as many as fit into 4 MiB; and what of them is alike in many.

    :param gone: told each that is not known any more.
    """

    def __init__(self, gone: Callable[[Head], object] = bool) -> None:
        self._known: Bounded[bytes, Head] = Bounded(_MOST_KNOWN, gone)
        self._below: Bounded[bytes, Below] = Bounded(_MOST_BELOW)

    def read(self, data: bytes) -> Head | None:
        """What came on a connection, if it is one whole head that asks to read; else None."""
        if self._known.holds(data):
            return self._known.get(data)
        if len(data) > _MOST_HEAD or data[:4] not in (b"GET ", b"HEAD"):
            return None
        end = data.find(b"\r\n")
        below = self._below_of(data[end:])
        return None if below is None else Head(data, data[:end] + below.asked, below)

    def _below_of(self, raw: bytes) -> Below | None:
        """What follows the first line of a head; None if that is not all of it."""
        below = self._below.get(raw)
        if below is None:
            if raw.find(_END) != len(raw) - 4 or raw.count(b"\r\n") - 2 > HTTPChannel.maxHeaders:
                return None
            below = Below(raw, _UNREAD.sub(b"", raw))
            if comes_again(raw) and not may_open(raw):
                self._below.put(raw, below, 2 * len(raw) + _OVERHEAD)
        return below

    def keep(self, head: Head) -> None:
        """Know it when it comes again, if it may."""
        if not head.known and comes_again(head.raw):
            head.known = True
            self._known.put(head.raw, head, 2 * len(head.raw) + _OVERHEAD)


def comes_again(head: bytes) -> bool:
    """Whether a head may come again, and is not another in each request; its first line may be missing, not its end."""
    return _ONCE.search(head) is None


def is_unread(name: str) -> bool:
    """Whether a field is one at which nothing looks here, though its upstream may."""
    return _UNREAD.match(b"\r\n%s:\r\n" % name.encode("latin-1")) is not None


def told_id(headers: Headers) -> str:
    """What a proxy before us has named a request; empty if it has not, or not in a way that can be passed on."""
    told = headers.get("x-request-id")
    return told if _REQUEST_ID.fullmatch(told) else ""


@lru_cache(16)
def _field(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?i)\r\n" + re.escape(name) + rb":[ \t]*([^\r\n]*)")


def _lines_in(head: bytes, name: bytes) -> list[str]:
    """Every line of a field in a request's head as it came."""
    return [told.strip(b" \t").decode("latin-1") for told in _field(name).findall(head)]


def _said_in(head: bytes, name: bytes) -> str:
    """The value of a field; the last one's, as a request of Twisted's has it."""
    found = _lines_in(head, name)
    return found[-1] if found else ""
