"""What a request would get now, and why: the cache's decision put in words, without making the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, frozen
from msgspec.structs import replace

from regcache.config import Config
from regcache.errors import NotFound, RegCacheError
from regcache.flow.fetching import key_of
from regcache.flow.lifetimes import rules_for
from regcache.http.messages import Digest, Headers, Kind, RequestHead, Stored
from regcache.http.policy import Decision, Fetch, Gone, Refuse, Revalidate, Rules, UseStored, age_of, decide
from regcache.interfaces import IOrdered, IRegistry
from regcache.ownership import check
from regcache.routes import COPY, Artifact, Document, Moved, Resource, Route
from regcache.store.listing import Listed, Seen

__all__ = [
    "Meant",
    "asked_by",
    "below",
    "document_of",
    "guessed",
    "in_words",
    "outlook",
    "route_of",
    "rules_of",
    "summary",
    "told_of",
]

#: What clients ask for, of which each leads to a document of its own in some registry.
_ACCEPTS = ("", "application/vnd.npm.install-v1+json")
#: Where what has this key may be found.
_PATHS = ("/{key}", "/{key}/", "/{last}", "/{last}/", "/{package}", "/{package}/", "{upstream}", "{beneath}")


@frozen
class Meant:
    """
    What a URL means here.

    :ivar route: None where it is refused.
    :ivar why: why it is refused.
    """

    registry: IRegistry
    route: Document | Artifact | Resource | None
    why: str = ""

    @property
    def key(self) -> str:
        """The key of its entry; empty where it is refused."""
        return "" if self.route is None else key_of(self.registry, self.route)


def rules_of(config: Config) -> Rules:
    """The rules that the operator set."""
    return Rules(
        ttl=config.ttl,
        refresh_after=config.refresh_after,
        negative_ttl=config.negative_ttl,
        upstream_timeout=config.upstream_timeout,
        cold_timeout=config.cold_timeout,
        offline=config.offline,
    )


def _members(registry: IRegistry) -> list[IRegistry]:
    return list(registry.members) if IOrdered.providedBy(registry) else [registry]


def _routed(registry: IRegistry, path: str, query: str = "", accept: str = "") -> Route:
    headers = Headers.of({"accept": accept} if accept else {})
    for _ in range(3):
        route = registry.route(RequestHead(method="GET", path=path, query=query, headers=headers))
        if not isinstance(route, Moved):
            return route
        path, _, query = route.location.partition("?")
    return route


def below(registries: Mapping[str, IRegistry], url: str) -> Meant | None:
    """What a URL of this cache, or its path, means: where one of its segments names a registry; else None."""
    parts = urlsplit(url)
    segments = parts.path.lstrip("/").split("/")
    at = next((at for at, one in enumerate(segments) if one in registries), None)
    if at is None:
        return None
    registry = _members(registries[segments[at]])[0]
    try:
        route = _routed(registry, "/" + "/".join(segments[at + 1 :]), parts.query)
        check(registry.options, route)
    except RegCacheError as error:
        return Meant(registry, None, error.text)
    return Meant(registry, route) if isinstance(route, Document | Artifact | Resource) else None


def document_of(registries: Mapping[str, IRegistry], entry: Stored) -> Meant | None:
    """By which route an entry that is a document is fetched; None where no address of a client's leads there."""
    found = route_of(registries, entry)
    return found if found is not None and isinstance(found.route, Document) else None


def route_of(registries: Mapping[str, IRegistry], entry: Stored) -> Meant | None:
    """By which route of a client's an entry is fetched; None where no address leads there that can be guessed."""
    for registry in _members(registries[entry.registry]) if entry.registry in registries else []:
        if not entry.key.startswith(registry.options.prefix):
            continue
        for path, query in _places(registry, entry):
            for accept in _ACCEPTS:
                try:
                    route = _routed(registry, path, query, accept)
                except RegCacheError:
                    continue
                if isinstance(route, Document | Artifact) and key_of(registry, route) == entry.key:
                    return Meant(registry, route)
    return None


def _places(registry: IRegistry, entry: Stored) -> Iterator[tuple[str, str]]:
    """Paths and queries that may lead to an entry."""
    key = entry.key.removeprefix(registry.options.prefix).partition(COPY)[0]
    key, _, query = key.partition("?")
    upstream = urlsplit(entry.url).path
    beneath = "/" + entry.url.removeprefix(registry.options.url).partition("?")[0]
    named = {"key": key, "last": key.rpartition("/")[2], "package": key.partition("/")[2]}
    for pattern in _PATHS:
        yield pattern.format(**named, upstream=upstream, beneath=beneath), query


def outlook(meant: Meant, stored: Stored | None, rules: Rules, now: float, *, trouble: bool = False) -> tuple[str, str]:
    """
    One word for what a request would get now, and why.

    :param now: the wall clock.
    :param trouble: whether the upstream is known to be in trouble.
    :returns: ``hit``, ``revalidated``, ``stale``, ``miss`` or ``blocked``, and a sentence.
    """
    route = meant.route
    if route is None:
        return "blocked", meant.why
    try:
        check(meant.registry.options, route)
    except NotFound as error:
        return "blocked", error.text
    mutable = isinstance(route, Resource) or route.mutable
    mutable = mutable or (isinstance(route, Document) and stored is not None and not stored.verified)
    own = rules_for(rules, meant.registry, None if isinstance(route, Resource) else route.ttl, stored)
    return _worded(decide(stored, own, now=now, mutable=mutable, spared=trouble), mutable=mutable, trouble=trouble)


def _worded(decision: Decision, *, mutable: bool, trouble: bool) -> tuple[str, str]:
    if isinstance(decision, Fetch):
        return "miss", "Nothing is stored: it is fetched from the registry."
    if isinstance(decision, Refuse):
        return "blocked", "Nothing is stored, and the cache is offline."
    if isinstance(decision, Gone):
        return "blocked", f"The registry has withdrawn it, by status {decision.status}."
    if isinstance(decision, Revalidate):
        if not decision.usable:
            return "revalidated", "It may be used only once the registry has been asked, by its own account."
        if decision.stale:
            return "revalidated", "It is past its lifetime: the registry is asked first, the stored copy is the spare."
        return "revalidated", f"It is fresh but not new: the registry is asked, for up to {decision.wait:g} s."
    assert isinstance(decision, UseStored)
    if decision.stale:
        return "stale", "It is past its lifetime, and the registry is " + ("in trouble." if trouble else "not asked.")
    return "hit", "It is stored and fresh." if mutable else "It is stored, and never changes under this name."


def guessed(registries: Mapping[str, IRegistry], entry: Stored) -> Meant | None:
    """What an entry is, by its key alone: a document by its address, else something that does not change."""
    if entry.registry not in registries:
        return None
    found = document_of(registries, entry) if entry.kind is Kind.DOCUMENT else None
    if found is not None:
        return found
    registry = next(
        (one for one in _members(registries[entry.registry]) if entry.key.startswith(one.options.prefix)),
        registries[entry.registry],
    )
    key = entry.key.removeprefix(registry.options.prefix)
    made = Artifact(key=key, url=entry.url)
    return Meant(registry, replace(made, mutable=entry.kind is Kind.DOCUMENT))


def in_words(error: RegCacheError) -> str:
    """What went wrong, for whoever gave a command: the first sentence of what was not found is about an address."""
    return error.detail if isinstance(error, NotFound) and error.detail else error.text


def summary(one: Listed, now: float) -> dict[str, Any]:
    """An entry in a list; times in seconds since the epoch, ages in seconds."""
    entry = one.entry
    age = age_of(entry, now)
    return {
        "key": entry.key,
        "registry": entry.registry,
        "kind": entry.kind.value,
        "size": entry.size,
        "age": round(age) if age < 1e18 else None,
        "hits": one.hits,
        "withdrawn": entry.withdrawn,
    }


def asked_by(registries: Mapping[str, IRegistry], name: str) -> Meant | None:
    """What a name means that is a URL of this cache, or its path; None for a key."""
    return below(registries, name) if "://" in name or name.startswith("/") else None


def as_it_was(registries: Mapping[str, IRegistry], entry: Stored) -> Meant | None:
    """
    A route by which the very same body is fetched from where it came, whatever address a client had for it.

    None for what nothing vouches for, so that it may be another by now, and for what no upstream has.
    """
    found = guessed(registries, entry)
    if found is None or not isinstance(found.route, Artifact) or entry.kind is not Kind.ARTIFACT or not entry.verified:
        return None
    digest = Digest("sha256", entry.digest)
    kind = entry.headers.get("content-type")
    return evolve(found, route=replace(found.route, digests=(digest,), content_type=kind))


def told_of(
    registries: Mapping[str, IRegistry],
    name: str,
    seen: Seen | None,
    rules: Rules,
    now: float,
    *,
    trouble: bool = False,
) -> dict[str, Any]:
    """
    All that is known of what a person calls so, and what a request for it would get.

    :param name: a URL of this cache, or what :func:`seen` was found by.
    :param seen: its entry, found by the name or by the key of what :func:`asked_by` says that it means.
    :raises regcache.errors.NotFound: if there is nothing to be said.
    """
    meant = asked = asked_by(registries, name)
    if seen is None:
        if meant is None:
            url = "://" in name or name.startswith("/")
            more = (
                "and no registry here has such an address." if url else f"'regcache ls {name}' lists what is like it."
            )
            raise NotFound(f"Nothing is stored as {name!r}{', ' if url else '; '}{more}")
        word, why = outlook(meant, None, rules, now, trouble=trouble)
        return {"key": meant.key, "url": meant.route.url if meant.route else "", "now": word, "why": why}
    entry = seen.one.entry
    if asked is None or asked.key != entry.key:
        meant = guessed(registries, entry)
    word, why = "blocked", f"No registry {entry.registry!r} is served."
    if entry.kind is Kind.DERIVED:
        why = f"Nobody asks for it by itself: it was made of {entry.parent!r}, and goes with it."
    elif meant is not None:
        word, why = outlook(meant, None if seen.wrong else entry, rules, now, trouble=trouble)
    return {**_described(seen.one, now), "wrong": seen.wrong, "now": word, "why": f"{seen.wrong} {why}".strip()}


def _described(one: Listed, now: float) -> dict[str, Any]:
    entry = one.entry
    return {
        **summary(one, now),
        "url": entry.url,
        "digest": f"sha256:{entry.digest}",
        "digests": [f"{digest.algorithm}:{digest.value}" for digest in entry.digests],
        "verified": entry.verified,
        "headers": [list(pair) for pair in entry.headers],
        "parent": entry.parent,
        "stored_at": entry.stored_at,
        "validated_at": entry.validated_at,
        "used_at": one.used_at,
    }
