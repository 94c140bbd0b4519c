"""What the service says about itself, in text for a person or a shell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from msgspec.structs import replace

from regcache._version import __version__
from regcache.counts import Counts
from regcache.errors import MethodNotAllowed, NotFound
from regcache.flow.reply import Reply
from regcache.house import OWN, House
from regcache.http.fields import negotiate
from regcache.http.messages import Headers
from regcache.interfaces import IRegistry
from regcache.page.page import PLACE
from regcache.readiness import READY, ready

__all__ = ["LIVE", "Visit", "is_own", "live", "overview", "own_page"]


#: The lines that point clients at the registry of that name, as text.
CLIENTS = "/-/clients/"
#: How full the cache is and what it has done, as JSON.
HEALTH = "/-/health"
#: ``ok``, for a probe that asks whether the service lives, under whatever name it reaches it by.
LIVE = "/-/health/live"
#: The numbers, for Prometheus.
METRICS = "/-/metrics"


@frozen(kw_only=True)
class Visit:
    """
    Somebody who asks the service about itself.

    :ivar path: below the mount; ``query`` what follows it.
    :ivar last: the last segment of the whole path as they see it; empty where that ends with a slash.
    :ivar accept: the media types that they want.
    :ivar served: the registries that they may read.
    :ivar base: the URL of a registry's mount as they reach it, by its name.
    """

    method: str
    path: str
    query: str
    last: str
    accept: str
    served: Mapping[str, IRegistry]
    base: Callable[[str], str]


def is_own(path: str) -> bool:
    """Whether a path below the mount is the service's own, and no registry's."""
    return path in ("", "/") or path.startswith("/-/")


async def own_page(house: House, visit: Visit) -> Reply | None:
    """
    What the service says about itself, and about the registries that this client may read; None for what is theirs.

    :raises regcache.errors.RegCacheError: a 4xx, or if it cannot be said now.
    """
    path, served = visit.path, visit.served
    known = ("", "/", HEALTH, READY, METRICS)
    if path not in known and not path.startswith((CLIENTS, PLACE)):
        return None
    if visit.method not in ("GET", "HEAD"):
        raise MethodNotAllowed()
    if path.startswith(CLIENTS):
        return clients(served, path.removeprefix(CLIENTS), visit.base)
    if path.startswith(PLACE):
        return await house.page.beside(path.removeprefix(PLACE), served)
    if path == READY:
        return await ready(house.cache.context, house.config, house.condition(), served)
    if path == METRICS:
        return metrics(house.cache.context.upstream.counts, lambda: house.scene(served), OWN, visit.accept)
    if path.strip("/"):
        return health(house.health(served))
    return await _front(house, visit)


async def _front(house: House, visit: Visit) -> Reply:
    """The page for people; for programs the same in plain text, but without what changes."""
    if negotiate(visit.accept, ["text/plain", "text/html"]) != "text/html":
        told = overview(visit.served, visit.base, house.state())
        return replace(told, headers=told.headers.replacing({"vary": "Accept"}))
    if visit.last:
        # Its links lead on from its folder, by whatever way it is reached.
        query = f"?{visit.query}" if visit.query else ""
        return Reply(status=308, headers=Headers.of({"location": f"./{visit.last}/{query}", "vary": "Accept"}))
    return await house.page.shown(visit.query, visit.served, visit.base)


def overview(registries: Mapping[str, IRegistry], base: Callable[[str], str], state: str) -> Reply:
    """
    What is served where, and how clients are pointed there.

    :param base: the URL of a registry's mount, by its name.
    :param state: how the cache is.
    """
    lines = [f"regcache {__version__}: a cache in front of package registries.", ""]
    for name, registry in registries.items():
        lines += [f"{name} at {base(name)}", *(f"    {line}" for line in registry.client_lines(base(name))), ""]
    return _text([*lines, state])


def clients(registries: Mapping[str, IRegistry], name: str, base: Callable[[str], str]) -> Reply:
    """
    The lines that point clients at one registry, and nothing else.

    :raises regcache.errors.NotFound: if it is not served.
    """
    if name not in registries:
        raise NotFound(f"No registry {name!r} is served here; {CLIENTS}NAME is for {', '.join(registries)}.")
    return _text(registries[name].client_lines(base(name)))


def health(state: Mapping[str, Any]) -> Reply:
    """The state of the service, for probes that may know it."""
    body = json.dumps(state).encode() + b"\n"
    return Reply(status=200, headers=Headers.of({"content-type": "application/json"}), body=body)


def live() -> Reply:
    """That the service lives, and nothing that not everybody may know."""
    return _text(["ok"])


def metrics(counts: Counts, scene: Callable[[], Mapping[str, Any]], own: str, accept: str) -> Reply:
    """
    The numbers, for Prometheus.

    :param scene: what :class:`regcache.metrics.Scene` is made of.
    :raises regcache.errors.NotFound: if the library for it is not installed.
    """
    try:
        # Who does not ask for it need not have it, nor its memory.
        from regcache.metrics import Scene, rendered
    except ImportError as error:
        if error.name is None or not error.name.startswith("prometheus_client"):
            raise
        raise NotFound("Metrics need one more library: pip install prometheus-client") from None
    return rendered(counts, Scene(**scene()), own, accept)


def _text(lines: list[str]) -> Reply:
    body = "".join(f"{line}\n" for line in lines).encode()
    return Reply(status=200, headers=Headers.of({"content-type": "text/plain; charset=utf-8"}), body=body)
