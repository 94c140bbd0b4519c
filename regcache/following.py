"""
The configuration of a registry whose upstream says itself how long things are fresh: ``freshness = "upstream"``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from regcache import values
from regcache.errors import ConfigError
from regcache.routes import TARGETED

__all__ = ["KEYS", "read"]

#: Those that mean something only where the upstream is followed.
_BESIDE = ("methods", "forward-authorization", "client-directives", "targeted", "stale-if-error")
#: The keys in a registry's table.
KEYS = ("freshness", *_BESIDE)


def read(
    name: str, table: Mapping[str, str], upstreams: int, reader: Callable[..., Any], *, tells: bool
) -> dict[str, Any]:
    """
    What a registry's table says, as arguments of :class:`regcache.routes.RegistryOptions`.

    :param upstreams: how many it has.
    :param reader: reads one key of the table: its name, the reader of its value, the default.
    :param tells: whether clients have to say who they are.
    :raises regcache.errors.ConfigError: with one line for a person.
    """
    follows = reader("freshness", values.any_of("forced", "upstream"), "forced") == "upstream"
    useless = [key for key in _BESIDE if key in table and not follows]
    if useless:
        raise ConfigError(f'registries.{name}.{useless[0]}: it means something only beside freshness = "upstream".')
    if follows and upstreams > 1:
        raise ConfigError(f'registries.{name}.freshness: "upstream" follows one upstream; url names {upstreams}.')
    forwards = reader("forward-authorization", values.truth, False)
    if forwards and tells and not reader("shared", values.truth, False):
        raise ConfigError(
            f"registries.{name}.forward-authorization: by the same field clients tell this cache who they are (auth);"
            " set shared = true for this registry, or leave one of them out."
        )
    return {
        "follows": follows,
        "methods": reader("methods", values.methods, ()),
        "forward_authorization": forwards,
        "client_directives": reader("client-directives", values.truth, False),
        "targets": reader("targeted", values.fields, TARGETED),
        "stale_if_error": reader("stale-if-error", values.optional_duration, math.inf),
    }
