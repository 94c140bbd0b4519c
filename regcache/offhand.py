"""
Answers given offhand: a small stored copy that holds, asked for in a way that has been seen before.

What is asked for may be another thing each time; who asks, and how, is not. So whatever is known of a client by the
bytes of its head but for the target, and by the place where it came in, is found out once, by those who decide it
(:mod:`regcache.access`); what is stored, and whether it may be used, is the cache's to say at each request. All else,
and all that goes wrong, is left to the Resource, which answers the same and knows more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen
from twisted.web.http import HTTPChannel

from regcache.access import Peer
from regcache.errors import RegCacheError
from regcache.express import Place, Prepared
from regcache.flow.context import Bounded
from regcache.flow.reply import Reply
from regcache.heads import Head, comes_again
from regcache.house import House
from regcache.http.messages import Headers, RequestHead
from regcache.http.ranges import wants_whole
from regcache.hurry import Client
from regcache.lean import Asked, fields_of, may_open
from regcache.lines import line_of
from regcache.pages import is_own
from regcache.stamps import stamped
from regcache.targets import split_name

__all__ = ["Offhand"]

#: A request to read what stands at a path.
_START = re.compile(rb"GET (/[\x21-\x7e]*) HTTP/1\.1(?=\r\n)")
_OK = b"HTTP/1.1 200 OK"
#: Bytes of the heads by which clients are known; what one takes beside, and each of its fields, however short it is.
_MOST_KNOWN, _OVERHEAD, _FIELD = 1 << 20, 1024, 200


@frozen
class _Asker:
    """
    Whoever asks with such a head at such a place.

    :ivar fields: those of the head.
    :ivar client: whom the log names; empty for the peer of the connection.
    :ivar reached: the scheme and authority by which we were reached.
    """

    fields: Headers
    client: str
    reached: str

    @property
    def weight(self) -> int:
        """Bytes that it takes, about, beside those of the head."""
        return _OVERHEAD + _FIELD * len(self.fields.items)


class Offhand:
    """
    What is answered that way at the ports where the same is served.

    :param only: the one registry that is; empty for all.
    """

    def __init__(self, house: House, only: str) -> None:
        self._house, self._only = house, only
        self._known: Bounded[tuple[Place, bytes], _Asker] = Bounded(_MOST_KNOWN)
        self._access: object = None

    def asked(self, client: Client, place: Place, head: Head) -> Asked | None:
        """What is asked by a request that has just come; None for all that it is left to the Resource to judge."""
        house = self._house
        began, found = house.clock.seconds(), _START.match(head.raw)
        asker = None if found is None else self._asker(client.channel, place, head.raw[found.end() :])
        if found is None or asker is None:
            return None
        target = found[1].decode("ascii")
        path, _, query = target.partition("?")
        name, below = (self._only, path) if self._only else split_name(path)
        registry = house.registries.get(name)
        if registry is None or below == "/" or is_own(path) or house.door.is_closed(registry.options):
            return None
        base = house.access.base(asker.reached, "", "" if self._only else f"{name}/")
        try:
            request = RequestHead(method="GET", path=below, query=query, headers=asker.fields, base=base)
            route = house.cache.routed(registry, request)
        except Exception:
            # Also of a bug the Resource tells, by an answer and in the log.
            return None
        peer, named = Peer(asker.client or client.address, bool(place.proxy)), (place.proxy and head.named)
        return Asked(began, target, peer, named, registry, request, route)

    def give(self, client: Client, place: Place, head: Head, asked: Asked, now: float) -> bool:
        """
        Answer a request that has come on a connection on which nothing else is under way.

        :param asked: what it asks, as :meth:`asked` says.
        :param now: the time by the wall clock.
        :returns: whether it is answered; nothing has been done if not.
        """
        house, name, target = self._house, asked.registry.options.name, asked.target
        if not house.has_room(asked.peer.address):
            return False
        reply = self._reply(asked)
        body = None if reply is None else reply.body
        if reply is None or reply.standing is None or not isinstance(body, bytes):
            return False
        fields = stamped(reply, house.token, now, alone=bool(self._only), own=False)
        request_id = asked.named or house.request_id()
        lines = [said + b": " + value for said, value in fields]
        client.write(b"\r\n".join((_OK, *lines, b"X-Request-Id: " + request_id.encode(), b"", b"")), body)
        house.cache.context.store.used(reply.standing.used, now)
        reply.standing.given()
        # It takes longer to remember than to find: what is asked for once is not worth it, whatever room there is.
        express = house.express
        if express.asked_before(place, head.asked) and express.taken(reply, uncopied=False) is not None:
            about = {"client": asked.peer.address if place.proxy else "", "registry": name}
            about |= {"method": "GET", "target": target}
            self._remember(place, head, reply, fields, body, **about)
        seconds = house.clock.seconds() - asked.began
        form = house.answered(reply, house.answers(reply, name), len(body), seconds)
        if form is not None:
            line = line_of(
                reply,
                asked.request.headers,
                when=now,
                sent=len(body),
                seconds=seconds,
                method="GET",
                target=target,
                client=asked.peer.address,
                request_id=request_id,
                registry=name,
                package=",".join(reply.packages or ()),
            )
            house.log.note(form(line))
        return True

    def _reply(self, asked: Asked) -> Reply | None:
        """What the cache answers, if it does so at once."""
        if asked.route is None:
            return None
        try:
            return self._house.cache.at_hand(asked.registry, asked.route, asked.request)
        except Exception:
            # As above.
            return None

    def _remember(
        self, place: Place, head: Head, reply: Reply, said: Iterable[tuple[bytes, bytes]], body: bytes, **about: str
    ) -> None:
        """Have the answer ready for the next such request."""
        for _, entry in () if reply.standing is None else reply.standing.entries:
            if entry is not None:
                self._house.cache.context.store.keep(entry)
        fields = [(name, (value,)) for name, value in said]
        answers = self._house.answers(reply, about["registry"])
        prepared = Prepared.of(reply, fields, _OK, body, answers, package=",".join(reply.packages or ()), **about)
        if prepared is not None:
            self._house.express.remember(place, head.asked, prepared)

    def _asker(self, channel: HTTPChannel, place: Place, rest: bytes) -> _Asker | None:
        """
        Who asks, if they may and want no more than to read.

        :param rest: what follows the first line of the head, the end of that included.
        """
        if self._access is not self._house.access:
            # By other rules others may.
            self._known.clear()
            self._access = self._house.access
        asker = self._known.get((place, rest))
        if asker is None:
            asker = self._judged(channel, place, rest[2:])
            if asker is not None and comes_again(rest) and not may_open(rest):
                self._known.put((place, rest), asker, 2 * len(rest) + asker.weight)
        return asker

    def _judged(self, channel: HTTPChannel, place: Place, rest: bytes) -> _Asker | None:
        access, fields = self._house.access, fields_of(rest)
        if fields is None or len(fields.items) > channel.maxHeaders or not wants_whole(fields):
            return None
        if self._house.token in fields.get("via"):
            return None
        host = getattr(channel.getPeer(), "host", None) or ""
        try:
            peer = access.peer(host, fields)
            reached = access.let_in(fields, peer, place.secure, place.local)
        except RegCacheError:
            return None
        return _Asker(fields, peer.address if place.proxy else "", reached)
