"""What went wrong with registries lately, for people who look: a bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from attrs import evolve, frozen

from regcache.errors import NotStarted, Offline, RegCacheError, TooBusy, Unneeded

__all__ = ["Failed", "Failures"]

#: Of one registry; the oldest are forgotten first.
_MOST_FAILURES = 25
#: Says something of the cache or its clients, and nothing of a registry.
_OWN = (NotStarted, Offline, TooBusy, Unneeded)


@frozen
class Failed:
    """
    One way in which something could not be had from a registry.

    :ivar when: the last time, in seconds since the epoch.
    :ivar key: of the entry that it would have become.
    :ivar why: in words for a person; without secrets, as every error is.
    :ivar times: how often.
    """

    when: float
    registry: str
    key: str
    why: str
    times: int = 1


class Failures:
    """The last failures of each registry; one that comes again is the same one."""

    def __init__(self) -> None:
        self._found: dict[str, OrderedDict[tuple[str, str], Failed]] = {}

    def note(self, when: float, key: str, error: BaseException | None) -> None:
        """
        An error ended the asking for what has that key. Whatever is no failure of a registry is let go.

        :param key: begins with the name of a registry that is served, as every key does.
        """
        if not isinstance(error, RegCacheError) or error.status < 500 or isinstance(error, _OWN):
            return
        registry = key.partition("/")[0]
        found = self._found.setdefault(registry, OrderedDict())
        before = found.pop((key, error.text), None)
        known = before or Failed(when, registry, key, error.text, 0)
        found[key, error.text] = evolve(known, when=when, times=known.times + 1)
        if len(found) > _MOST_FAILURES:
            found.popitem(last=False)

    def of(self, registries: Iterable[str]) -> list[Failed]:
        """Those of some registries, the last first."""
        found = [one for name in registries for one in self._found.get(name, {}).values()]
        return sorted(found, key=lambda one: one.when, reverse=True)
