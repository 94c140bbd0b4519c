"""What an upstream answered: a head, and a body that waits for who takes it, and may not take for ever."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from attrs import field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from regcache.counts import Asked
from regcache.errors import CutShort, UpstreamError, UpstreamTimeout
from regcache.flow.queues import Place
from regcache.http.messages import Headers
from regcache.http.origins import Origin
from regcache.interfaces import IReceiver, IResponse, IUpstream

__all__ = ["Access", "Answer", "Flow"]

#: A body slower than this many bytes over this many seconds is stalled.
_STALL_BYTES, _STALL_SECONDS = 1024 * 60, 60.0
#: The rest of an unwanted body that is read so that its connection can be used again.
_MOST_DISCARDED = 65536


@frozen(kw_only=True)
class Access:
    """
    What opens an upstream that does not let everybody in.

    :ivar origin: where alone it is used.
    :ivar authorization: the value of the Authorization field, or empty.
    :ivar lowest: who puts the requests there, in place of who puts all others.
    :ivar secrets: what is not to be read in an answer, where one quotes it.
    """

    origin: Origin
    authorization: str = field(default="", repr=False)
    lowest: IUpstream
    secrets: tuple[str, ...] = field(default=(), repr=False)


@implementer(IReceiver)
class Flow:
    """
    A body on its way to a receiver: started, paused, resumed and stopped by its owner.

    An idle timer runs while we are not the ones pausing.
    """

    def __init__(self, answer: Answer, response: IResponse, receiver: IReceiver) -> None:
        self._answer, self._response = answer, response
        self._receiver = receiver
        self._timer: IDelayedCall | None = None
        self._window_began = answer.clock.seconds()
        self._window_bytes = 0
        self._over = False

    def start(self) -> None:
        """Let it flow; a body that is here already needs no timer."""
        self._response.deliver(self)
        if not self._over:
            self._watch()

    def received(self, data: bytes) -> None:
        if self._over:
            return
        self._window_bytes += len(data)
        self._answer.asked.received += len(data)
        if self._timer is not None:
            self._watch()
        if not self._over:
            self._receiver.received(data)

    def ended(self, error: UpstreamError | None, certain: bool) -> None:
        self._end(error, certain)

    def _watch(self) -> None:
        now = self._answer.clock.seconds()
        if now - self._window_began >= _STALL_SECONDS:
            slow = self._window_bytes < _STALL_BYTES
            self._window_began, self._window_bytes = now, 0
            if slow:
                self._idle()
                return
        if self._timer is not None and self._timer.active():
            self._timer.reset(self._answer.idle_timeout)
        else:
            self._timer = self._answer.clock.callLater(self._answer.idle_timeout, self._idle)

    def _idle(self) -> None:
        text = f"Nothing came from {self._answer.url} for {self._answer.idle_timeout:g} s."
        self.stop(UpstreamTimeout(text))

    def pause(self) -> None:
        """Stop reading; the idle timer rests."""
        self._rest()
        if not self._over:
            self._response.pause()

    def resume(self) -> None:
        """Read on."""
        if not self._over:
            self._window_began, self._window_bytes = self._answer.clock.seconds(), 0
            self._watch()
            self._response.resume()

    def stop(self, error: UpstreamError) -> None:
        """Give the body up, for that reason; the connection is closed."""
        self._response.abort()
        self._end(error, certain=False)

    def _rest(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _end(self, error: UpstreamError | None, certain: bool) -> None:
        if self._over:
            return
        self._over = True
        self._rest()
        self._answer.release()
        self._receiver.ended(error, certain)


@implementer(IReceiver)
class _Discard:
    """Takes a short body to nowhere, so that its connection can be used again, and stops a long one."""

    def __init__(self, answer: Answer) -> None:
        self._flow = answer.flow(self)
        self._seen = 0
        self._flow.start()

    def received(self, data: bytes) -> None:
        self._seen += len(data)
        if self._seen > _MOST_DISCARDED:
            self._flow.stop(CutShort("It is not wanted."))

    def ended(self, error: UpstreamError | None, certain: bool) -> None:
        """Nobody waits for it."""


class Answer(msgspec.Struct, eq=False, kw_only=True):
    """
    An upstream's answer: the head, and a body that waits until somebody takes it.

    One of :meth:`flow` and :meth:`discard` must be called, or its connection is held for ever, unless :meth:`whole`
    gave the body.

    :ivar url: where it came from, after redirects.
    :ivar length: of the body in bytes as announced, or None.
    :ivar coding: the body's content coding; empty for none.
    :ivar through: says through what a URL is asked, see :class:`regcache.flow.upstream.Upstream`.
    :ivar response: the body's, as long as it is to be taken.
    :ivar slot: the right to ask that is given back when it is.
    :ivar access: that with which it was asked for.
    :ivar asked: where its bytes are counted.
    """

    status: int
    headers: Headers
    url: str
    length: int | None
    coding: str
    clock: IReactorTime
    idle_timeout: float
    response: IResponse | None
    slot: Place
    through: Callable[[str], str] = lambda _url: ""
    access: Access | None = None
    asked: Asked = msgspec.field(default_factory=Asked)
    _released: bool = False

    @property
    def way(self) -> str:
        """Through what it came, for a person: the end of a sentence, or empty."""
        return self.through(self.url)

    def flow(self, receiver: IReceiver) -> Flow:
        """The body, to be started, on its way to ``receiver``; bytes may come before the start returns."""
        assert self.response is not None
        return Flow(self, self.response, receiver)

    def whole(self, most: int) -> bytes | None:
        """The body, if all of it is here and of no more bytes than that: there is nothing to flow then."""
        assert self.response is not None
        body = self.response.whole(most)
        if body is not None:
            # Its head is kept as long as anybody may join.
            self.response = None
            self.asked.received += len(body)
            self.release()
        return body

    def discard(self) -> None:
        """The body is not wanted."""
        _Discard(self)

    def hushed(self, text: str) -> str:
        """What it says, as it may be shown to whoever asked us: some upstreams quote the credentials they refuse."""
        for secret in self.access.secrets if self.access is not None else ():
            text = text.replace(secret, "...")
        return text

    def release(self) -> None:
        """Give the place in the origin's queue to the next."""
        if not self._released:
            self._released = True
            self.slot.release()
