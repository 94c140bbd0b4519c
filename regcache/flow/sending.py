"""From a reply to one client: at its own pace, and never past an error as if nothing had happened."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from regcache.errors import RegCacheError
from regcache.flow.reply import Reply
from regcache.flow.sockets import PlainSocket
from regcache.interfaces import IBody, ISendable, IStoredBody
from regcache.logs import Log

__all__ = ["Sender", "abort_client", "at_once", "read_at_once"]

_log = Log()
_PIECE = 1 << 16
#: Bytes that the kernel puts on one client's socket before it is the others' turn.
_TURN = 4 << 20
#: Bytes that are copied there before it is.
_COPIED_TURN = 2 << 20
#: Seconds after which a client that takes nothing is given up.
_STALLED_SECONDS = 300.0


def abort_client(request: Any) -> None:
    """End a response so that the client sees it failed: there is no other way once its head is sent."""
    channel = request.channel
    if channel is None:
        return
    transport = getattr(channel, "transport", None)
    if transport is not None and hasattr(transport, "abortConnection"):
        transport.abortConnection()
    else:
        channel.loseConnection()


def read_at_once(body: IBody, offset: int, length: int) -> bytes | None:
    """These bytes of a body, if all of them can be had without waiting."""
    try:
        found = body.read(offset, length)
    except RegCacheError:
        # Whoever sends it finds out, and knows what to do.
        return None
    if isinstance(found, Deferred):
        found.addErrback(lambda _: None)
        return None
    return found if len(found) == length else None


def at_once(reply: Reply, most: int = _PIECE) -> bytes | None:
    """All that is sent of a body, if that is no more than ``most`` bytes and can be had without waiting."""
    size = reply.length
    if size is None or size > most:
        return None
    if isinstance(reply.body, bytes):
        return reply.body[reply.start : reply.start + size]
    return read_at_once(reply.body, reply.start, size)


@implementer(IPushProducer)
class Sender:
    """
    Sends one reply's body.

    States: *running* (reads and writes as fast as the client takes), *paused* (the client is behind; a timer runs),
    *over* (all is sent, the client left, or the body failed).

    :ivar done: fires when it is over, with the number of bytes sent.
    """

    def __init__(self, clock: IReactorTime, request: Any, reply: Reply) -> None:
        self.done: Deferred[int] = Deferred()
        self.sent = 0
        self._clock = clock
        self._request = request
        self._body = reply.body
        self._at = reply.start
        self._stop = reply.stop
        self._paused = False
        self._over = False
        self._reading: Deferred[Any] | None = None
        self._looping = False
        self._others: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._behind_since = 0.0
        self._socket: PlainSocket | None = None

    def start(self) -> None:
        """The head is said: send it and the body."""
        self._request.registerProducer(self, True)
        self._socket = self._way_past()
        if self._socket is not None:
            self._request.write(b"")
        self._pump()

    def _way_past(self) -> PlainSocket | None:
        """The client's socket, if a file can go there just as it is: neither in chunks nor coded."""
        if isinstance(self._body, bytes) or not ISendable.providedBy(self._body):
            return None
        if self._stop is None:
            self._stop = self._body.size
        if self._stop is not None and self._stop - self._at <= _PIECE:
            # With its head it is one write.
            return None
        coded = getattr(self._request, "_encoder", None) is not None
        return None if coded or self._stop is None else PlainSocket.of(self._request.channel)

    def pauseProducing(self) -> None:
        self._paused = True
        self._behind_since = self._clock.seconds()
        if self._timer is None and not self._over:
            self._timer = self._clock.callLater(_STALLED_SECONDS, self._look)

    def resumeProducing(self) -> None:
        self._paused = False
        self._pump()

    def stopProducing(self) -> None:
        self._end()

    def client_left(self, _reason: object) -> None:
        """The connection is gone."""
        self._end()

    def _pump(self) -> None:
        if self._looping or self._reading is not None or self._others is not None:
            return
        self._looping = True
        turn, pushed = self._at + _COPIED_TURN, self._at + _TURN
        try:
            while not (self._paused or self._over):
                if self._socket is not None:
                    self._push(self._socket, pushed)
                    if self._reading is not None:
                        return
                    continue
                if self._at >= turn:
                    # A client that takes it as fast as it is copied.
                    self._others = self._clock.callLater(0, self._again)
                    return
                left = _PIECE if self._stop is None else min(_PIECE, self._stop - self._at)
                piece = self._read(left)
                if piece is None and self._reading is None:
                    # It came while it was asked for.
                    continue
                if piece is None:
                    return
                if not piece:
                    self._finish()
                    return
                self._write(piece)
        finally:
            self._looping = False

    def _again(self) -> None:
        """The others have had their turn."""
        self._others = None
        self._pump()

    def _push(self, socket: PlainSocket, turn: int) -> None:
        """
        Some of a body, from its file to the socket.

        :param turn: where, at the latest, it is the others' turn.
        """
        assert self._stop is not None
        body: Any = self._body
        asked = min(self._stop, turn) - self._at
        sent: int | Deferred[Any] | None = 0
        if socket.is_clear and self._at < self._stop:
            try:
                sent = body.send(socket.fd, self._at, asked)
            except OSError:
                # Its transport finds out, and tells.
                sent = 0
            except RegCacheError as error:
                self._broke(Failure(error))
                return
        if sent is None:
            # From here on it cannot go that way.
            self._socket = None
            return
        if isinstance(sent, Deferred):
            self._reading = sent
            sent.addCallbacks(self._warmed, self._broke)
            return
        self._at += sent
        self.sent += sent
        if self._at >= self._stop:
            self._finish()
        elif not 0 < sent < asked or IStoredBody.providedBy(body):
            self.pauseProducing()
            socket.wait()
        # Else that may have been all there is of one that grows: it is asked again, and tells when there is more.

    def _warmed(self, _none: object) -> None:
        self._reading = None
        self._pump()

    def _read(self, length: int) -> bytes | None:
        """Some bytes, or None if they come later."""
        if length <= 0:
            return b""
        if isinstance(self._body, bytes):
            return self._body[self._at : self._at + length]
        try:
            found = self._body.read(self._at, length)
        except RegCacheError as error:
            self._broke(Failure(error))
            return None
        if isinstance(found, bytes):
            return found
        self._reading = found
        found.addCallbacks(self._came, self._broke)
        return None

    def _came(self, piece: bytes) -> None:
        self._reading = None
        if self._over:
            return
        if not piece:
            self._finish()
            return
        self._write(piece)
        self._pump()

    def _write(self, piece: bytes) -> None:
        self._at += len(piece)
        self.sent += len(piece)
        self._request.write(piece)

    def _broke(self, failure: Failure) -> None:
        self._reading = None
        if self._over or failure.check(CancelledError):
            return
        if isinstance(failure.value, RegCacheError):
            _log.warn("A transfer failed after its head was sent: {why}", why=failure.value.text)
        else:
            _log.failure("A bug ended a transfer.", failure=failure)
        request = self._request
        self._end()
        abort_client(request)

    def _finish(self) -> None:
        stop = self._stop
        if stop is None:
            stop = len(self._body) if isinstance(self._body, bytes) else self._body.size
        if stop is None or self._at < stop:
            self._broke(Failure(RegCacheError("The body ended before its end was known.")))
            return
        request = self._request
        request.unregisterProducer()
        self._end()
        request.finish()

    def _look(self) -> None:
        """See whether the client has taken anything: one timer, however often it is behind for a moment."""
        self._timer = None
        if not self._paused:
            return
        left = self._behind_since + _STALLED_SECONDS - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._look)
            return
        request = self._request
        self._end()
        abort_client(request)

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        for call in (self._timer, self._others):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._others = None
        if not isinstance(self._body, bytes):
            self._body.close()
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
        self.done.callback(self.sent)
