"""What every part of the flow works with, and what they share: one value, one table of negative answers."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from regcache.flow.breaker import Breaker
from regcache.flow.derive import Deriver
from regcache.flow.reply import Standing
from regcache.flow.unstored import Unstored
from regcache.flow.upstream import Upstream
from regcache.flow.waiting import Deadlines
from regcache.flow.withdrawals import Withdrawals
from regcache.http.messages import Headers, Stored
from regcache.http.policy import Rules
from regcache.interfaces import IStore
from regcache.limits import Limits

__all__ = ["JUST_NOW", "Bounded", "Context", "Missing"]

#: Seconds for which whoever was sent something may ask for what goes with that very copy.
JUST_NOW = 60.0
_MOST_MISSING = 10_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """
    A memory of what was used last, bounded by the sum of its items' weights.

    :param most: the largest sum.
    :param gone: told each item that is not remembered any more.
    :ivar holds: whether there is an item of that key, which does not count as used by that.
    """

    def __init__(self, most: int, gone: Callable[[V], object] = bool) -> None:
        self._most = most
        self._gone = gone
        self._sum = 0
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        # Where most are not there, a call of Python's would take longer than the look.
        self.holds: Callable[[K], bool] = self._items.__contains__

    @property
    def room(self) -> int:
        """What fits without pushing anything out."""
        return self._most - self._sum

    def get(self, key: K) -> V | None:
        """The item, which counts as used now."""
        found = self._items.get(key)
        if found is None:
            return None
        self._items.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, weight: int) -> None:
        """Remember an item; one heavier than the whole memory is not kept."""
        items = self._items
        if key in items:
            self.drop(key)
        if weight > self._most:
            self._gone(value)
            return
        items[key] = (value, weight)
        self._sum += weight
        while self._sum > self._most:
            _, (last, its_weight) = items.popitem(last=False)
            self._sum -= its_weight
            self._gone(last)

    def drop(self, key: K) -> None:
        """Forget an item."""
        found = self._items.pop(key, None)
        if found is not None:
            self._sum -= found[1]
            self._gone(found[0])

    def clear(self) -> None:
        """Forget all of them."""
        while self._items:
            self.drop(next(iter(self._items)))


@frozen
class Missing:
    """
    That the upstream said there is none of it.

    :ivar until: by the monotonic clock.
    :ivar text: what it said, for a person.
    """

    status: int
    until: float
    text: str


@define(eq=False)
class Context:
    """
    The collaborators of the flow.

    :ivar clock: timers and monotonic seconds.
    :ivar now: the wall clock, for what outlives the process.
    :ivar rules: the operator's, before a registry's own are put in.
    :ivar request_fields: sent with every upstream request.
    :ivar max_index_size: bytes of an index document, decoded.
    :ivar max_file_size: bytes of an artifact to store; 0 for any.
    :ivar in_thread: runs what releases the interpreter lock beside the reactor.
    :ivar limits: what may go on at the same time.
    :ivar foreign: how many links were seen that lead to hosts that may not be asked, by host.
    :ivar unwritten: documents that have come and are on their way to the store, by key.
    :ivar deadlines: of who waits for what the upstream is asked for.
    :ivar noted: how often the record of an entry was replaced.
    """

    store: IStore
    upstream: Upstream
    deriver: Deriver
    clock: IReactorTime
    now: Callable[[], float]
    rules: Rules
    request_fields: Headers = Headers()
    max_index_size: int = 256 << 20
    max_file_size: int = 0
    in_thread: Callable[..., Deferred[Any]] = maybeDeferred
    revalidate_on_request: bool = False
    limits: Limits = field(factory=Limits)
    breaker: Breaker = field(init=False)
    missing: Bounded[str, Missing] = field(init=False)
    foreign: Counter[str] = field(factory=Counter, init=False)
    withdrawals: Withdrawals = field(init=False)
    unstored: Unstored = field(init=False)
    deadlines: Deadlines = field(init=False)
    unwritten: dict[str, Stored] = field(factory=dict, init=False)
    noted: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.breaker = Breaker(self.clock.seconds)
        self.missing = Bounded(_MOST_MISSING)
        self.upstream.limit(self.limits)
        self.withdrawals = Withdrawals(self.clock.seconds)
        self.unstored = Unstored(self.clock)
        self.deadlines = Deadlines(self.clock)

    def forget(self) -> None:
        """Believe no longer that there is none of something."""
        self.missing = Bounded(_MOST_MISSING)

    async def find(self, key: str) -> Stored | None:
        """The entry of that key, on its way to the store included."""
        return self.unwritten.get(key) or await self.store.find(key)

    def on_its_way(self, entry: Stored) -> None:
        """It has come, and is found from now on, though it has to be written yet."""
        self.unwritten[entry.key] = entry
        self.store.revision.another()

    def arrived(self, key: str) -> None:
        """It is in the store now, or will not be."""
        del self.unwritten[key]
        self.store.revision.another()

    def stands(self, standing: Standing, now: float) -> bool:
        """
        Whether a reply still holds at that time by the wall clock.

        It does until then, and longer until anything else is due, as long as the store's revision is the same.
        """
        if now >= standing.until:
            return False
        for key, entry in standing.entries:
            if (self.unwritten.get(key) or self.store.peek(key)) is not entry:
                return False
            if entry is not None and entry.validated_at > now:
                # A time that lies in the future says that a clock was wrong.
                return False
        return True

    def note(self, entry: Stored) -> None:
        """Replace the record of an entry, wherever it is; nothing if its body was replaced meanwhile."""
        self.noted += 1
        before = self.unwritten.get(entry.key)
        if before is not None and before.digest == entry.digest:
            self.on_its_way(entry)
        elif before is None:
            self.store.update(entry)
