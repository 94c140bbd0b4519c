"""
One request and its answer: the fields, the body and the line in the log, whatever it was answered with and by whom.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers as WireHeaders
from twisted.web.server import Request

from regcache.access import Peer, spelled
from regcache.errors import NotFound, Offline, RegCacheError, UpstreamError
from regcache.express import Prepared
from regcache.flow.reply import How, Reply, timed
from regcache.flow.sending import Sender, abort_client, at_once
from regcache.flow.sockets import PlainSocket
from regcache.house import House
from regcache.http.messages import Headers, RequestHead
from regcache.interfaces import IRegistry
from regcache.lean import LeanRequest
from regcache.lines import line_of, packages_of, said_by
from regcache.logs import Log
from regcache.stamps import interim_head, stamped, stamped_lines
from regcache.targets import headers_of

__all__ = ["Answering"]

_log = Log()
#: Twisted does not know all of them.
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})


class Answering(ABC):
    """
    A request that is being answered.

    :param only: the one registry that is served where it came in; empty for all.
    :ivar peer: who asks.
    :ivar admitted: whether it counts among those of its address.
    """

    def __init__(self, house: House, request: Request | LeanRequest, only: str) -> None:
        self._house = house
        self._request = request
        self._only = only
        self._gone = False
        self._working: Deferred[None] | None = None
        self._sender: Sender | None = None
        self.admitted = False
        # The transport that ends with this answer.
        self._to_close: Any = None
        self._who = ""
        # Where it was found out already who asks for what, and that they may.
        asked = self._asked = request.asked if isinstance(request, LeanRequest) else None
        self._registry: IRegistry | None = None if asked is None else asked.registry
        self._head: RequestHead | None = None if asked is None else asked.request
        self.peer = Peer(spelled(getattr(request.client, "host", None) or ""), False) if asked is None else asked.peer
        self._id = ("" if asked is None else asked.named) or house.request_id()
        self._head_only = request.method == b"HEAD"

    @abstractmethod
    def found(self) -> Awaitable[Reply]:
        """
        What it is answered with.

        :raises regcache.errors.RegCacheError: if that is that something went wrong.
        """

    def start(self) -> None:
        """Begin; the house knows of it until it is over."""
        self._house.entered(self)
        request = self._request
        if isinstance(request, LeanRequest):
            request.told_left = self.client_left
        else:
            request.notifyFinish().addErrback(self.client_left)
        self._working = Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        house = self._house
        began = house.clock.seconds() if self._asked is None else self._asked.began
        try:
            try:
                reply = await self.found()
            except RegCacheError as error:
                reply = self._error(error)
            if self._gone:
                reply.close()
                return
            sent = self._send(reply)
            if isinstance(sent, Deferred):
                sent = await sent
            if self._to_close is not None:
                # Twisted does not close a connection for what the response says.
                self._to_close.loseConnection()
            self._note(reply, sent, house.clock.seconds() - began)
        except Exception:
            self._bug(Failure())
        finally:
            house.left(self)

    def _error(self, error: RegCacheError) -> Reply:
        if self._registry is not None:
            kind, body = self._registry.error(error.status, error.text)
        else:
            kind, body = "text/plain; charset=utf-8", error.text.encode() + b"\n"
        fields = [("content-type", kind), ("cache-control", "no-store"), *error.fields]
        if error.status >= 500:
            uri = self._request.uri.decode("latin-1")[:200]
            # That it asks nobody is what the operator wants; npm's audits alone would warn at every install.
            say = _log.info if isinstance(error, Offline) else _log.warn
            say("{uri}: {why} ({id})", uri=uri, why=error.text, id=self._id)
        asked = self._registry is not None and isinstance(error, UpstreamError | NotFound)
        how = How.MISS if asked else How.BYPASS
        return Reply(status=error.status, headers=Headers.of(fields), body=body, how=how)

    def _send(self, reply: Reply) -> int | Deferred[int]:
        """Send a reply; how many bytes of its body were sent, once that is known."""
        request, now = self._request, self._house.now()
        reply, _ = timed(reply, now)
        if self._who:
            reply = _private(reply)
        bare = self._head_only or reply.length == 0 or reply.status in _WITHOUT_BODY
        reply = self._remember(reply, now, bare)
        last = not self._house.running()
        if last:
            self._to_close = request.transport
        self._say(reply, now, last)
        if not bare:
            return self._send_body(reply)
        reply.close()
        self._give(b"")
        return 0

    def _say(self, reply: Reply, now: float, last: bool) -> None:
        """
        Have the request answered with the fields of a reply.

        :param last: whether its connection is to end with it.
        """
        request, token, status = self._request, self._house.token, reply.status
        alone, own, phrase = bool(self._only), self._registry is None, _PHRASES.get(status, b"Unknown")
        # The name comes last, as where the answer is ready but for it.
        if isinstance(request, LeanRequest):
            said = stamped_lines(reply, token, now, alone=alone, own=own, last=last)
            request.say(status, phrase, b"%bX-Request-Id: %b\r\n" % (said, self._id.encode()))
        else:
            fields = stamped(reply, token, now, alone=alone, own=own, last=last)
            _say(request, status, phrase, [*fields, (b"X-Request-Id", self._id.encode())])

    def _send_body(self, reply: Reply) -> int | Deferred[int]:
        """Send a body at the client's pace; how many bytes of it were sent."""
        whole = at_once(reply)
        if whole is not None:
            reply.close()
            self._give(whole)
            return len(whole)
        self._sender = Sender(self._house.clock, self._request, reply)
        self._sender.start()
        return self._sender.done

    def _give(self, body: bytes) -> None:
        """Send all of a body."""
        request = self._request
        if isinstance(request, LeanRequest):
            request.give(body)
        else:
            request.write(body)
            request.finish()

    def _interim(self, status: int, headers: Headers) -> None:
        """An interim response of the upstream is one of ours (RFC 9110 section 15.2)."""
        transport = None if self._gone else self._request.transport
        if transport is not None and not self._request.startedWriting:
            transport.write(interim_head(status, headers))

    def _remember(self, reply: Reply, now: float, bare: bool) -> Reply:
        """
        Have the answer ready for the next such request, if it will be the same.

        :param bare: whether no body is sent.
        :returns: the reply, to be sent.
        """
        if reply.standing is None or reply.length is None or self._who:
            return reply
        request, express = self._request, self._house.express
        place, asked = getattr(request.channel, "asked", None) or (None, b"")
        if place is None or not express.wants(place, asked, reply.length):
            return reply
        body = b"" if bare else express.taken(reply, uncopied=PlainSocket.of(request.channel) is not None)
        if body is None:
            return reply
        said = stamped(reply, self._house.token, now, alone=bool(self._only), own=self._registry is None)
        prepared = Prepared.of(
            reply,
            [(name, (value,)) for name, value in said],
            b"HTTP/1.1 %d %b" % (reply.status, _PHRASES.get(reply.status, b"Unknown")),
            body,
            self._house.answers(reply, self._name),
            client=self.peer.address if place.proxy else "",
            registry=self._name,
            method=request.method.decode("latin-1"),
            target=request.uri.decode("latin-1"),
            package=self._package(reply),
        )
        if prepared is not None:
            express.remember(place, asked, prepared)
        if bare or not isinstance(body, bytes):
            return reply
        reply.close()
        return replace(reply, body=body, start=0, stop=None)

    @property
    def _name(self) -> str:
        """Whose the request is; empty for no registry's."""
        return "" if self._registry is None else self._registry.options.name

    def _note(self, reply: Reply, sent: int, seconds: float) -> None:
        house, request, name = self._house, self._request, self._name
        form = house.answered(reply, house.answers(reply, name), sent, seconds)
        if form is None:
            return
        if isinstance(request, LeanRequest) and request.below is not None:
            told = request.below.logged(form)
        else:
            told = form.told(*said_by(headers_of(request)))
        line = line_of(
            reply,
            when=house.now(),
            sent=sent,
            seconds=seconds,
            method=request.method.decode("latin-1"),
            target=request.uri.decode("latin-1"),
            protocol=request.clientproto.decode("latin-1"),
            client=self.peer.address,
            user=self._who,
            request_id=self._id,
            registry=name,
            package=self._package(reply),
        )
        house.log.note(form(line, told))

    def _package(self, reply: Reply) -> str:
        """What is asked for, as far as the address tells."""
        if reply.packages is not None:
            return ",".join(reply.packages)
        return "" if self._registry is None or self._head is None else packages_of(self._registry, self._head)

    def client_left(self, reason: Failure) -> None:
        """The connection is gone: nobody waits here any more; what was begun goes on."""
        self._gone = True
        if self._sender is not None:
            self._sender.client_left(reason)
        elif self._working is not None:
            self._working.cancel()

    def abandon(self) -> None:
        """Time is up: the client sees a failed transfer."""
        abort_client(self._request)

    def _bug(self, failure: Failure) -> None:
        """Something that should not happen did: the client gets an end, the log gets the rest."""
        if self._gone and failure.check(CancelledError):
            return
        _log.failure("A bug ended a request.", failure=failure)
        request = self._request
        if self._gone:
            return
        if request.startedWriting:
            abort_client(request)
            return
        # What was to be sent had another length.
        if isinstance(request, LeanRequest):
            request.say(500, _PHRASES[500], b"")
        else:
            request.responseHeaders = WireHeaders()
            request.setResponseCode(500, _PHRASES[500])
        request.write(b"regcache failed at this request; its log says why.\n")
        request.finish()


def _say(request: Request, status: int, phrase: bytes, said: list[tuple[bytes, bytes]]) -> None:
    """Have a request of Twisted's answered with these fields."""
    request.setResponseCode(status, phrase)
    request.defaultContentType = None
    fields = request.responseHeaders
    # What Twisted sets beforehand is ours to say, or the upstream's.
    for name in {b"server", b"date", *[name for name, _ in said]}:
        fields.removeHeader(name)
    for name, value in said:
        fields.addRawHeader(name, value)


def _private(reply: Reply) -> Reply:
    """A reply that is not for a cache between us and others, who would not be asked there who they are."""
    fields = [
        (name, value.replace("public", "private") if name == "cache-control" else value)
        for name, value in reply.headers
    ]
    return replace(reply, headers=Headers(tuple(fields)))
