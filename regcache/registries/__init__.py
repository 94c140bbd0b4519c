"""
What each ecosystem means: one module each, found by the entry points of the group ``regcache.registries``.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from attrs import evolve

from regcache.errors import ConfigError
from regcache.registries.inorder import InOrder
from regcache.values import nearest

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
    raise ConfigError(f"There is no registry type {type_name!r}; {nearest(type_name, names())}")


def make(options: RegistryOptions, made: Any = None) -> IRegistry:
    """
    The registry that these options describe; one that is composed of several where there are further upstreams.

    :param made: the class to make it of, if not the one that is installed for its type.
    :raises regcache.errors.ConfigError: if the type is unknown or an option is wrong.
    """
    if options.further:
        return InOrder([make(one, made) for one in (evolve(options, further=()), *options.further)])
    made = factory(options.type) if made is None else made
    url = options.url or made.default_url
    if not url:
        raise ConfigError(
            f"Registry {options.name!r} needs its upstream: {options.name}={options.type}+https://HOST/PATH/"
        )
    try:
        registry: IRegistry = made(evolve(options, url=url if url.endswith("/") else url + "/"))
    except ConfigError as error:
        raise ConfigError(f"Registry {options.name!r}: {error.detail}") from None
    return registry
