"""
Answers given offhand: a small stored copy that holds, asked for in a way that has been seen before.

What is asked for may be another thing each time; who asks, and how, is not. So whatever is known of a client by the
bytes of its head but for the target, and by the place where it came in, is found out once, by those who decide it
(:mod:`regcache.access`); what is stored, and whether it may be used, is the cache's to say at each request. All else,
and all that goes wrong, is left to the Resource, which answers the same and knows more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen
from msgspec.structs import replace
from twisted.web.http import HTTPChannel

from regcache.access import Peer
from regcache.auth import Door
from regcache.counts import Answers
from regcache.errors import RegCacheError
from regcache.express import Place, Prepared
from regcache.flow.context import Bounded
from regcache.flow.copies import AtHand
from regcache.flow.leaving import Leaving
from regcache.flow.reply import Reply
from regcache.flow.together import Together, each
from regcache.heads import Head, comes_again
from regcache.house import House
from regcache.http.messages import Headers, RequestHead
from regcache.http.ranges import wants_whole
from regcache.hurry import Client
from regcache.interfaces import IRegistry
from regcache.lean import Asked, fields_of, may_open
from regcache.lines import line_of
from regcache.pages import is_own
from regcache.routes import Artifact
from regcache.stamps import AlikeHeads, stamped
from regcache.targets import split_name

__all__ = ["Offhand"]

#: What has it answered in the ordinary way.
_Ordinary = Callable[[Place, Head, Asked], object]
#: A request that is to be answered: who asks, at which place, by which head, for what; and what is to be done if it
#: cannot be answered offhand.
_Taken = tuple[Client, Place, Head, Asked, Artifact, _Ordinary]
#: A request to read what stands at a path.
_START = re.compile(rb"GET (/[\x21-\x7e]*) HTTP/1\.1(?=\r\n)")
_OK = b"HTTP/1.1 200 OK"
#: Bytes of the heads by which clients are known; what one takes beside, and each of its fields, however short it is.
_MOST_KNOWN, _OVERHEAD, _FIELD = 1 << 20, 1024, 200
#: Kinds of answers that are known, and the characters of the fields of each.
_MOST_ALIKE, _LONGEST_ALIKE = 256, 1024


@frozen
class _Alike:
    """
    What many answers have in common.

    :ivar reply: one of them, without its body and what it has of its own.
    :ivar head: their heads.
    :ivar answers: where they are counted.
    """

    reply: Reply
    head: AlikeHeads
    answers: Answers


@frozen
class _Mount:
    """
    A registry as somebody reaches it who need not say who they are.

    :ivar door: which has said so.
    :ivar base: its URL.
    """

    registry: IRegistry
    door: Door
    base: str


@frozen
class _Asker:
    """
    Whoever asks with such a head at such a place.

    :ivar fields: those of the head.
    :ivar peer: whom the proxy asks for; None where that is the peer of the connection.
    :ivar reached: the scheme and authority by which we were reached.
    :ivar mounts: the registries that have been asked, by name.
    """

    fields: Headers
    peer: Peer | None
    reached: str
    mounts: dict[str, _Mount] = field(factory=dict, init=False, eq=False)

    @property
    def weight(self) -> int:
        """Bytes that it takes, about, beside those of the head."""
        return _OVERHEAD + _FIELD * len(self.fields.items)


class Offhand:
    """
    What is answered that way at the ports where the same is served.

    :param only: the one registry that is; empty for all.
    :param leaving: sends the answers that are found in the ordinary way.
    """

    def __init__(self, house: House, only: str, leaving: Leaving) -> None:
        self._house, self._only, self._leaving = house, only, leaving
        self._known: Bounded[tuple[Place, bytes], _Asker] = Bounded(_MOST_KNOWN)
        self._access: object = None
        self._taken: Together[_Taken] = Together(house.clock, self._answer)
        self._known_alike: dict[tuple[Any, ...], _Alike] = {}

    def asked(self, client: Client, place: Place, head: Head) -> Asked | None:
        """What is asked by a request that has just come; None for all that it is left to the Resource to judge."""
        house = self._house
        began, found = house.clock.seconds(), _START.match(head.raw)
        asker = None if found is None else self._asker(client.channel, place, head.below.raw)
        if found is None or asker is None:
            return None
        target = found[1].decode("ascii")
        path, _, query = target.partition("?")
        name, below = (self._only, path) if self._only else split_name(path)
        mount = self._mount(asker, name)
        if mount is None or below == "/" or is_own(path):
            return None
        try:
            request = RequestHead(method="GET", path=below, query=query, headers=asker.fields, base=mount.base)
            route = house.cache.routed(mount.registry, request)
        except Exception:
            # Also of a bug the Resource tells, by an answer and in the log.
            return None
        named = place.proxy and head.named
        return Asked(began, target, asker.peer or client.peer, named, mount.registry, request, route)

    def takes(self, client: Client, place: Place, head: Head, asked: Asked, ordinary: _Ordinary) -> bool:
        """
        Whether a request is answered at the end of this turn, which has come on a connection on which nothing else is
        under way.

        :param asked: what it asks, as :meth:`asked` says.
        :param ordinary: called then, where it cannot be answered offhand: has it answered in the ordinary way.
        """
        route = asked.route
        if not isinstance(route, Artifact):
            return False
        client.waits = True
        self._taken.add((client, place, head, asked, route, ordinary))
        if client.socket is None:
            # It has a buffer of its own, which holds back what is sent to it.
            self.finish()
        return True

    def finish(self) -> None:
        """Answer now what is taken."""
        self._taken.finish()

    def _answer(self, taken: list[_Taken]) -> None:
        """Look all of it up at once, and send what is found after that: so both take less than one by one."""
        house, now = self._house, self._house.now()
        taken = [one for one in taken if one[0].waits]
        sending, noting, others = list[Any](), list[Any](), list[Any]()
        for one, copy in zip(taken, self._copies(taken), strict=True):
            client, asked = one[0], one[3]
            request_id = asked.named or house.request_id()
            said = None if copy is None else self._said(asked, copy, request_id, now)
            if copy is None or said is None:
                others.append((_pass_on, one))
            else:
                alike, answer = said
                sending.append((client.leave, (answer, copy.body)))
                noting.append((self._note, (one, copy, alike, request_id, now)))
        each(sending)
        each(noting)
        each(others)
        # In this turn, too: who has ended what they send is gone in the next one.
        self._leaving.send()

    def _copies(self, taken: list[_Taken]) -> Sequence[AtHand | None]:
        """The stored copies that the cache answers with, where it does so at once."""
        try:
            wanted = [(asked.registry, route, asked.request) for _, _, _, asked, route, _ in taken]
            return self._house.cache.at_hand(wanted)
        except Exception:
            # As above.
            return [None] * len(taken)

    def _said(self, asked: Asked, copy: AtHand, request_id: str, now: float) -> tuple[_Alike, bytes] | None:
        """What the answer has in common with others, and its head; None if it is left to the Resource."""
        try:
            if not self._house.has_room(asked.peer.address):
                return None
            alike = self._alike(asked.registry.options.name, copy)
            return alike, alike.head.of(copy.own(now), len(copy.body), request_id, now)
        except Exception:
            # As above.
            return None

    def _note(self, one: _Taken, copy: AtHand, alike: _Alike, request_id: str, now: float) -> None:
        """A client was answered."""
        _, place, head, asked, *_ = one
        house, name = self._house, asked.registry.options.name
        house.cache.context.store.used(copy.stored.key, now)
        copy.given()
        # It takes longer to remember than to find: what is asked for once is not worth it, whatever room there is.
        if house.express.asked_before(place, head.asked):
            about = {"client": asked.peer.address if place.proxy else "", "registry": name}
            self._remember(place, head, copy.reply(), now, **about, method="GET", target=asked.target)
        seconds = house.clock.seconds() - asked.began
        form = house.answered(alike.reply, alike.answers, len(copy.body), seconds)
        if form is not None:
            line = line_of(
                alike.reply,
                when=now,
                sent=len(copy.body),
                seconds=seconds,
                method="GET",
                target=asked.target,
                client=asked.peer.address,
                request_id=request_id,
                registry=name,
                package=",".join(copy.route.packages),
            )
            house.log.note(form(line, head.below.logged(form)))

    def _mount(self, asker: _Asker, name: str) -> _Mount | None:
        """The registry of that name, if everybody may ask it who may ask at all."""
        house = self._house
        registry, door, known = house.registries.get(name), house.door, asker.mounts.get(name)
        if known is not None and known.registry is registry and known.door is door:
            return known
        if registry is None or door.is_closed(registry.options):
            return None
        base = house.access.base(asker.reached, "", "" if self._only else f"{name}/")
        made = asker.mounts[name] = _Mount(registry, door, base)
        return made

    def _alike(self, name: str, copy: AtHand) -> _Alike:
        """
        The answers of a registry that say the same as the one with that copy, but for what each has of its own.

        Whoever asks makes no difference to them.
        """
        key = name, copy.stored.verified, copy.alike
        found = self._known_alike.get(key)
        if found is None:
            house = self._house
            reply = replace(copy.reply(), headers=Headers(copy.alike), body=b"", stop=0, standing=None, packages=())
            found = _Alike(reply, AlikeHeads(reply, _OK, house.token), house.answers(reply, name))
            if sum(len(value) for _, value in copy.alike) <= _LONGEST_ALIKE:
                if len(self._known_alike) >= _MOST_ALIKE:
                    self._known_alike.clear()
                self._known_alike[key] = found
        return found

    def _remember(self, place: Place, head: Head, reply: Reply, now: float, **about: str) -> None:
        """Have the answer ready for the next such request."""
        house, standing = self._house, reply.standing
        body = house.express.taken(reply, uncopied=False)
        if standing is None or body is None:
            return
        for _, entry in standing.entries:
            if entry is not None:
                house.cache.context.store.keep(entry)
        said = stamped(reply, house.token, now, alone=bool(self._only), own=False)
        fields = [(name, (value,)) for name, value in said]
        answers = house.answers(reply, about["registry"])
        prepared = Prepared.of(reply, fields, _OK, body, answers, package=",".join(reply.packages or ()), **about)
        if prepared is not None:
            house.express.remember(place, head.asked, prepared)

    def _asker(self, channel: HTTPChannel, place: Place, rest: bytes) -> _Asker | None:
        """
        Who asks, if they may and want no more than to read.

        :param rest: what follows the first line of the head, the end of that included.
        """
        if self._access is not self._house.access:
            # By other rules others may.
            self._known.clear()
            self._known_alike.clear()
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
        return _Asker(fields, peer if place.proxy else None, reached)


def _pass_on(client: Client, place: Place, head: Head, asked: Asked, _route: Artifact, ordinary: _Ordinary) -> None:
    """Have a request answered in the ordinary way, if the client is still there."""
    if client.waits:
        client.waits = False
        ordinary(place, head, asked)
