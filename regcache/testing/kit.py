"""
The public test kit: a cache that needs no disk, no network and no waiting.

For whoever writes a registry or embeds the cache: :func:`make_cache` puts the real decisions, transfers and documents
on a store in memory, an upstream whose pages the test writes, and a clock that the test moves. Nothing here is a mock
of regcache's own behaviour.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from regcache.errors import BadDocument, ConnectFailed, CutShort, MethodNotAllowed
from regcache.flow.cache import Cache
from regcache.flow.context import Context
from regcache.flow.derive import InlineDeriver
from regcache.flow.reply import Reply
from regcache.flow.upstream import Upstream
from regcache.http.messages import Digest, Headers, RequestHead
from regcache.http.origins import Origins
from regcache.http.policy import Rules
from regcache.interfaces import IOrdered, IReceiver, IRegistry, IResponse, IUpstream
from regcache.limits import Limits
from regcache.routes import Artifact, Document, Fact, Facts, RegistryOptions, Release, Route, Source
from regcache.testing.memory import MemoryStore

if TYPE_CHECKING:
    from regcache.interfaces import Interim

__all__ = ["BASE", "FakeRegistry", "FakeUpstream", "Kit", "Page", "body_of", "make_cache"]

#: The mount that clients of a :class:`Kit` reach.
BASE = "http://cache.test/fake/"


@frozen(kw_only=True)
class Page:
    """
    What an upstream answers at one URL.

    :ivar cut: how many bytes of the body come before the connection is lost; None for all.
    :ivar hangs: whether nothing more happens then, instead.
    :ivar unannounced: whether the length of the body is not told.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(factory=dict)
    cut: int | None = None
    hangs: bool = False
    unannounced: bool = False


@implementer(IResponse)
class _FakeResponse:
    def __init__(self, page: Page, method: str) -> None:
        self.status = page.status
        self.length: int | None = None if page.unannounced else len(page.body)
        self.headers = Headers.of(page.headers)
        self._page = evolve(page, body=b"", cut=None) if method == "HEAD" else page

    def deliver(self, receiver: IReceiver) -> None:
        page = self._page
        if page.body:
            receiver.received(page.body[: page.cut])
        if not page.hangs:
            receiver.ended(None if page.cut is None else CutShort("It was cut."), certain=page.cut is None)

    def whole(self, most: int) -> bytes | None:
        page = self._page
        there = self.length == len(page.body) <= most and page.cut is None and not page.hangs
        return page.body if there else None

    def pause(self) -> None:
        """Nothing: all has been sent already."""

    resume = abort = pause


@implementer(IUpstream)
class FakeUpstream:
    """
    The world beyond the cache: pages by URL, and the requests that came for them.

    :ivar pages: what is there; any other URL answers 404.
    :ivar heads: what HEAD is answered, where that is not what GET is.
    :ivar down: while set, nobody can be connected to.
    :ivar hangs: while set, requests wait; :meth:`release` answers them.
    :ivar asked: each request's method, URL and header fields.
    :ivar bodies: what was sent with each.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.heads: dict[str, Page] = {}
        self.down = False
        self.hangs = False
        self.asked: list[tuple[str, str, Headers]] = []
        self.bodies: list[bytes] = []
        self._waiting: list[tuple[Deferred[IResponse], str, str]] = []

    def request(
        self, method: str, url: str, headers: Headers, body: bytes | BinaryIO = b"", interim: Interim | None = None
    ) -> Deferred[IResponse]:
        del interim
        self.asked.append((method, url, headers))
        self.bodies.append(body if isinstance(body, bytes) else body.read())
        if self.down:
            return fail(ConnectFailed("It is down."))
        waiting: Deferred[IResponse] = Deferred()
        self._waiting.append((waiting, method, url))
        if not self.hangs:
            self.release()
        return waiting

    def release(self, only: str = "") -> None:
        """Answer whoever waits, or those who wait for one URL."""
        waiting = [one for one in self._waiting if only in ("", one[2])]
        self._waiting = [one for one in self._waiting if one not in waiting]
        for deferred, method, url in waiting:
            page = self.pages.get(url, Page(status=404))
            if not deferred.called:
                deferred.callback(_FakeResponse(self.heads.get(url, page) if method == "HEAD" else page, method))

    def urls(self) -> list[str]:
        """What was asked for, in order."""
        return [url for _, url, _ in self.asked]


@implementer(IRegistry)
class FakeRegistry:
    """
    The smallest ecosystem with an index: ``/index`` is JSON that maps file names to their SHA-256, ``/files/NAME`` are
    the artifacts.
    """

    default_url = "http://registry.test/"
    option_names: tuple[str, ...] = ()
    version = 1
    algorithms = ("sha256",)

    def __init__(self, options: RegistryOptions) -> None:
        self.options = evolve(options, url=options.url or self.default_url)
        self._origins = Origins.of([self.options.url], options.artifact_hosts)

    def route(self, request: RequestHead) -> Route:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed()
        index = Document(
            key="index",
            url=f"{self.options.url}index",
            representation="index",
            content_type="application/json",
        )
        if request.path == "/index":
            return index
        return Artifact(key=request.path[1:], url=self.options.url + request.path[1:], indexes=(index,))

    def facts(self, document: str, source: Source) -> Facts:
        del document
        try:
            found: dict[str, str] = json.loads(source.body)
        except ValueError:
            raise BadDocument(f"{source.url} is not JSON.") from None
        there = self.options.url
        return Facts(
            {
                f"files/{name}": Fact(url=f"{there}files/{name}", digests=(Digest("sha256", value),))
                for name, value in found.items()
            }
        )

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        del document, representation, base
        return source.body

    def release(self, key: str, parent: str) -> Release | None:
        return Release(key) if parent else None

    def allows(self, url: str) -> bool:
        return self._origins.allows(url)

    def error(self, status: int, text: str) -> tuple[str, bytes]:
        return "text/plain", f"{status} {text}\n".encode()

    def client_lines(self, base: str) -> list[str]:
        return [f"client --index {base}index"]


@define(eq=False)
class Kit:
    """
    A cache and everything around it.

    :ivar wall: the wall clock, in seconds; :meth:`advance` moves it with ``clock``.
    """

    cache: Cache
    registry: IRegistry
    store: MemoryStore
    upstream: FakeUpstream
    clock: Clock
    wall: float = 1_700_000_000.0

    def advance(self, seconds: float) -> None:
        """Let time pass, for timers and for ages."""
        self.wall += seconds
        self.clock.advance(seconds)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Deferred[Reply]:
        """What the cache answers, now or later; underscores in names of fields stand for hyphens."""
        return Deferred.fromCoroutine(self.cache.answer(self.registry, _head(path, method, headers)))

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[Reply, bytes]:
        """As :meth:`get_head`; the request as for :meth:`ask`."""
        return self.get_head(_head(path, method, headers))

    def get_head(self, head: RequestHead) -> tuple[Reply, bytes]:
        """
        What the cache answers at once, and its body as far as it can be read.

        :raises regcache.errors.RegCacheError: as the cache does.
        :raises AssertionError: if the answer takes time.
        """
        answers: list[Any] = []
        Deferred.fromCoroutine(self.cache.answer(self.registry, head)).addBoth(answers.append)
        assert answers, "the answer takes time"
        if isinstance(answers[0], Failure):
            answers[0].raiseException()
        return answers[0], body_of(answers[0])


def _head(path: str, method: str, headers: dict[str, str]) -> RequestHead:
    fields = Headers.of((name.replace("_", "-"), value) for name, value in headers.items())
    return RequestHead(method=method, path=path, headers=fields, base=BASE)


def body_of(reply: Reply) -> bytes:
    """
    A reply's body, which must be there already; it is closed.

    :raises regcache.errors.RegCacheError: if the body fails.
    """
    if isinstance(reply.body, bytes):
        return reply.body[reply.start : reply.stop]
    pieces, at = [], reply.start
    while reply.stop is None or at < reply.stop:
        piece: Any = reply.body.read(at, 1 << 16 if reply.stop is None else reply.stop - at)
        if isinstance(piece, Deferred):
            piece.addErrback(lambda failure: failure.raiseException())
            piece = piece.result
        if not piece:
            break
        pieces.append(piece)
        at += len(piece)
    reply.body.close()
    return b"".join(pieces)


def make_cache(
    registry: IRegistry | None = None,
    rules: Rules | None = None,
    upstream: FakeUpstream | None = None,
    limits: Limits | None = None,
) -> Kit:
    """
    A cache in memory, in front of ``registry`` or a :class:`FakeRegistry`.

    :param rules: the operator's; the lifetimes among them are overruled by the registry's options, as everywhere.
    :param upstream: one that answers in ways of its own.
    :param limits: what may go on at the same time.
    """
    made = FakeRegistry(RegistryOptions(name="fake", type="fake")) if registry is None else registry
    store, world, clock = MemoryStore(), upstream or FakeUpstream(), Clock()
    context = Context(
        store=store,
        upstream=Upstream(clock, world),
        deriver=InlineDeriver(made.members if IOrdered.providedBy(made) else [made]),
        clock=clock,
        now=lambda: kit.wall,
        rules=Rules() if rules is None else rules,
        limits=limits or Limits(),
    )
    kit = Kit(Cache(context), made, store, world, clock)
    return kit
