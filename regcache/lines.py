"""
The lines of the access log, in a form that the field's tools read: combined, or JSON.

What others have a hand in stands in one line of ASCII, within its quotes, and without secrets.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType

from attrs import define

from regcache.errors import RegCacheError, shown
from regcache.flow.reply import How, Reply, cache_status
from regcache.http.messages import Headers, RequestHead
from regcache.interfaces import IOrdered, IRegistry

__all__ = ["FORMATS", "Answered", "Form", "Line", "line_of", "packages_of", "said_by"]

#: Not as the locale has them.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Seconds that are none in a line, which has thousandths.
_UNSEEN = 0.0005
#: Characters of a word of a line that is remembered.
_LONGEST_AGAIN = 256
_OUTCOMES = {how: how.value.lower() for how in How}


@define(kw_only=True)
class Answered:
    """
    What many lines have in common: who asked for what, and what the answer was.

    :ivar user: who the client said it is, where that was asked for.
    :ivar registry: the registry's name; empty where it was none's.
    :ivar package: what was asked for, as far as the address tells.
    :ivar outcome: ``hit``, ``stale``, ``miss``, ``revalidated`` or ``bypass``.
    :ivar upstream_seconds: how long the upstream was waited for, if it was.
    """

    user: str = ""
    method: str
    target: str
    protocol: str = "HTTP/1.1"
    status: int
    registry: str = ""
    package: str = ""
    outcome: str
    upstream_seconds: float | None = None


@define(kw_only=True)
class Line(Answered):
    """
    One request, as it is logged.

    :ivar when: its end, by the wall clock.
    :ivar client: its address; empty for a UNIX socket.
    :ivar sent: bytes of the body.
    :ivar cache_status: the value of the answer's Cache-Status.
    :ivar request_id: the value of the answer's X-Request-Id.
    """

    when: float
    client: str = ""
    sent: int = 0
    cache_status: str = ""
    referer: str = ""
    agent: str = ""
    request_id: str = ""
    seconds: float


class Form(ABC):
    """
    A form of lines, in which they are put together of parts: those of an answer that is given again and again, and of
    a client that asks again and again, are made once.
    """

    def __call__(self, line: Line, told: str | None = None) -> str:
        """
        The whole line.

        :param told: the part that the client has said of itself, where that is made already.
        """
        if told is None:
            told = self.told(line.referer, line.agent)
        parts = self.alike(self.answer(line), line.cache_status, told, int(line.when), line.sent)
        return self.line(parts, line.when, line.client, line.request_id, line.seconds)

    @abstractmethod
    def answer(self, answered: Answered) -> tuple[str, ...]:
        """The parts of a line that tell of the answer."""

    @abstractmethod
    def told(self, referer: str, agent: str) -> str:
        """The part of a line that the client has said of itself."""

    @abstractmethod
    def alike(self, answer: tuple[str, ...], status: str, told: str, second: int, sent: int) -> tuple[str, ...]:
        """
        The parts that all lines of one second have in common that tell of such answers to such clients.

        :param answer: the parts that tell of the answer.
        :param status: its Cache-Status, which may count down.
        :param told: the part that the client has said of itself.
        """

    @abstractmethod
    def line(self, alike: tuple[str, ...], when: float, client: str, request_id: str, seconds: float) -> str:
        """The line of which these are the parts; what else there is in it is as in :class:`Line`."""


class _Combined(Form):
    """
    As Apache's and nginx's ``combined``, in UTC.

    Behind the user agent stand, each in quotes: request id, registry, package, outcome, seconds of the upstream,
    seconds in all.
    """

    def answer(self, answered: Answered) -> tuple[str, ...]:
        # The name stands without quotes, and a blank in it would be the end of it.
        user = _escaped(answered.user).replace(" ", "\\x20") if answered.user else "-"
        # Nothing of it is remembered: it may hold a secret, and what is asked for often has its line ready.
        asked = _escaped(f"{answered.method} {answered.target} {answered.protocol}")
        waited = "-" if answered.upstream_seconds is None else f"{answered.upstream_seconds:.3f}"
        # The names of registries and outcomes are few.
        about = f'{_again(answered.registry)} {_word(answered.package)} {_again(answered.outcome)} "{waited}"'
        return user, f'"{asked}" {answered.status}', about

    def told(self, referer: str, agent: str) -> str:
        return f"{_quoted(referer)} {_word(agent)}"

    def alike(self, answer: tuple[str, ...], status: str, told: str, second: int, sent: int) -> tuple[str, ...]:
        del status
        user, asked, about = answer
        return f' - {user} [{_stamp(second)}] {asked} {sent} {told} "', f'" {about} "'

    def line(self, alike: tuple[str, ...], when: float, client: str, request_id: str, seconds: float) -> str:
        del when
        first, last = alike
        # Most take no time that would be seen.
        took = "0.000" if 0 <= seconds < _UNSEEN else f"{seconds:.3f}"
        return f'{client or "unix"}{first}{request_id or "-"}{last}{took}"'


class _Json(Form):
    """One JSON object, all of whose keys are always there; what is not known is null."""

    def answer(self, answered: Answered) -> tuple[str, ...]:
        asked = _pairs(
            user=answered.user,
            method=answered.method,
            target=answered.target,
            protocol=answered.protocol,
            status=answered.status,
        )
        waited = answered.upstream_seconds
        about = _pairs(
            registry=answered.registry,
            package=answered.package,
            outcome=answered.outcome,
        )
        return asked, about, _pairs(upstream_seconds=None if waited is None else round(waited, 3))

    def told(self, referer: str, agent: str) -> str:
        return _pairs(referer=referer, user_agent=agent)

    def alike(self, answer: tuple[str, ...], status: str, told: str, second: int, sent: int) -> tuple[str, ...]:
        asked, about, waited = answer
        return (
            f'{{"time": "{_second(second)}.',
            f', {asked}, "bytes": {sent}, {told}, {about}, {_pairs(cache_status=status)}, {waited}, "seconds": ',
        )

    def line(self, alike: tuple[str, ...], when: float, client: str, request_id: str, seconds: float) -> str:
        first, last = alike
        name = f'"{request_id}"' if request_id else "null"
        took = "0.0" if 0 <= seconds < _UNSEEN else repr(round(seconds, 3))
        return f'{first}{int(when * 1000) % 1000:03}Z", "request_id": {name}, {_client(client)}{last}{took}}}'


#: The forms of a line, by the names of the option.
FORMATS: Mapping[str, Form] = MappingProxyType({"combined": _Combined(), "json": _Json()})


@lru_cache(8)
def _stamp(second: int) -> str:
    at = datetime.fromtimestamp(second, UTC)
    return f"{at.day:02}/{_MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S} +0000"


@lru_cache(8)
def _second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


def _pairs(**fields: str | float | None) -> str:
    """What stands between the braces of an object."""
    told = {name: shown(one) or None if isinstance(one, str) else one for name, one in fields.items()}
    return json.dumps(told)[1:-1]


@lru_cache(4096)
def _client(address: str) -> str:
    return _pairs(client=address)


def _escaped(text: str) -> str:
    safe = shown(text)
    if not safe.isascii():
        safe = safe.encode("ascii", "backslashreplace").decode()
    return safe.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"' if text else '"-"'


@lru_cache(4096)
def _again(text: str) -> str:
    """The same of what stands in many lines."""
    return _quoted(text)


def _word(text: str) -> str:
    """A word of a line in its quotes: what is short may well come again."""
    return _again(text) if len(text) <= _LONGEST_AGAIN else _quoted(text)


def packages_of(registry: IRegistry, request: RequestHead) -> str:
    """The packages that a request is about, as far as its address tells, separated by commas."""
    first = registry.members[0] if IOrdered.providedBy(registry) else registry
    try:
        route = first.route(request)
    except RegCacheError:
        return ""
    return ",".join(getattr(route, "packages", ()))


def line_of(
    reply: Reply,
    *,
    when: float,
    sent: int,
    seconds: float,
    method: str,
    target: str,
    protocol: str = "HTTP/1.1",
    client: str,
    user: str = "",
    request_id: str,
    registry: str,
    package: str,
) -> Line:
    """The line of a request that was answered so, but for what the client has said of itself."""
    return Line(
        when=when,
        client=client,
        user=user,
        method=method,
        target=target,
        protocol=protocol,
        status=reply.status,
        sent=sent,
        registry=registry,
        package=package,
        outcome=_OUTCOMES[reply.how],
        cache_status=cache_status(reply),
        request_id=request_id,
        upstream_seconds=reply.upstream_seconds,
        seconds=seconds,
    )


def said_by(fields: Headers) -> tuple[str, str]:
    """What a client has said of itself in the fields of its request: Referer and User-Agent."""
    referer, agent = ("".join(fields.lines(name)[-1:]) for name in ("referer", "user-agent"))
    return referer, agent
