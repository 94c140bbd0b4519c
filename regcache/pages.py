"""What the service says about itself, in text for a person or a shell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from regcache._version import __version__
from regcache.counts import Counts
from regcache.errors import NotFound
from regcache.flow.reply import Reply
from regcache.http.messages import Headers
from regcache.interfaces import IRegistry

__all__ = ["CLIENTS", "LIVE", "METRICS", "clients", "health", "live", "metrics", "overview"]

#: Where the lines of one registry are, by its name.
CLIENTS = "/-/clients/"
#: Where a probe asks whether the service lives, under whatever name it reaches it by.
LIVE = "/-/health/live"
#: What Prometheus scrapes.
METRICS = "/-/metrics"


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
        raise NotFound("Metrics need one more library: pip install 'regcache[metrics]'") from None
    return rendered(counts, Scene(**scene()), own, accept)


def _text(lines: list[str]) -> Reply:
    body = "".join(f"{line}\n" for line in lines).encode()
    return Reply(status=200, headers=Headers.of({"content-type": "text/plain; charset=utf-8"}), body=body)
