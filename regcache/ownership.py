"""
Names of packages that belong to one upstream, and are never asked for anywhere else.

Whoever publishes a name of yours at a public registry would otherwise be asked for it (dependency confusion), and
whoever runs that registry would learn it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from functools import lru_cache
from urllib.parse import parse_qsl, unquote

from regcache.errors import NotFound
from regcache.routes import RegistryOptions, Route

__all__ = ["admitted", "check", "matches", "mentioned", "queried", "shortened"]

_SEPARATORS = re.compile(r"[-_.]+")
#: What stands in no name, in a path of names neither.
_APART = re.compile(r"[^\w@/.-]+")
#: Characters that a name has at most.
_LONGEST = 255
#: How a version, or the end of the name of an archive, follows a name.
_AFTER = re.compile(r"(?<=.)(?:@|[-_.]v?\d|\.(?:crate|git|json|nupkg|tgz)\b)")


def matches(pattern: str, name: str) -> bool:
    """
    Whether a name is one of those that a pattern such as ``@corp/*`` stands for.

    Capitals and separators count as they do for the registry that takes them most widely (PEP 503): who reads
    ``Corp_Tool`` as another name than ``corp-tool`` would ask for it elsewhere.
    """
    return _pattern((pattern,)).match(_folded(name)) is not None


@lru_cache(256)
def _pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(_folded(pattern)) for pattern in patterns))


def _folded(text: str) -> str:
    return _SEPARATORS.sub("-", text).lower()


def admitted(options: RegistryOptions, names: Iterable[str]) -> bool:
    """Whether that registry may be asked for all of these packages."""
    if not options.elsewhere:
        return True
    others = _pattern(options.elsewhere)
    return not any(others.match(_folded(name)) for name in names)


def check(options: RegistryOptions, route: Route) -> None:
    """
    See that a registry may be asked for what a route leads to.

    :raises regcache.errors.NotFound: if a package that it names belongs to another.
    """
    if not options.elsewhere:
        return
    names = [name for name in getattr(route, "packages", ()) if not admitted(options, [name])]
    if names:
        raise NotFound(f"{', '.join(names)} belongs to another registry of this cache, by its key `names`.")


def mentioned(text: str) -> Iterator[str]:
    """
    The names that a text may mention: alone, with a version, as an alias, with a scope, in a path or in a URL.

    Rather one too many than one too few: the text may be anything, such as the words of a search.
    """
    for word in filter(None, _APART.split(unquote(text))):
        segments = word.strip("-.").split("/")
        for segment, following in zip(segments, [*segments[1:], ""], strict=True):
            yield from shortened(f"{segment}/{following}" if segment.startswith("@") else segment)


def queried(query: str) -> tuple[str, ...]:
    """The names that the values in a query may mention, sorted."""
    values = (value or field for field, value in parse_qsl(query, keep_blank_values=True))
    return tuple(sorted({name for value in values for name in mentioned(value)}))


def shortened(text: str) -> Iterator[str]:
    """A text, and what is before each place where a version may begin in it, or the name of an archive ends."""
    yield text
    for after in _AFTER.finditer(text[:_LONGEST]):
        yield text[: after.start()]
