"""
Names of packages that belong to one upstream, and are never asked for anywhere else.

Whoever publishes a name of yours at a public registry would otherwise be asked for it (dependency confusion), and
whoever runs that registry would learn it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from regcache.errors import NotFound
from regcache.routes import RegistryOptions, Route

__all__ = ["admitted", "check", "matches"]

_SEPARATORS = re.compile(r"[-_.]+")


def matches(pattern: str, name: str) -> bool:
    """
    Whether a name is one of those that a pattern such as ``@corp/*`` stands for.

    Capitals and separators count as they do for the registry that takes them most widely (PEP 503): who reads
    ``Corp_Tool`` as another name than ``corp-tool`` would ask for it elsewhere.
    """
    return fnmatchcase(_folded(name), _folded(pattern))


def _folded(text: str) -> str:
    return _SEPARATORS.sub("-", text).lower()


def admitted(options: RegistryOptions, names: Iterable[str]) -> bool:
    """Whether that registry may be asked for all of these packages."""
    return not any(matches(pattern, name) for name in names for pattern in options.elsewhere)


def check(options: RegistryOptions, route: Route) -> None:
    """
    See that a registry may be asked for what a route leads to.

    :raises regcache.errors.NotFound: if a package that it names belongs to another.
    """
    names = getattr(route, "packages", ())
    if options.elsewhere and not admitted(options, names):
        raise NotFound(f"{', '.join(names)} belongs to another registry of this cache, by its key `names`.")
