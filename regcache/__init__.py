"""
A caching reverse proxy for package registries, written on Twisted.

``twistd -n regcache`` runs it as a service; :func:`build` and :class:`RegCacheResource` put it into another program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regcache._version import __version__
from regcache.config import Config
from regcache.interfaces import IRegistry
from regcache.routes import RegistryOptions

if TYPE_CHECKING:
    from regcache.tap import build
    from regcache.web import RegCacheResource

__all__ = ["Config", "IRegistry", "RegCacheResource", "RegistryOptions", "__version__", "build"]


def __getattr__(name: str) -> object:
    # The parts that need the web are loaded when they are used: the helper process never does.
    if name == "RegCacheResource":
        from regcache.web import RegCacheResource

        return RegCacheResource
    if name == "build":
        from regcache.tap import build

        return build
    raise AttributeError(name)
