"""Several upstreams of one registry: the first that has something gives it, from then on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from attrs import frozen
from msgspec.structs import replace

from regcache.errors import NotFound
from regcache.flow.context import Bounded, Context
from regcache.flow.fetching import key_of
from regcache.flow.reply import Reply
from regcache.http.messages import Headers, RequestHead, Stored
from regcache.interfaces import IRegistry
from regcache.ownership import check
from regcache.routes import Artifact, Checksum, Document, Relay, Route

__all__ = ["Ordered"]

_MOST_OWNERS = 30_000
#: By these an upstream says that it does not do at all what it was passed on, such as audits.
_NOT_OFFERED = frozenset({404, 405, 501})


@frozen
class _Try:
    """One upstream, and what a request means there."""

    registry: IRegistry
    route: Route

    @property
    def place(self) -> str:
        """Which upstream it is."""
        place: str = self.registry.options.place
        return place

    def key(self, document: Document | Artifact) -> str:
        """A key of this upstream."""
        return key_of(self.registry, document)


class Ordered:
    """
    Asks upstreams in order.

    What one of them has given, or is stored of it, it is asked for first from then on. Only "there is none" leads to
    the next one: were a failure read like that, another upstream could answer with something else of the same name.

    :param one: answers a request from one upstream.
    """

    def __init__(self, context: Context, one: Callable[[IRegistry, Route, RequestHead], Awaitable[Reply]]) -> None:
        self._context = context
        self._one = one
        self._owners: Bounded[str, str] = Bounded(_MOST_OWNERS)

    async def answer(self, members: Sequence[IRegistry], request: RequestHead) -> Reply:
        """
        What the first upstream answers that has it.

        :raises regcache.errors.RegCacheError: if none has it, or one that might cannot be asked.
        """
        tries = _meanings(members, request)
        about = [_Try(one.registry, of) for one in tries if (of := _about(one.route)) is not None]
        if about:
            owner = await self._owner(about, request)
            tries = [one for one in tries if one.place == owner.place]
        elif _subject(tries[0].route) is not None:
            tries = await self._in_order(tries)
        return (await self._first(tries, request))[1]

    async def _first(self, tries: Iterable[_Try], request: RequestHead) -> tuple[_Try, Reply]:
        missing: NotFound | None = None
        refused: tuple[_Try, Reply] | None = None
        for one in tries:
            try:
                reply = await self._one(one.registry, one.route, request)
            except NotFound as error:
                missing = missing or error
                continue
            if isinstance(one.route, Relay) and reply.status in _NOT_OFFERED:
                refused = refused or (one, reply)
                continue
            self._remember(one)
            return one, reply
        if refused is not None:
            return refused
        raise missing or NotFound()

    async def _owner(self, tries: list[_Try], request: RequestHead) -> _Try:
        """
        The upstream whose artifact is served under that name.

        :raises regcache.errors.RegCacheError: if there is none, or that cannot be found out.
        """
        stored = await self._stored(tries, lambda one: (_subject(one.route),))
        known = stored or self._remembered(tries, lambda one: (_subject(one.route),))
        if known is not None:
            return known
        head = replace(request, method="HEAD", headers=Headers())
        owner, reply = await self._first(await self._in_order(tries), head)
        reply.close()
        return owner

    async def _in_order(self, tries: list[_Try]) -> list[_Try]:
        """Those to ask, the one that has it by what is known first; that alone, if its index has named it."""
        owner = await self._stored(tries, lambda one: (_subject(one.route),))
        owner = owner or self._remembered(tries, lambda one: (_subject(one.route),))
        if owner is None:
            owner = await self._stored(tries, _index) or self._remembered(tries, _index)
            if owner is not None:
                return [owner]
            owner = await self._stored(tries, _related) or self._remembered(tries, _related)
        owner = owner or await self._of_family(tries)
        return tries if owner is None else [owner, *(one for one in tries if one is not owner)]

    async def _stored(
        self, tries: list[_Try], names: Callable[[_Try], Iterable[Document | Artifact | None]]
    ) -> _Try | None:
        """The first upstream of which one of these entries is stored."""
        keys = {one.key(name): one for one in tries for name in names(one) if name is not None}
        if not keys:
            return None
        found: dict[str, Stored] = await self._context.store.find_all(list(keys))
        good = {keys[key].place for key, entry in found.items() if not entry.withdrawn}
        return next((one for one in tries if one.place in good), None)

    def _remembered(
        self, tries: list[_Try], names: Callable[[_Try], Iterable[Document | Artifact | None]]
    ) -> _Try | None:
        for one in tries:
            for name in names(one):
                if name is not None and self._owners.get(f"{one.registry.options.name}/{name.key}") == one.place:
                    return one
        return None

    async def _of_family(self, tries: list[_Try]) -> _Try | None:
        """The upstream that has given what is published together with this."""
        for one in tries:
            family = one.route.family if isinstance(one.route, Artifact) else ""
            if not family or _is_guessed(one.route):
                continue
            if self._owners.get(f"{one.registry.options.name}\t{family}") == one.place:
                return one
            if await self._context.store.children(one.registry.options.prefix + family):
                return one
        return None

    def _remember(self, one: _Try) -> None:
        subject, name = _subject(one.route), one.registry.options.name
        if subject is None:
            return
        self._owners.put(f"{name}/{subject.key}", one.place, 1)
        if isinstance(subject, Artifact) and subject.family:
            self._owners.put(f"{name}\t{subject.family}", one.place, 1)


def _meanings(members: Sequence[IRegistry], request: RequestHead) -> list[_Try]:
    """
    The upstreams to which the request means something, and that may be told the names in it.

    :raises regcache.errors.RegCacheError: a 4xx, if it means nothing to any.
    """
    found, missing = [], NotFound()
    for member in members:
        try:
            route = member.route(request)
            check(member.options, route)
            found.append(_Try(member, route))
        except NotFound as error:
            missing = error
    if not found:
        raise missing
    return found


def _subject(route: Route) -> Document | Artifact | None:
    """What is asked for, or asked about; None for what no upstream has a copy of."""
    if isinstance(route, Checksum):
        return route.of
    return route if isinstance(route, Document | Artifact) else None


def _about(route: Route) -> Artifact | None:
    """The artifact that is worth nothing without, and whose upstream alone knows this."""
    of = route.of if isinstance(route, Checksum) else None
    if isinstance(route, Artifact):
        of = route.beside
    return of if isinstance(of, Artifact) else None


def _index(one: _Try) -> Iterable[Document]:
    """The documents that name an artifact for sure, if it is there; others may be of something of a like name."""
    if not isinstance(one.route, Artifact) or _is_guessed(one.route):
        return ()
    return [document for document in one.route.documents if document.family == one.route.family]


def _related(one: _Try) -> Iterable[Document]:
    """The documents by which an upstream shows that it has what is asked for."""
    if isinstance(one.route, Artifact):
        return () if _is_guessed(one.route) else one.route.documents
    if isinstance(one.route, Document):
        return (*one.route.spares, *filter(None, [one.route.instead]))
    return ()


def _is_guessed(route: Route) -> bool:
    """
    Whether an artifact may be of one of several names.

    Whoever has the like of one of them would else be asked first for another's, or alone.
    """
    return isinstance(route, Artifact) and any(document.family != route.family for document in route.indexes)
