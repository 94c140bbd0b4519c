"""
The lines of the access log, in a form that the field's tools read: combined, or JSON.

What others have a hand in stands in one line of ASCII, within its quotes, and without secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType

from attrs import define
from twisted.web.server import Request

from regcache.errors import RegCacheError, shown
from regcache.flow.reply import Reply, cache_status
from regcache.http.messages import Headers, RequestHead
from regcache.interfaces import IOrdered, IRegistry
from regcache.lean import LeanRequest

__all__ = ["FORMATS", "Line", "line_of", "named_in", "packages_of", "told_id", "told_in"]

#: What another may have named a request.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)

_TOLD = re.compile(rb"(?i)\r\n(referer|user-agent):[ \t]*([^\r\n]*)")
#: Not as the locale has them.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@define(kw_only=True)
class Line:
    """
    One request, as it is logged.

    :ivar when: its end, by the wall clock.
    :ivar client: its address; empty for a UNIX socket.
    :ivar user: who it said it is, where that was asked for.
    :ivar sent: bytes of the body.
    :ivar request_id: the value of the answer's X-Request-Id.
    :ivar registry: the registry's name; empty where it was none's.
    :ivar package: what was asked for, as far as the address tells.
    :ivar outcome: ``hit``, ``stale``, ``miss``, ``revalidated`` or ``bypass``.
    :ivar cache_status: the value of the answer's Cache-Status.
    :ivar upstream_seconds: how long the upstream was waited for, if it was.
    """

    when: float
    client: str = ""
    user: str = ""
    method: str
    target: str
    protocol: str = "HTTP/1.1"
    status: int
    sent: int = 0
    referer: str = ""
    agent: str = ""
    request_id: str = ""
    registry: str = ""
    package: str = ""
    outcome: str
    cache_status: str = ""
    upstream_seconds: float | None = None
    seconds: float

    def combined(self) -> str:
        """
        As Apache's and nginx's ``combined``, in UTC.

        Behind the user agent stand, each in quotes: request id, registry, package, outcome, seconds of the upstream,
        seconds in all.
        """
        when = _stamp(int(self.when))
        waited = "-" if self.upstream_seconds is None else f"{self.upstream_seconds:.3f}"
        # The name stands without quotes, and a blank in it would be the end of it.
        user = _escaped(self.user).replace(" ", "\\x20") or "-" if self.user else "-"
        head = f"{self.client or 'unix'} - {user} [{when}] {_again(f'{self.method} {self.target} {self.protocol}')}"
        return (
            f"{head} {self.status} {self.sent} {_again(self.referer)} {_again(self.agent)} {_name(self.request_id)}"
            f' {_again(self.registry)} {_again(self.package)} {_again(self.outcome)} "{waited}" "{self.seconds:.3f}"'
        )

    def json(self) -> str:
        """As one JSON object, all of whose keys are always there; what is not known is null."""
        fields: dict[str, str | int | float | None] = {
            "time": datetime.fromtimestamp(self.when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "request_id": self.request_id,
            "client": self.client,
            "user": self.user,
            "method": self.method,
            "target": self.target,
            "protocol": self.protocol,
            "status": self.status,
            "bytes": self.sent,
            "referer": self.referer,
            "user_agent": self.agent,
            "registry": self.registry,
            "package": self.package,
            "outcome": self.outcome,
            "cache_status": self.cache_status,
            "upstream_seconds": None if self.upstream_seconds is None else round(self.upstream_seconds, 3),
            "seconds": round(self.seconds, 3),
        }
        return json.dumps({name: shown(one) or None if isinstance(one, str) else one for name, one in fields.items()})


@lru_cache(8)
def _stamp(second: int) -> str:
    at = datetime.fromtimestamp(second, UTC)
    return f"{at.day:02}/{_MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S} +0000"


#: The forms of a line, by the names of the option.
FORMATS: Mapping[str, Callable[[Line], str]] = MappingProxyType({"combined": Line.combined, "json": Line.json})


def _escaped(text: str) -> str:
    safe = shown(text).encode("ascii", "backslashreplace").decode()
    return safe.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text) or "-"}"'


def _name(text: str) -> str:
    """A request's name, which is always one that needs no escaping."""
    return f'"{text}"' if text else '"-"'


@lru_cache(4096)
def _again(text: str) -> str:
    """The same of what stands in many lines."""
    return _quoted(text)


def packages_of(registry: IRegistry, request: RequestHead) -> str:
    """The packages that a request is about, as far as its address tells, separated by commas."""
    first = registry.members[0] if IOrdered.providedBy(registry) else registry
    try:
        route = first.route(request)
    except RegCacheError:
        return ""
    return ",".join(getattr(route, "packages", ()))


def told_id(headers: Headers) -> str:
    """What a proxy before us has named a request; empty if it has not, or not in a way that can be passed on."""
    told = headers.get("x-request-id")
    return told if _REQUEST_ID.fullmatch(told) else ""


def told_in(head: bytes) -> tuple[str, str]:
    """The Referer and the User-Agent of a request's head as it came."""
    told = {name.lower(): value for name, value in _TOLD.findall(head)}
    return _text(told.get(b"referer", b"")), _text(told.get(b"user-agent", b""))


def _text(value: bytes) -> str:
    return value.strip().decode("latin-1")


@lru_cache(16)
def _field(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?i)\r\n" + re.escape(name) + rb":[ \t]*([^\r\n]*)")


def said_in(head: bytes, name: bytes) -> str:
    """The value of a field in a request's head as it came; the last one's, as a request of Twisted's has it."""
    found = _field(name).findall(head)
    return found[-1].strip().decode("latin-1") if found else ""


def named_in(head: bytes) -> str:
    """As :func:`told_id`, from a request's head as it came."""
    return told_id(Headers((("x-request-id", said_in(head, b"x-request-id")),)))


def line_of(request: Request | LeanRequest, reply: Reply, when: float, sent: int, seconds: float, **about: str) -> Line:
    """
    The line of a request that was answered.

    :param about: what the request does not say itself: ``client``, ``user``, ``request_id``, ``registry``, ``package``.
    """

    def field(name: bytes) -> str:
        return (request.getHeader(name) or b"").decode("latin-1")

    return Line(
        when=when,
        method=request.method.decode("latin-1"),
        target=request.uri.decode("latin-1"),
        protocol=request.clientproto.decode("latin-1"),
        status=reply.status,
        sent=sent,
        referer=field(b"referer"),
        agent=field(b"user-agent"),
        outcome=reply.how.value.lower(),
        cache_status=cache_status(reply),
        upstream_seconds=reply.upstream_seconds,
        seconds=seconds,
        **about,
    )
