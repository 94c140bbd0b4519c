"""
What a registry makes of a request, and what it reads out of an index document.

These values are the whole conversation between a registry module and the rest of regcache: a registry turns a
request into a route and a document into facts and representations; how that is fetched, kept and sent is not
its business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
from attrs import evolve, field, frozen
from msgspec.structs import force_setattr

from regcache.http.messages import Digest, Headers

__all__ = [
    "COPY",
    "TARGETED",
    "Artifact",
    "Checksum",
    "Document",
    "Fact",
    "Facts",
    "Local",
    "Moved",
    "RegistryOptions",
    "Relay",
    "Release",
    "Resource",
    "Route",
    "Source",
]

#: In the key of an artifact, between what documents name it by and what tells copies from different places apart. It is
#: in no address, so that no client can write it.
COPY = "\t"


#: The field that speaks to caches of the operator's, unless others are named (RFC 9213 section 3.1).
TARGETED = ("cdn-cache-control",)


@frozen(kw_only=True)
class RegistryOptions:
    """
    How one registry is configured.

    :ivar name: its mount and the prefix of its keys.
    :ivar type: the entry point that implements it, such as ``pypi``.
    :ivar url: its upstream, ending with ``/``; empty for the type's own default.
    :ivar artifact_hosts: further ``host``, ``host:port`` or ``*.domain`` from which linked artifacts may come.
    :ivar shared: whether everybody may read it whose address is allowed, without saying who they are.
    :ivar readers: the names of those who may read it; empty for all who may use the cache.
    :ivar closed: whether its clients have to say who they are.
    :ivar ttl: seconds for which a mutable entry counts as fresh.
    :ivar refresh_after: seconds after which a fresh one is revalidated all the same; None for never.
    :ivar negative_ttl: seconds for which "there is none" is remembered.
    :ivar strict_links: whether a document is refused that holds a link past this cache.
    :ivar names: patterns of names of packages that are its upstream's alone.
    :ivar elsewhere: patterns of names that are another's, and for which this one is never asked.
    :ivar has_credentials: whether its upstream is asked with credentials or a certificate, so that what comes from
        there may not be for everybody. What they are stands in no options.
    :ivar follows: whether lifetimes are its upstream's own (RFC 9111) and not ``ttl``.
    :ivar methods: the methods beside GET and HEAD that are passed on, in upper case; only if it follows.
    :ivar forward_authorization: whether clients' own Authorization goes with what they ask; only if it follows.
    :ivar client_directives: whether what clients demand by Cache-Control counts; only if it follows.
    :ivar targets: the fields of a response, in lower case, that are meant for this cache (RFC 9213).
    :ivar stale_if_error: seconds past its lifetime for which a response answers in place of an upstream that does not;
        0 for never, None for as long as it takes. Only if it follows.
    :ivar extra: options that only this type knows, by the names it declares in ``option_names``.
    :ivar further: the registry's further upstreams, in the order in which they are asked for what those before have
        not; each with options of its own, made by :meth:`followed_by`.
    :ivar place: what tells the entries of a further upstream from those of the others; empty for the first.
    :ivar prefix: what the key of every entry of this upstream begins with; asked for several times in each request.
    """

    name: str
    type: str
    url: str = ""
    artifact_hosts: tuple[str, ...] = ()
    shared: bool = False
    readers: tuple[str, ...] = ()
    closed: bool = False
    ttl: float = 86400.0
    refresh_after: float | None = 600.0
    negative_ttl: float = 60.0
    strict_links: bool = False
    names: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    has_credentials: bool = False
    follows: bool = False
    methods: tuple[str, ...] = ()
    forward_authorization: bool = False
    client_directives: bool = False
    targets: tuple[str, ...] = TARGETED
    stale_if_error: float | None = None
    extra: Mapping[str, str] = field(factory=dict)
    further: tuple[RegistryOptions, ...] = ()
    place: str = ""
    prefix: str = field(init=False, repr=False, eq=False)

    @prefix.default
    def _prefix(self) -> str:
        return f"{self.name}/|{self.place}|" if self.place else f"{self.name}/"

    def followed_by(self, *urls: str) -> RegistryOptions:
        """
        These options with further upstreams, for which the same holds, but that names of its own are the first one's.

        :param urls: each ends with ``/``.
        """
        shared = evolve(self, further=(), names=(), elsewhere=(*self.elsewhere, *self.names))
        # By what it is, not by where it stands: what is stored stays valid when another is added before it.
        places = [hashlib.sha256(url.encode()).hexdigest()[:8] for url in urls]
        further = tuple(evolve(shared, url=url, place=place) for url, place in zip(urls, places, strict=True))
        return evolve(self, further=further)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """
    An index page: fetched whole, read before it is believed, and served in representations derived from what the
    upstream sent.

    ``msgspec.structs.replace`` makes a copy with other fields, as of an :class:`Artifact` and of a :class:`Fact`.

    :ivar key: names the upstream document within the registry, such as ``simple/requests``. Two requests that
        differ only in the representation share it.
    :ivar url: where it is upstream.
    :ivar accept: the Accept field to ask for it with.
    :ivar representation: the name of the form that this client wants, as the registry's ``represent`` knows it.
    :ivar content_type: the Content-Type of that form.
    :ivar vary: request fields that chose the representation, beside Accept-Encoding.
    :ivar linked: whether the representation holds absolute links, so that one is needed per base URL.
    :ivar instead: another document that serves as well if a fresh copy of it is stored.
    :ivar spares: documents that serve, in the representation they say, when this one cannot be had.
    :ivar mutable: whether the upstream may change it under the same name. What may not change is never
        revalidated once the upstream has sent the same twice.
    :ivar ttl: seconds of freshness of a mutable one, if not the registry's own.
    :ivar etag: the digest algorithm whose value for the body is the entity tag that the protocol speaks of, such as
        ``md5``; such a document is sent as it came. Empty where a tag is only a tag.
    :ivar grows: whether it is mostly changed at its end, so that a new one may be asked for from there on. It is held
        against whatever digests are published with it.
    :ivar packages: the names of packages that asking for it tells the upstream.
    :ivar sidecars: as of an :class:`Artifact`; what does not agree with the strongest that is there is refused.
    :ivar family: the same for documents that name the same artifacts; the key, unless said otherwise.
    """

    key: str
    url: str
    accept: str = "*/*"
    representation: str
    content_type: str
    vary: tuple[str, ...] = ()
    linked: bool = False
    instead: Document | None = None
    spares: tuple[Document, ...] = ()
    mutable: bool = True
    ttl: float | None = None
    etag: str = ""
    grows: bool = False
    sidecars: tuple[Document, ...] = ()
    packages: tuple[str, ...] = ()
    family: str = ""

    def __post_init__(self) -> None:
        if not self.family:
            force_setattr(self, "family", self.key)


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """
    A body that is streamed and served as it is, byte for byte.

    :ivar key: names it within the registry; the same for every spelling of its address. Where the address chooses among
        places of the upstream, that follows behind :data:`COPY`: what came from one proves nothing of another.
    :ivar url: where it is upstream as far as its address tells; the facts of its index may know better.
    :ivar fixed: whether it is there or nowhere: its index tells what it is, and not where.
    :ivar accept: the Accept field to ask for it with.
    :ivar content_type: what to serve it as; empty for what the upstream says.
    :ivar mutable: whether the upstream may change it under the same name. What may not change is never
        revalidated.
    :ivar ttl: seconds of freshness of a mutable one, if not the registry's own.
    :ivar digests: what the address itself proves about the body.
    :ivar indexes: the documents whose facts name this artifact; any that is stored will do, the first is asked for.
    :ivar proof: a smaller document whose facts name it as well, for when no index is stored.
    :ivar packages: the names of packages that asking for it tells the upstream, or those that it may be of.
    :ivar sound_by: a digest algorithm that only a sound body has, such as ``zip_h1`` of a zip file. It is computed of
        every body that is stored, and one that it cannot be computed of is refused: also when nothing is published
        that it could be held against yet.
    :ivar sidecars: documents beside it, each with one digest of it, the strongest first: the first that the upstream
        has is its proof. They tell nothing of where it is, and one that has none is served unproven.
    :ivar family: the same for artifacts that are named, or published, together.
    :ivar beside: the artifact that this one is about, such as what it signs: of several upstreams, only the one that
        has that one is asked.
    :ivar digest_fields: response fields in which its digests are told, each with the algorithm.
    """

    key: str
    url: str
    accept: str = "*/*"
    content_type: str = ""
    mutable: bool = False
    ttl: float | None = None
    digests: tuple[Digest, ...] = ()
    indexes: tuple[Document, ...] = ()
    proof: Document | None = None
    sidecars: tuple[Document, ...] = ()
    family: str = ""
    beside: Artifact | None = None
    digest_fields: tuple[tuple[str, str], ...] = ()
    packages: tuple[str, ...] = ()
    sound_by: str = ""
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.indexes and not self.family:
            force_setattr(self, "family", self.indexes[0].family)

    @property
    def named(self) -> str:
        """What facts name it by."""
        return self.key.partition(COPY)[0]

    def is_there(self, fact: Fact) -> bool:
        """Whether what its index says of it means that it is upstream at all, under this address."""
        return not self.fixed or fact.url == self.url

    @property
    def documents(self) -> tuple[Document, ...]:
        """All whose facts name this artifact."""
        named = self.indexes if self.proof is None else (*self.indexes, self.proof)
        return (*named, *self.sidecars)


@frozen(kw_only=True)
class Checksum:
    """
    The digest of what is served at another address, in hexadecimal: of those very bytes, so that both always agree.

    :ivar of: what it is the digest of. An artifact that may change has sidecars: of no other it is remembered which
        copy was sent last.
    :ivar algorithm: one of the registry's ``algorithms``.
    :ivar published: the upstream's own, in its representation ``as-is``, for an artifact of which no copy is stored
        that is known to be good.
    """

    of: Document | Artifact
    algorithm: str
    published: Document | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """As of what it is the digest of."""
        return self.of.packages


@frozen(kw_only=True)
class Local:
    """An answer that the registry module gives by itself."""

    status: int
    content_type: str
    body: bytes
    headers: Headers = Headers()


@frozen
class Moved:
    """
    The canonical address of what was asked for.

    :ivar location: the path below the mount, beginning with ``/``, percent-encoded, query included.
    """

    location: str


@frozen(kw_only=True)
class Relay:
    """
    A request that is passed on with its body and whose answer is never stored, such as an audit.

    :ivar url: where it goes.
    :ivar document: what the client's body is, if it is not to be sent as it came but in the form that the registry's
        ``represent`` makes of it: what may hold megabytes is read where it delays nobody.
    :ivar packages: the names of packages that its address tells the upstream.
    """

    url: str
    document: str = ""
    packages: tuple[str, ...] = ()


@frozen
class Release:
    """
    What something stored is a part of, as the ecosystem's people name it.

    :ivar package: its name; one that is spelled in several ways in one of them.
    :ivar version: empty for what is of the whole package, such as its index.
    """

    package: str
    version: str = ""


@frozen(kw_only=True)
class Resource:
    """
    Whatever the upstream serves at an address, to be kept and used by its own account alone (RFC 9111): every status,
    every field, every variant.

    :ivar key: names it within the registry.
    :ivar url: where it is upstream.
    """

    key: str
    url: str
    packages: tuple[str, ...] = ()


#: What a request can mean.
Route = Document | Artifact | Checksum | Local | Moved | Relay | Resource


@frozen(kw_only=True)
class Source:
    """
    An index document as the upstream sent it, decoded from its content coding.

    :ivar body: its bytes.
    :ivar content_type: its Content-Type.
    :ivar url: where it came from after redirects: what its relative links resolve against.
    """

    body: bytes
    content_type: str
    url: str


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """
    What an index document says about one artifact.

    :ivar url: where it is upstream, absolute, without a fragment; empty if the document does not say.
    :ivar digests: the digests published for it.
    :ivar size: its size in bytes, if published.
    :ivar proof: where there are no digests, another document whose facts have them, under the same key. It is read for
        its key, its ``url`` and its ``accept`` alone, and what it may point to in turn is not followed.
    """

    url: str
    digests: tuple[Digest, ...] = ()
    size: int | None = None
    proof: Document | None = None


class Facts(dict[str, Fact]):
    """
    What an index document says about artifacts, by the artifact's key within the registry.

    :param foreign: the links that lead to hosts which the registry may not contact; they are left as they are, and what
        they lead to is never fetched.
    :ivar foreign: how many of them there are, and the first, by host.
    """

    def __init__(self, found: Mapping[str, Fact] | None = None, foreign: Iterable[str] = ()) -> None:
        super().__init__(found or {})
        self.foreign: dict[str, tuple[int, str]] = {}
        for link in foreign:
            # Whoever is named before an @ is no host, and perhaps a secret.
            host = link.partition("://")[2].partition("/")[0].rpartition("@")[2]
            number, first = self.foreign.get(host, (0, link))
            self.foreign[host] = number + 1, first
