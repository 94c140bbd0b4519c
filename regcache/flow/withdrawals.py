"""Telling a withdrawal from an upstream that says 404 for everything at once."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from regcache.http.messages import Stored

__all__ = ["Withdrawals"]

#: This many known names of an origin turning 404 within a minute, with no good answer between, is a fault.
_MANY = 5
_SECONDS = 60.0
_MOST_ORIGINS = 1000


@define
class Withdrawals:
    """
    The names that an origin answered 404 for a moment ago, though it had them before.

    :ivar now: a monotonic clock, in seconds.
    """

    now: Callable[[], float]
    _gone: dict[str, list[tuple[float, Stored]]] = field(factory=dict)

    def gone(self, origin: str, entry: Stored) -> list[Stored]:
        """
        A name turned 404.

        :param entry: as it was stored, not yet marked.
        :returns: the entries that are to be believed again, this one among them, if this was one too many.
        """
        now = self.now()
        recent = [
            (when, one) for when, one in self._gone.get(origin, ()) if now - when < _SECONDS and one.key != entry.key
        ]
        recent.append((now, entry))
        if len(self._gone) >= _MOST_ORIGINS:
            self._gone.clear()
        self._gone[origin] = recent[-1000:]
        return [one for _, one in recent] if len(recent) >= _MANY else []

    def present(self, origin: str) -> None:
        """The origin has something: what it says it has not is believed."""
        self._gone.pop(origin, None)
