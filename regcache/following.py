"""
The configuration of a registry whose upstream says itself how long things are fresh: ``freshness = "upstream"``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regcache import values
from regcache.errors import ConfigError
from regcache.routes import TARGETED

__all__ = ["KEYS", "read"]


def _patience(text: str) -> float:
    return values.optional_duration(text) or 0.0


#: Those that mean something only where the upstream is followed: the attribute, the reader and the default of each.
_BESIDE: dict[str, tuple[str, Callable[[str], Any], Any]] = {
    "methods": ("methods", values.methods, ()),
    "forward-authorization": ("forward_authorization", values.truth, False),
    "client-directives": ("client_directives", values.truth, False),
    "targeted": ("targets", values.fields, TARGETED),
    "stale-if-error": ("stale_if_error", _patience, None),
}
#: The keys in a registry's table.
KEYS = ("freshness", *_BESIDE)


def read(name: str, upstreams: int, reader: Callable[..., Any], *, tells: bool) -> dict[str, Any]:
    """
    What a registry's table says, as arguments of :class:`regcache.routes.RegistryOptions`.

    :param upstreams: how many it has.
    :param reader: reads one key of the table: its name, the reader of its value, the default.
    :param tells: whether clients have to say who they are.
    :raises regcache.errors.ConfigError: with one line for a person.
    """
    follows = reader("freshness", values.any_of("forced", "upstream"), "forced") == "upstream"
    found = {attribute: reader(key, parse, default) for key, (attribute, parse, default) in _BESIDE.items()}
    said = [key for key, (attribute, _, default) in _BESIDE.items() if found[attribute] != default]
    if said and not follows:
        raise ConfigError(f'registries.{name}.{said[0]}: it means something only beside freshness = "upstream".')
    if follows and upstreams > 1:
        raise ConfigError(f'registries.{name}.freshness: "upstream" follows one upstream; url names {upstreams}.')
    if found["forward_authorization"] and tells and not reader("shared", values.truth, False):
        raise ConfigError(
            f"registries.{name}: forward-authorization wants shared = true beside auth, since clients tell this cache"
            " who they are by that field."
        )
    return {"follows": follows, **found}
