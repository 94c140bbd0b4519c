"""What cannot be stored, told: by name where that is seldom, by number where it is not."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from regcache.logs import Log

__all__ = ["Unstored"]

_log = Log()
_EVERY = 10.0
#: Reasons that are told by number at the same time; what is refused for another is told by name.
_MOST_REASONS = 20


@define(eq=False)
class _Reason:
    timer: IDelayedCall
    more: int = 0


@define(eq=False)
class Unstored:
    """
    Tells whoever runs the service what is not stored, and why.

    The first of those that have a reason in common is told by its key. The others are counted, and their number is told
    every ten seconds, until ten seconds pass without one. So a reason tells of bounds, and not of the body that passes
    one: each body would have a reason of its own.
    """

    _clock: IReactorTime
    _reasons: dict[str, _Reason] = field(factory=dict, init=False)

    def tell(self, key: str, why: str) -> None:
        """This is not stored."""
        reason = self._reasons.get(why)
        if reason is not None:
            reason.more += 1
            return
        _log.warn("{key}: cannot be stored: {why}", key=key, why=why)
        if len(self._reasons) < _MOST_REASONS:
            self._reasons[why] = _Reason(self._clock.callLater(_EVERY, self._again, why))

    def failed(self, failure: object, key: str) -> None:
        """Nor is this, for what a Deferred failed with."""
        value = getattr(failure, "value", failure)
        self.tell(key, str(getattr(value, "detail", value)))

    def _again(self, why: str) -> None:
        if self._say_how_many(why):
            self._reasons[why] = _Reason(self._clock.callLater(_EVERY, self._again, why))

    def _say_how_many(self, why: str) -> int:
        more = self._reasons.pop(why).more
        if more:
            _log.warn("{n} more cannot be stored: {why}", n=more, why=why)
        return more

    def stop(self) -> None:
        """Tell what is still to be told."""
        for why, reason in list(self._reasons.items()):
            reason.timer.cancel()
            self._say_how_many(why)
