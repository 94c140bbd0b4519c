"""What the contract of registries is tried with: what clients ask, a small upstream, and a cache in front of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import evolve, frozen

from regcache.errors import RegCacheError
from regcache.flow.reply import Reply
from regcache.http.messages import Headers, RequestHead
from regcache.interfaces import IRegistry
from regcache.registries import make
from regcache.routes import Artifact, Checksum, Document, RegistryOptions, Relay, Resource, Route
from regcache.testing.kit import BASE, Kit, Page, make_cache

__all__ = ["Ask", "Sample", "Sampled"]


@frozen
class Ask:
    """
    What a client asks.

    :ivar path: below the mount, with a query if there is one.
    :ivar fields: the request's header fields.
    """

    path: str
    fields: tuple[tuple[str, str], ...] = ()

    def head(self, base: str = BASE, method: str = "GET") -> RequestHead:
        """The request."""
        path, _, query = self.path.partition("?")
        return RequestHead(method=method, path=path, query=query, headers=Headers.of(self.fields), base=base)


@frozen(kw_only=True)
class Sample:
    """
    A small upstream, and what clients ask of it.

    :ivar url: the upstream that the registry is configured with.
    :ivar pages: what is where upstream.
    :ivar documents: what clients ask for that is an index; every one is to be answered with 200.
    :ivar artifacts: what a client with nothing but a lock file asks for, and the URL of the body that it is to get.
    :ivar verified: whether something vouches for every one of these artifacts.
    :ivar hosts: further hosts that may be asked, beside the upstream's.
    :ivar nameless: those of the documents and artifacts that tell the upstream no name of a package.
    :ivar options: what else the registry is configured with.
    """

    url: str
    pages: Mapping[str, Page]
    documents: tuple[Ask, ...]
    artifacts: Mapping[Ask, str]
    verified: bool = True
    hosts: frozenset[str] = frozenset()
    nameless: frozenset[Ask] = frozenset()
    options: Mapping[str, Any] = {}


class Sampled:
    """
    A registry in front of a sample.

    :cvar type: the entry point's name.
    :cvar factory: the class, for as long as no entry point leads to it.
    :cvar follows: whether the registry follows its upstream in how long things are fresh; that says so of every page
        then.
    """

    type: str
    factory: Any = None
    follows = False

    def sample(self) -> Sample:
        """The upstream that the promises are tried with."""
        raise NotImplementedError

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        """The links in an answered document that a client would follow, as they stand there; none unless overridden."""
        del ask, body
        return ()

    def behind(self, sample: Sample) -> IRegistry:
        """The registry of another cache, whose upstream is this one's mount at ``BASE``."""
        return self.registry(sample, BASE)

    # What the promises are made of.

    def registry(self, sample: Sample, url: str = "") -> IRegistry:
        """The registry in front of the sample."""
        more = {"follows": self.follows, **sample.options}
        options = RegistryOptions(name=self.type, type=self.type, url=url or sample.url, **more)
        return make(options, self.factory)

    def kit(self, sample: Sample) -> Kit:
        """A cache, empty, and the sample behind it."""
        kit = make_cache(self.registry(sample))
        kit.upstream.pages.update({url: self._lasting(page) for url, page in sample.pages.items()})
        return kit

    def _lasting(self, page: Page) -> Page:
        said = {"cache-control": "max-age=86400", **page.headers}
        return evolve(page, headers=said) if self.follows else page

    @staticmethod
    def _get(kit: Kit, ask: Ask, method: str = "GET", base: str = BASE, **more: str) -> tuple[Reply, bytes]:
        fields = tuple((name.replace("_", "-"), value) for name, value in more.items())
        return kit.get_head(Ask(ask.path, (*ask.fields, *fields)).head(base, method))

    @classmethod
    def _reached(cls, route: Route) -> Iterator[str]:
        """Every URL that answering a route may ask for."""
        if isinstance(route, Checksum):
            yield from cls._reached(route.of)
            yield from cls._reached(route.published) if route.published is not None else ()
        if isinstance(route, Artifact | Document | Relay | Resource):
            yield route.url
        if isinstance(route, Artifact):
            yield from (one.url for one in route.documents)
            yield from cls._reached(route.beside) if route.beside is not None else ()
        if isinstance(route, Document):
            yield from (one.url for one in (*route.spares, *route.sidecars, *filter(None, [route.instead])))

    def _reached_if_any(self, registry: IRegistry, path: str) -> list[str]:
        try:
            return list(self._reached(registry.route(Ask(path).head())))
        except RegCacheError as error:
            if not 400 <= error.status < 500:
                raise
            return []

    def _status(self, kit: Kit, ask: Ask, method: str = "GET") -> int:
        try:
            reply, _ = self._get(kit, ask, method)
        except RegCacheError as error:
            return error.status
        return reply.status

    def _asks(self, sample: Sample) -> list[Ask]:
        return [*sample.documents, *sample.artifacts]

    def _behind_an_empty_one(self, sample: Sample) -> Kit:
        options = RegistryOptions(name=self.type, type=self.type, url="https://empty.test/", **sample.options)
        kit = make_cache(make(options.followed_by(sample.url), self.factory))
        kit.upstream.pages.update(sample.pages)
        return kit
