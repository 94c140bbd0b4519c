"""
What each ecosystem means: one module each, found by the entry points of the group ``regcache.registries``.
"""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from attrs import evolve

from regcache.errors import ConfigError

if TYPE_CHECKING:
    from regcache.interfaces import IRegistry
    from regcache.routes import RegistryOptions

__all__ = ["GROUP", "factory", "make", "names"]

#: The entry-point group in which registries are found.
GROUP = "regcache.registries"


def names() -> list[str]:
    """The types of registry that are installed, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def factory(type_name: str) -> Any:
    """
    The class that implements a type of registry.

    :raises regcache.errors.ConfigError: if no such type is installed.
    """
    for point in entry_points(group=GROUP, name=type_name):
        return point.load()
    known = names()
    near = difflib.get_close_matches(type_name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
    raise ConfigError(f"There is no registry type {type_name!r}; {hint}")


def make(options: RegistryOptions) -> IRegistry:
    """
    The registry that these options describe.

    :raises regcache.errors.ConfigError: if the type is unknown or an option is wrong.
    """
    made = factory(options.type)
    url = options.url or made.default_url
    if not url:
        raise ConfigError(
            f"Registry {options.name!r} needs its upstream: {options.name}={options.type}+https://HOST/PATH/"
        )
    registry: IRegistry = made(evolve(options, url=url if url.endswith("/") else url + "/"))
    return registry
