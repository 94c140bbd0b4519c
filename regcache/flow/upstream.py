"""
Asking the registries: one client for all of them, with limits an origin, own redirects and one deadline.

Below it lie the single connections (:mod:`regcache.flow.connections`), which know neither redirects nor time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urljoin

import msgspec
from twisted.internet.interfaces import IReactorTime

from regcache.counts import Counts
from regcache.errors import ForbiddenOrigin, UpstreamError, UpstreamTimeout
from regcache.flow.answers import Access, Answer
from regcache.flow.queues import Place, Queues
from regcache.flow.waiting import Deadlines
from regcache.http.fields import hop_by_hop
from regcache.http.messages import Headers
from regcache.http.origins import LONGEST_AGAIN, Origin
from regcache.http.storing import end_to_end
from regcache.interfaces import IRegistry, IUpstream
from regcache.limits import Limits

if TYPE_CHECKING:
    from regcache.interfaces import Interim

__all__ = ["Ask", "Upstream", "origin_of", "origins_of"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Redirects that keep the method and the body (RFC 9110 section 15.4).
_REPEATING = frozenset({307, 308})
_MOST_REDIRECTS = 5
#: What is for whoever reads an answer here, and for nobody behind.
_OWN = frozenset({"content-encoding", "content-length", "set-cookie"})


def origin_of(url: str) -> str:
    """The scheme, host and port of a URL, as one name."""
    return _origin_of(url) if len(url) <= LONGEST_AGAIN else _origin_of.__wrapped__(url)


@lru_cache(4096)
def _origin_of(url: str) -> str:
    origin = Origin.of(url)
    return "a host that cannot be named" if origin is None else f"{origin.scheme}://{origin.authority}"


@lru_cache(64)
def _coded(fields: Headers, coding: str) -> Headers:
    return fields.replacing({"accept-encoding": coding})


def origins_of(registry: IRegistry) -> list[str]:
    """The origins of the upstreams that a registry is configured with."""
    options = registry.options
    return list(dict.fromkeys(origin_of(one.url) for one in (options, *options.further)))


def _resolved(url: str, location: str) -> str:
    """
    Where a redirect leads.

    :raises regcache.errors.ForbiddenOrigin: if that is no URL, or less secure.
    """
    try:
        target = urljoin(url, location.strip().replace(" ", "%20")).partition("#")[0]
    except ValueError:
        target = ""
    before, after = Origin.of(url), Origin.of(target)
    if after is None:
        raise ForbiddenOrigin(f"{url} redirects to what is no usable URL.")
    if before is not None and before.scheme == "https" and after.scheme != "https":
        raise ForbiddenOrigin(f"{url} redirects from https to {origin_of(target)}.")
    return target


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """
    One request to an upstream.

    :ivar allows: says of each URL, redirects included, whether it may be contacted.
    :ivar registry: the name of the registry that it is for, whose own access goes with it.
    :ivar artifact: which of the origin's two queues it waits in.
    :ivar coding: the content coding to ask for.
    :ivar interim: who is told the interim responses, where the client itself is to get what comes: then the answer has
        all end-to-end fields, nothing is asked for but what ``headers`` say, and a redirect is an answer.
    """

    method: str = "GET"
    url: str
    headers: Headers = Headers()
    allows: Callable[[str], bool]
    registry: str = ""
    artifact: bool = False
    coding: str = "identity"
    body: bytes | BinaryIO = b""
    interim: Interim | None = None


def _said(ask: Ask) -> Headers:
    """The fields to ask with: with the content coding, unless they are all somebody else's."""
    if ask.interim is not None:
        return ask.headers
    short = sum([len(value) for _, value in ask.headers.items]) <= LONGEST_AGAIN
    return (_coded if short else _coded.__wrapped__)(ask.headers, ask.coding)


def _ours(headers: Headers) -> Headers:
    """The fields of an answer that are for whoever is behind."""
    gone = hop_by_hop(headers)
    return Headers(tuple([field for field in headers.items if field[0] not in gone and field[0] not in _OWN]))


class Upstream:
    """
    The client: queues, redirects and deadlines.

    :param lowest: who puts each single request, see :class:`regcache.flow.connections.Connections`.
    :param idle_timeout: seconds a body may pause.
    :param accesses: the registries that have an access of their own, by name.
    :param way: through what a URL is asked, for a person: the end of a sentence, or empty.
    :ivar counts: the numbers of the service.
    """

    def __init__(
        self,
        clock: IReactorTime,
        lowest: IUpstream,
        idle_timeout: float = 30.0,
        accesses: Mapping[str, Access] | None = None,
        way: Callable[[str], str] = lambda _url: "",
        counts: Counts | None = None,
    ) -> None:
        self.counts = counts or Counts()
        self._clock = clock
        self._lowest = lowest
        self._idle_timeout = idle_timeout
        self._accesses = accesses or {}
        self._way = way
        self._queues = Queues(clock, Limits())
        self._deadlines = Deadlines(clock)

    def change(self, idle_timeout: float, accesses: Mapping[str, Access]) -> None:
        """Let bodies pause so long, and ask with these accesses, from the next request on."""
        self._idle_timeout, self._accesses = idle_timeout, accesses

    def limit(self, limits: Limits) -> None:
        """Ask so much at once; to be said before anything is asked."""
        self._queues = Queues(self._clock, limits)

    def crowded(self, url: str) -> bool:
        """Whether artifacts of that host wait for their turn."""
        return self._queues.crowded(origin_of(url), True)

    async def ask(
        self, ask: Ask, deadline: float, patience: float | None = None, headers: Headers | None = None
    ) -> Answer:
        """
        Ask, following redirects.

        :param deadline: seconds for name look-up, connecting, TLS, redirects and the head together, from when the
            origin's queue lets the request through.
        :param patience: seconds to wait in the queue; None for as long as it takes.
        :param headers: all fields to ask with, where that are not those of ``ask``.
        :raises regcache.errors.UpstreamError: if there is no answer; every status is an answer.
        :raises regcache.errors.Crowded: if the queue did not let it through in time, or is full.
        """
        url, ends, access = ask.url, None, self._accesses.get(ask.registry)
        fields = _said(ask) if headers is None else headers
        for _ in range(_MOST_REDIRECTS + 1):
            if not ask.allows(url):
                raise ForbiddenOrigin(
                    f"It is {origin_of(url)}; if that is right, add the host to artifact-hosts of this registry."
                )
            if access is not None and Origin.of(url) != access.origin:
                # Nor where another host sends us: what it makes us ask there is not the registry's own question.
                access = None
            origin = origin_of(url)
            slot = self._queues.at_once(origin, ask.artifact)
            if slot is None:
                slot = await self._queues.place(origin, ask.artifact, patience)
            ends = self._clock.seconds() + deadline if ends is None else ends
            try:
                answer = await self._once(ask, url, origin, fields, ends, slot, access)
            except BaseException:
                slot.release()
                raise
            location = answer.headers.get("location") if answer.status in _REDIRECTS else ""
            if not location or ask.interim is not None:
                return answer
            answer.discard()
            url = self._follow(ask, answer.status, url, location)
        raise UpstreamError(f"{ask.url} redirects more than {_MOST_REDIRECTS} times.")

    @staticmethod
    def _follow(ask: Ask, status: int, url: str, location: str) -> str:
        target = _resolved(url, location)
        if ask.body and (status not in _REPEATING or Origin.of(target) != Origin.of(url)):
            raise ForbiddenOrigin(f"{url} redirects to {origin_of(target)}, which is not told what was asked.")
        return target

    async def _once(
        self, ask: Ask, url: str, origin: str, fields: Headers, ends: float, slot: Place, access: Access | None
    ) -> Answer:
        clock, lowest = self._clock, self._lowest
        if access is not None:
            lowest = access.lowest
            if access.authorization:
                fields = fields.replacing({"authorization": access.authorization})
        asked, began = self.counts.upstream(origin), clock.seconds()
        try:
            more = () if ask.interim is None else (ask.interim,)
            response = await self._deadlines.within(
                ends - began, lowest.request(ask.method, url, fields, ask.body, *more)
            )
        except TimeoutError:
            asked.failed(clock.seconds())
            raise UpstreamTimeout(f"{origin} gave no answer in time{self._way(url)}.") from None
        except UpstreamError:
            asked.failed(clock.seconds())
            raise
        now = clock.seconds()
        asked.answered(response.status, now - began, now)
        headers = response.headers
        coding = headers.get("content-encoding").strip().lower()
        return Answer(
            status=response.status,
            headers=_ours(headers) if ask.interim is None else end_to_end(headers),
            url=url,
            length=response.length,
            coding="" if coding == "identity" else coding,
            clock=clock,
            idle_timeout=self._idle_timeout,
            response=response,
            slot=slot,
            through=self._way,
            access=access,
            asked=asked,
        )
