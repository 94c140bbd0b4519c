"""What every resource of one service shares, and the requests that are under way in it."""

from __future__ import annotations

import itertools
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import Factory, define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from regcache._version import __version__
from regcache.access import Access, Peer
from regcache.accesslog import AccessLog
from regcache.auth import Door
from regcache.config import Config
from regcache.counts import Answers
from regcache.errors import TooBusy
from regcache.express import Express
from regcache.flow.cache import Cache
from regcache.flow.reply import How, Reply
from regcache.flow.upstream import origins_of
from regcache.flow.waiting import Outcome
from regcache.gate import admit
from regcache.interfaces import IRegistry
from regcache.kept import OpenFiles
from regcache.lines import Form
from regcache.page.page import Page
from regcache.store.holding import Condition

__all__ = ["OWN", "House", "UnderWay"]

#: Stands in the metrics where no registry is asked.
OWN = "-"
_OUTCOMES = {how: how.name.lower() for how in How}


class UnderWay(typing.Protocol):
    """
    A request that is being answered.

    :ivar peer: who asks.
    :ivar admitted: whether it counts among those of its address.
    """

    peer: Peer
    admitted: bool

    def abandon(self) -> None:
        """Time is up: the client sees a failed transfer."""


@define(eq=False)
class House:
    """
    What every resource of one service shares.

    :ivar registries: by name.
    :ivar running: says whether the service has started and not stopped.
    :ivar now: the wall clock.
    :ivar condition: of the store.
    :ivar since: when the service started, by the wall clock.
    :ivar page: the page for people.
    :ivar token: names this service in ``Via``, by which it knows a request that has come round to it.
    """

    cache: Cache
    registries: Mapping[str, IRegistry]
    config: Config
    access: Access
    door: Door
    clock: IReactorTime
    now: Callable[[], float]
    running: Callable[[], bool]
    log: AccessLog
    token: str
    condition: Callable[[], Condition]
    since: float = field(default=0.0, init=False)
    page: Page = field(default=Factory(Page, takes_self=True), init=False)
    express: Express = field(init=False)
    _exchanges: set[UnderWay] = field(factory=set, init=False)
    _by_address: Counter[str] = field(factory=Counter, init=False)
    _admitted: int = field(default=0, init=False)
    _empty: Outcome[None] | None = field(default=None, init=False)
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    def __attrs_post_init__(self) -> None:
        self.express = self._express()

    def _express(self) -> Express:
        context = self.cache.context
        files = OpenFiles(context.limits.files, self.clock)
        return Express(self.config.memory_cache, context.stands, files, context.store.revision)

    def prepare_anew(self) -> None:
        """Give no answer any more that was ready: it was made by another configuration."""
        self.express.close()
        self.express = self._express()

    def request_id(self) -> str:
        """A name for a request that no other has, also of another run."""
        return f"{self.token}-{next(self._numbers)}"

    def entered(self, exchange: UnderWay) -> None:
        """A request came."""
        self._exchanges.add(exchange)

    def admit(self, exchange: UnderWay) -> None:
        """
        See that one more request of that client can be answered: TooBusy, if not.

        What is ready needs none of what is limited, however slowly it is read, and takes no place from others.
        """
        address = exchange.peer.address
        self._by_address[address] += 1
        self._admitted += 1
        exchange.admitted = True
        admit(self.cache.context.limits, self._admitted, self._by_address[address], address)

    def has_room(self, address: str) -> bool:
        """Whether one more request of that client could be answered now."""
        if not self._admitted:
            return True
        limits = self.cache.context.limits
        try:
            admit(limits, self._admitted + 1, self._by_address.get(address, 0) + 1, address)
        except TooBusy:
            return False
        return True

    def left(self, exchange: UnderWay) -> None:
        """A request is over."""
        self._exchanges.discard(exchange)
        if exchange.admitted:
            address = exchange.peer.address
            self._admitted -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        if self._empty is not None and not self._exchanges:
            self._empty.succeed(None)

    def answers(self, reply: Reply, registry: str) -> Answers:
        """
        Where requests are counted that are answered so.

        :param registry: whose they are; empty for none.
        """
        outcome = "error" if reply.status >= 500 else _OUTCOMES[reply.how]
        return self.cache.context.upstream.counts.answers_of(registry or OWN, outcome)

    def answered(self, reply: Reply, answers: Answers, sent: int, seconds: float) -> Form | None:
        """
        Count a request that was answered.

        :param answers: as :meth:`answers` says.
        :returns: the form in which its line is to be noted in the access log; None if none is wanted.
        """
        answers.add(seconds, sent)
        return self.log.counted(reply.how)

    def drained(self) -> Deferred[None]:
        """Fires when no request is under way any more."""
        self._empty = Outcome()
        if not self._exchanges:
            self._empty.succeed(None)
        return self._empty.wait()

    def abandon(self) -> None:
        """End the requests that are still under way; their clients see a failed transfer."""
        for exchange in list(self._exchanges):
            exchange.abandon()

    def state(self) -> str:
        """Where the cache is, how full, and who may use it, for a person."""
        config = self.config
        size, entries = self.cache.context.store.usage()
        limit = f"{config.max_size / (1 << 30):g} GiB" if config.max_size else "no limit"
        allowed = ", ".join(map(str, config.allow)) or "nobody"
        offline = "; offline" if config.offline else ""
        return (
            f"cache in {config.cache_dir}: {size / (1 << 20):.1f} MiB of {limit}, {entries} entries;"
            f" allowed: {allowed}{offline}"
        )

    def health(self, served: Mapping[str, IRegistry]) -> dict[str, Any]:
        """
        The state of the service, for probes.

        :param served: the registries that may be told of.
        """
        size, entries = self.cache.context.store.usage() if self.running() else (0, 0)
        breaker = self.cache.context.breaker

        def upstream(registry: IRegistry) -> str:
            if self.config.offline:
                return "not asked"
            return "in trouble" if any(map(breaker.is_open, origins_of(registry))) else "ok"

        return {
            "status": "ok" if self.running() else "stopped",
            "version": __version__,
            "bytes": size,
            "entries": entries,
            "requests": {how.value: number for how, number in self.log.counts.items() if number},
            "offline": self.config.offline,
            "upstreams": {name: upstream(registry) for name, registry in served.items()},
            # Nobody knows any more whose pages have them.
            "foreign_links": dict(self.cache.context.foreign) if len(served) == len(self.registries) else {},
        }

    @property
    def answering(self) -> int:
        """Requests that are being answered."""
        return len(self._exchanges)

    def scene(self, served: Mapping[str, IRegistry]) -> dict[str, Any]:
        """How the service is now, for the metrics of the registries that somebody may read."""
        return {
            "registries": {name: origins_of(registry) for name, registry in served.items()},
            "usage": self.cache.context.store.usage(),
            "limit": self.config.max_size,
            "writable": self.condition().writable,
            "answering": self.answering,
            "fetching": self.cache.fetching,
            "lost_lines": self.log.lost,
            "in_trouble": self.cache.context.breaker.is_open,
        }
