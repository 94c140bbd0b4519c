"""
Asking the registries: one client for all of them, with limits an origin, own redirects and one deadline.

The stack, from the outside in: :class:`Upstream` (queues, redirects, deadline) over treq's HTTPClient (without
cookies, decoding, redirects or buffering) over an agent that chooses the content coding, over Twisted's Agent with a
bounded response head, a caching TLS policy and name look-ups in a thread pool of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

from attrs import define, field, frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers as WireHeaders
from twisted.web.iweb import IAgent, IResponse

from regcache.errors import CutShort, ForbiddenOrigin, UpstreamError, UpstreamTimeout
from regcache.flow.agent import CODING_FIELD, translate
from regcache.http.fields import hop_by_hop
from regcache.http.messages import Headers

__all__ = ["Answer", "Ask", "Receiver", "Upstream", "origin_of"]

_log = Logger(namespace="regcache")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_MOST_AT_ONCE = 32
#: A body slower than this many bytes over this many seconds is stalled.
_STALL_BYTES, _STALL_SECONDS = 1024 * 60, 60.0


def origin_of(url: str) -> str:
    """The scheme, host and port of a URL, as one name."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


class _Written(EncodedURL):
    """A URL that is sent as it is: it was percent-encoded when it was made, and encoding its host again takes time."""

    def to_uri(self) -> EncodedURL:
        return self


@frozen(kw_only=True)
class Ask:
    """
    One request to an upstream.

    :ivar allows: says of each URL, redirects included, whether it may be contacted.
    :ivar artifact: which of the origin's two queues it waits in.
    :ivar coding: the content coding to ask for.
    """

    method: str = "GET"
    url: str
    headers: Headers = Headers()
    allows: Callable[[str], bool]
    artifact: bool = False
    coding: str = "identity"
    body: bytes = b""


class Receiver:
    """Who takes a body; both methods are called on the reactor thread."""

    def received(self, data: bytes) -> None:
        """Some bytes came."""
        raise NotImplementedError

    def ended(self, error: UpstreamError | None, certain: bool) -> None:
        """
        No more bytes come; called once.

        :param error: why the body is not whole, or None.
        :param certain: whether the framing shows that nothing is missing; False when a close was the only end.
        """
        raise NotImplementedError


class _Body(Protocol):
    """Passes a body on, with an idle timer that runs only while we are not the ones pausing."""

    def __init__(self, answer: Answer, receiver: Receiver) -> None:
        self._answer = answer
        self._receiver = receiver
        self._timer: IDelayedCall | None = None
        self._window_began = answer.clock.seconds()
        self._window_bytes = 0
        self._over = False

    def connectionMade(self) -> None:
        self._watch()

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._window_bytes += len(data)
        self._watch()
        self._receiver.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone):
            self._end(None, certain=True)
        elif reason.check(PotentialDataLoss):
            self._end(None, certain=False)
        else:
            self._end(CutShort(f"It was asked for {self._answer.url}."), certain=False)

    def _watch(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.reset(self._answer.idle_timeout)
        elif not self._over:
            self._timer = self._answer.clock.callLater(self._answer.idle_timeout, self._idle)
        now = self._answer.clock.seconds()
        if now - self._window_began >= _STALL_SECONDS:
            slow = self._window_bytes < _STALL_BYTES
            self._window_began, self._window_bytes = now, 0
            if slow:
                self._idle()

    def _idle(self) -> None:
        text = f"Nothing came from {self._answer.url} for {self._answer.idle_timeout:g} s."
        self.stop(UpstreamTimeout(text))

    def pause(self) -> None:
        """Stop reading; the idle timer rests."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self._over:
            self._flow().pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if not self._over:
            self._window_began, self._window_bytes = self._answer.clock.seconds(), 0
            self._watch()
            self._flow().resumeProducing()

    def stop(self, error: UpstreamError) -> None:
        """Give the body up, for that reason; the connection is closed."""
        flow = self._flow()
        self._end(error, certain=False)
        flow.stopProducing()

    def _flow(self) -> Any:
        # Twisted gives a body's protocol a push producer, which its interface does not say.
        return self.transport

    def _end(self, error: UpstreamError | None, certain: bool) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._answer.release()
        self._receiver.ended(error, certain)


class _Discard(Receiver):
    """Takes a short body to nowhere, so that its connection can be used again, and stops a long one."""

    def __init__(self) -> None:
        self.body: _Body | None = None
        self._seen = 0

    def received(self, data: bytes) -> None:
        self._seen += len(data)
        if self._seen > 65536 and self.body is not None:
            self.body.stop(CutShort(""))

    def ended(self, error: UpstreamError | None, certain: bool) -> None:
        pass


@define(eq=False)
class Answer:
    """
    An upstream's answer: the head, and a body that waits until somebody takes it.

    One of :meth:`deliver` and :meth:`discard` must be called, or its connection is held for ever.

    :ivar url: where it came from, after redirects.
    :ivar length: of the body in bytes as announced, or None.
    :ivar coding: the body's content coding; empty for none.
    """

    status: int
    headers: Headers
    url: str
    length: int | None
    coding: str
    clock: IReactorTime
    idle_timeout: float
    _response: IResponse
    _slot: DeferredSemaphore
    _released: bool = field(default=False, init=False)

    def deliver(self, receiver: Receiver) -> _Body:
        """Let the body flow to ``receiver``; the result pauses, resumes and stops it."""
        body = _Body(self, receiver)
        self._response.deliverBody(body)
        return body

    def discard(self) -> None:
        """The body is not wanted."""
        nowhere = _Discard()
        nowhere.body = self.deliver(nowhere)

    def release(self) -> None:
        """Give the place in the origin's queue to the next."""
        if not self._released:
            self._released = True
            self._slot.release()


class Upstream:
    """
    The client.

    :param agent: the lowest agent of the stack, see :func:`regcache.flow.agent.make_agent`.
    :param idle_timeout: seconds a body may pause.
    """

    def __init__(self, reactor: IReactorTime, agent: IAgent, idle_timeout: float = 30.0) -> None:
        self._clock = reactor
        policy = DefaultCookiePolicy(allowed_domains=[])
        self._client = HTTPClient(agent, IndexableCookieJar(policy))
        self._idle_timeout = idle_timeout
        self._slots: dict[tuple[str, bool], DeferredSemaphore] = {}

    async def ask(self, ask: Ask, deadline: float) -> Answer:
        """
        Ask, following redirects.

        :param deadline: seconds for name look-up, connecting, TLS, redirects and the head together, from when the
            origin's queue lets the request through.
        :raises regcache.errors.UpstreamError: if there is no answer; every status is an answer.
        """
        url, began = ask.url, None
        for _ in range(_MOST_REDIRECTS + 1):
            if not ask.allows(url):
                raise ForbiddenOrigin(
                    f"It is {origin_of(url)}; if that is right, add the host to artifact-hosts of this registry."
                )
            slot = self._slots.setdefault((origin_of(url), ask.artifact), DeferredSemaphore(_MOST_AT_ONCE))
            await slot.acquire()
            began = self._clock.seconds() if began is None else began
            try:
                answer = await self._once(ask, url, deadline - (self._clock.seconds() - began), slot)
            except BaseException:
                slot.release()
                raise
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            answer.discard()
            target = urljoin(url, location).partition("#")[0]
            if url.startswith("https:") and not target.startswith("https:"):
                raise ForbiddenOrigin(f"{url} redirects from https to {target}.")
            url = target
        raise UpstreamError(f"{ask.url} redirects more than {_MOST_REDIRECTS} times.")

    async def _once(self, ask: Ask, url: str, seconds: float, slot: DeferredSemaphore) -> Answer:
        fields = WireHeaders()
        for name, value in ask.headers:
            fields.addRawHeader(name, value)
        fields.setRawHeaders(CODING_FIELD, [ask.coding])
        asking = self._client.request(
            ask.method,
            _Written.from_text(url),
            headers=fields,
            data=ask.body or None,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,  # type: ignore[arg-type]
        )
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            asking.cancel()

        timer = self._clock.callLater(max(seconds, 0.001), give_up)
        try:
            response = await asking
        except Exception as error:
            if late:
                raise UpstreamTimeout(f"{origin_of(url)} gave no answer in time.") from None
            raise translate(error, url) from None
        finally:
            if timer.active():
                timer.cancel()
        return self._read_head(ask, url, response, slot)

    def _read_head(self, ask: Ask, url: str, response: IResponse, slot: DeferredSemaphore) -> Answer:
        headers = Headers.of(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, values in response.headers.getAllRawHeaders()
            for value in values
        )
        coding = headers.get(CODING_FIELD).strip().lower()
        length = response.length if isinstance(response.length, int) else None
        if ask.method == "HEAD":
            announced = headers.get("content-length")
            length = int(announced) if announced.isdecimal() else None
        kept = headers.without(*hop_by_hop(headers), CODING_FIELD, "content-length", "set-cookie")
        return Answer(
            status=response.code,
            headers=kept,
            url=url,
            length=length,
            coding="" if coding == "identity" else coding,
            clock=self._clock,
            idle_timeout=self._idle_timeout,
            response=response,
            slot=slot,
        )
