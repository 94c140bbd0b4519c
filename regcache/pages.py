"""What the service says about itself, in text for a person or a shell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from regcache._version import __version__
from regcache.errors import NotFound
from regcache.flow.reply import Reply
from regcache.http.messages import Headers
from regcache.interfaces import IRegistry

__all__ = ["CLIENTS", "clients", "overview"]

#: Where the lines of one registry are, by its name.
CLIENTS = "/-/clients/"


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


def _text(lines: list[str]) -> Reply:
    body = "".join(f"{line}\n" for line in lines).encode()
    return Reply(status=200, headers=Headers.of({"content-type": "text/plain; charset=utf-8"}), body=body)
