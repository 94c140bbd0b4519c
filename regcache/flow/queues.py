"""Who may ask a registry next: so many at once of each host and in all, and so many that wait for that."""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from regcache.errors import Crowded
from regcache.flow.waiting import within
from regcache.limits import Limits

__all__ = ["Place", "Queues"]

_MOST_AT_ONCE = 32
#: Hosts that are remembered while nothing is asked of them.
_MOST_HOSTS = 1000


class Place:
    """
    The right to ask, until it is given back.

    :param held: the slots that it has taken.
    """

    __slots__ = ("_held",)

    def __init__(self, *held: DeferredSemaphore) -> None:
        self._held = held

    async def take(self, clock: IReactorTime, slot: DeferredSemaphore, patience: float | None) -> None:
        """
        Wait for one more of the slots that it takes.

        :raises TimeoutError: if that takes longer than ``patience``.
        """
        waiting: Deferred[DeferredSemaphore] = slot.acquire()
        if patience is None:
            await waiting
        else:
            await within(clock, patience, waiting)
        self._held += (slot,)

    def release(self) -> None:
        """Let the next ask. Harmless when repeated."""
        held, self._held = self._held, ()
        for slot in held:
            if slot.waiting:
                slot.release()
            else:
                slot.tokens += 1


class Queues:
    """
    The queues: two for each host and two in all, for index pages and for artifacts.

    They are two since an artifact may wait for the page that proves it.
    """

    def __init__(self, clock: IReactorTime, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits
        self._waiting = 0
        self._hosts: dict[tuple[str, bool], DeferredSemaphore] = {}
        self._all = {True: DeferredSemaphore(limits.bodies), False: DeferredSemaphore(limits.documents)}

    @property
    def idle(self) -> bool:
        """Whether nobody asks, and nobody waits to."""
        slots = (*self._hosts.values(), *self._all.values())
        return not self._waiting and all(slot.tokens == slot.limit for slot in slots)

    def crowded(self, origin: str, artifact: bool) -> bool:
        """Whether somebody waits for that host."""
        slot = self._hosts.get((origin, artifact))
        return (slot is not None and bool(slot.waiting)) or bool(self._all[artifact].waiting)

    def at_once(self, origin: str, artifact: bool) -> Place | None:
        """The right to ask that host, if there is nobody to wait for."""
        slot, all_of_them = self._hosts.get((origin, artifact)), self._all[artifact]
        if slot is None or not slot.tokens or not all_of_them.tokens or self._waiting >= self._limits.waiting:
            return None
        # As acquire() does, which would make a Deferred that nobody waits for.
        slot.tokens -= 1
        all_of_them.tokens -= 1
        return Place(slot, all_of_them)

    async def place(self, origin: str, artifact: bool, patience: float | None) -> Place:
        """
        The right to ask that host.

        :param patience: seconds to wait for it; None for as long as it takes.
        :raises regcache.errors.Crowded: if it takes longer, or too many wait already.
        """
        if self._waiting >= self._limits.waiting:
            raise Crowded(f"{self._waiting} requests to registries wait for their turn.")
        slot = self._slot(origin, artifact)
        place = self.at_once(origin, artifact)
        if place is not None:
            return place
        place, ends = Place(), None if patience is None else self._clock.seconds() + patience
        self._waiting += 1
        try:
            for one in (slot, self._all[artifact]):
                await place.take(self._clock, one, None if ends is None else ends - self._clock.seconds())
        except TimeoutError:
            place.release()
            raise Crowded(f"{slot.limit - slot.tokens} requests to {origin} are under way.") from None
        except BaseException:
            place.release()
            raise
        finally:
            self._waiting -= 1
        return place

    def _slot(self, origin: str, artifact: bool) -> DeferredSemaphore:
        """That of a host, of which there may not have been one."""
        if len(self._hosts) >= _MOST_HOSTS:
            self._hosts = {host: slot for host, slot in self._hosts.items() if slot.tokens < slot.limit}
        return self._hosts.setdefault((origin, artifact), DeferredSemaphore(_MOST_AT_ONCE))
