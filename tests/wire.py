"""The real port in memory: a site before every type of registry, fed byte by byte, by a clock of the test's own."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httptools
from attrs import define, evolve, field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from regcache.access import Access
from regcache.accesslog import AccessLog, Target
from regcache.auth import Door
from regcache.config import Config
from regcache.flow.cache import Cache
from regcache.flow.context import Context
from regcache.flow.derive import InlineDeriver
from regcache.flow.requests import place_of, written
from regcache.flow.upstream import Upstream
from regcache.house import House
from regcache.http.messages import Headers
from regcache.http.policy import Rules
from regcache.interfaces import IRegistry
from regcache.limits import Limits
from regcache.registries import make, names
from regcache.routes import RegistryOptions
from regcache.site import CacheSite
from regcache.store.holding import Condition
from regcache.testing import FakeUpstream, Kit, MemoryStore, RegistryContract, Sample, make_cache
from regcache.web import RegCacheResource

__all__ = ["Answered", "Wire", "answers", "bug_made", "nothing_logged", "sample_of"]


def sample_of(name: str) -> tuple[RegistryContract, Sample]:
    """The contract of a type of registry, as its own test module holds it, and the sample it is held with."""
    module = importlib.import_module(f"tests.test_{name}")
    contract = next(
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, RegistryContract) and getattr(one, "type", "") == name
    )()
    return contract, contract.sample()


@contextmanager
def _bugs() -> Iterator[list[str]]:
    """What is logged in here that tells of a bug."""
    found: list[str] = []

    @implementer(ILogObserver)
    def observer(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.critical or "log_failure" in event:
            failure = event.get("log_failure")
            found.append(f"{formatEvent(event)}\n{failure.getTraceback() if failure is not None else ''}")

    globalLogPublisher.addObserver(observer)
    try:
        yield found
    finally:
        globalLogPublisher.removeObserver(observer)


#: The bugs that a test has made.
_made: list[str] = []


@contextmanager
def nothing_logged() -> Iterator[None]:
    """In here nothing is logged that tells of a bug, but of one that a test has made."""
    with _bugs() as found:
        yield
    assert [one for one in found if one not in _made] == []


@contextmanager
def bug_made() -> Iterator[None]:
    """In here there is one, and the log tells of it."""
    with _bugs() as found:
        yield
    assert found
    _made.extend(found)


class _Strict(FakeUpstream):
    """Holds each request against what would go out on a socket: one request, one line for each field."""

    def request(self, method: str, url: str, headers: Headers, body: Any = b"", interim: Any = None) -> Any:
        _, target, host = place_of(url)
        head = written(method, target, host, headers, body).removesuffix(body)
        lines = head.split(b"\r\n")
        assert lines[-2:] == [b"", b""]
        assert len(lines) == 4 + len(headers.items) + (bool(body) or method == "POST")
        assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
        assert head.split(b" ")[0] in (b"GET", b"HEAD", b"POST")
        return super().request(method, url, headers, body, interim)


@frozen
class Answered:
    """One response on the wire."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@define
class _Parsed:
    """What httptools tells of a row of responses."""

    found: list[Answered] = field(factory=list)
    parser: Any = None
    _fields: list[tuple[str, str]] = field(factory=list)
    _body: bytes = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.found.append(Answered(self.parser.get_status_code(), tuple(self._fields), self._body))
        self._fields, self._body = [], b""


def answers(raw: bytes, head: bool = False) -> list[Answered]:
    """
    The responses that a client reads.

    :param head: whether it asked for heads, of which the first is returned.
    :raises httptools.HttpParserError: if they are none.
    """
    raw = raw.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    if head:
        raw = re.sub(rb"(?i)\r\n(content-length|transfer-encoding):[^\r]*", b"", raw.partition(b"\r\n\r\n")[0])
        raw += b"\r\nContent-Length: 0\r\n\r\n"
    parsed = _Parsed()
    parsed.parser = httptools.HttpResponseParser(parsed)
    parsed.parser.feed_data(raw)
    return parsed.found


class Wire:
    """
    A service in memory: every type of registry below its name, each in front of the sample of its contract.

    :ivar kit: the parts below the web; its ``registry`` is one of several.
    """

    def __init__(self, config: Config | None = None, **house: Any) -> None:
        self.registries: dict[str, IRegistry] = {}
        upstream = _Strict()
        for name in names():
            _, sample = sample_of(name)
            self.registries[name] = make(RegistryOptions(name=name, type=name, url=sample.url, **sample.options))
            upstream.pages.update(sample.pages)
        self.kit: Kit = make_cache(self.registries["generic"], upstream=upstream)
        store, clock = MemoryStore(), self.kit.clock
        context = Context(
            store=store,
            upstream=Upstream(clock, upstream),
            deriver=InlineDeriver(list(self.registries.values())),
            clock=clock,
            now=lambda: self.kit.wall,
            rules=Rules(),
            in_thread=maybeDeferred,
        )
        made = evolve(config or Config(), registries=tuple(one.options for one in self.registries.values()))
        self.house = House(
            cache=Cache(context),
            registries=self.registries,
            config=made,
            access=Access(made),
            door=Door("", made.registries, clock),
            clock=clock,
            now=lambda: self.kit.wall,
            running=lambda: True,
            log=AccessLog(clock, Target(), maybeDeferred),
            token="regcache-test",
            condition=lambda: Condition(True, "sound", ""),
            **house,
        )
        self.site = CacheSite(RegCacheResource(self.house), clock)

    @property
    def asked(self) -> list[str]:
        """Every URL that was asked for upstream."""
        return self.kit.upstream.urls()

    def limit(self, limits: Limits) -> None:
        """Let no more than that go on at the same time."""
        self.house.cache.context.limits = limits
        self.house.cache.context.upstream.limit(limits)

    def connect(self, *pieces: bytes, address: str = "127.0.0.1") -> Any:
        """The transport of a connection on which these pieces came."""
        peer = IPv4Address("TCP", address, 50000)
        channel: Any = self.site.buildProtocol(peer)
        transport: Any = StringTransportWithDisconnection(peerAddress=peer)
        transport.protocol = channel
        channel.makeConnection(transport)
        for piece in pieces:
            if transport.connected:
                channel.dataReceived(piece)
        return transport

    def send(self, *pieces: bytes) -> bytes:
        """
        What comes back on a connection on which these pieces come, until it is closed.

        One that is not closed when much more time has passed than any timer runs is a hang.
        """
        transport = self.connect(*pieces)
        for _ in range(8):
            self.kit.advance(50)
        assert not transport.connected, "the connection hangs"
        assert self.house.drained().called, "a request hangs"
        received: bytes = transport.value()
        return received
