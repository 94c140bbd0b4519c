"""
Putting the parts together: the service tree, for ``twistd``, for the console script, and for other programs.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from regcache import descriptors, registries
from regcache._version import __version__
from regcache.access import Access
from regcache.accesslog import AccessLog, Target
from regcache.admin import Admin
from regcache.auth import Door
from regcache.config import Config
from regcache.errors import ConfigError
from regcache.flow.cache import Cache
from regcache.flow.context import Context
from regcache.flow.helpers import ProcessDeriver
from regcache.garbage import collect_seldom, keep_freed
from regcache.house import House
from regcache.http.messages import Headers
from regcache.listening import Ports
from regcache.logs import Log
from regcache.options import Options, stop, tell
from regcache.outlet import let_out
from regcache.outlook import rules_of
from regcache.outward import Outward, marked
from regcache.pulse import Pulse
from regcache.reload import Reload, Running
from regcache.renewal import Renewable, Renewal
from regcache.signals import heed_hangup, heed_impatience, is_on_terminal
from regcache.store.disk import DiskStore
from regcache.supervised import Supervisor
from regcache.web import RegCacheResource

__all__ = ["Options", "Parts", "build", "makeService", "serve"]

_log = Log()
#: Seconds between two looks at how late the reactor is.
_LAG_EVERY = 1.0


@implementer(IService)
class CacheService(Service):
    """
    The cache without its ports: takes the directory at start, lets it go at stop.

    :raises regcache.errors.ConfigError: if a registry's options are wrong; from ``startService``, if the directory
        cannot be used, or there are not descriptors enough.
    :ivar house: what the resources share.
    :ivar outward: what asks the registries.
    """

    def __init__(self, reactor: Any, config: Config, now: Callable[[], float] = time.time) -> None:
        self._config, self._now = config, now
        self._threads = ThreadPool(0, 4, "regcache-work")
        made = {one.name: registries.make(marked(one, config)) for one in config.registries}
        served = [one.options for one in made.values()]
        self.outward = Outward(reactor, config, made)
        self._deriver = ProcessDeriver(reactor, self.in_thread)
        self._reactor = reactor
        self.store = DiskStore(
            config.cache_dir,
            reactor=reactor,
            max_size=config.max_size,
            min_free=config.min_free,
            scrub=config.scrub,
            now=now,
            counts=self.outward.upstream.counts,
            apart=True,
        )
        self._lag = Pulse(reactor, _LAG_EVERY, self.outward.upstream.counts.lag.observe)
        token = f"regcache-{secrets.token_hex(6)}"
        self.house = House(
            cache=Cache(self._context(token)),
            registries=made,
            config=config,
            access=Access(config),
            door=Door(config.auth, served, reactor, self.in_thread, secrets.token_bytes(32)),
            clock=reactor,
            now=now,
            running=lambda: bool(self.running),
            log=AccessLog(reactor, Target.of(config), self.in_thread),
            token=token,
            condition=self.store.condition,
        )

    def in_thread(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run a function beside the reactor; fires with what it returns."""
        return deferToThreadPool(self._reactor, self._threads, work, *args)

    def _context(self, token: str) -> Context:
        config = self._config
        return Context(
            store=self.store,
            upstream=self.outward.upstream,
            deriver=self._deriver,
            clock=self._reactor,
            now=self._now,
            rules=rules_of(config),
            request_fields=Headers.of({"user-agent": f"regcache/{__version__}", "via": f"1.1 {token}"}),
            max_index_size=config.max_index_size,
            max_file_size=config.max_file_size,
            revalidate_on_request=config.client_no_cache == "revalidate",
            in_thread=self.in_thread,
            limits=descriptors.limits_of(config),
        )

    def hurry(self) -> None:
        """Cut what is still in flight: whoever stops the service has no patience left."""
        self.house.abandon()
        self.house.cache.abandon()

    def _overdue(self) -> None:
        _log.warn("The grace period is over; what is still under way is cut.")
        self.hurry()

    def startService(self) -> None:
        self.house.door.open()
        self.house.log.open()
        self.store.open_directory()
        self.store.start()
        self._threads.start()
        self.outward.start()
        self._lag.start()
        self.house.since = self._now()
        super().startService()  # type: ignore[no-untyped-call]

    @inlineCallbacks
    def stopService(self) -> Any:
        """Finish what is in flight, within the grace period; then close everything, in order."""
        super().stopService()  # type: ignore[no-untyped-call]
        overdue = self._reactor.callLater(self.house.config.grace, self._overdue)
        yield DeferredList([self.house.drained(), self.house.cache.stop()])
        if overdue.active():
            overdue.cancel()
        self._lag.stop()
        self._deriver.stop()
        yield self.outward.stop()
        yield Deferred.fromCoroutine(self.house.log.stop())
        self._threads.stop()
        self.house.prepare_anew()
        yield self.store.stop()
        self.house.cache.context.unstored.stop()


class _InOrder(MultiService):
    """Stops its children one after the other, the last started first."""

    @inlineCallbacks
    def stopService(self) -> Any:
        self.running = 0
        for child in reversed(self.services):
            yield maybeDeferred(child.stopService)


@frozen
class Parts:
    """
    A service and its resources, for whoever mounts them.

    :ivar service: to be started and stopped with the application; it opens no port.
    """

    service: CacheService

    def resource(self, name: str | None = None) -> RegCacheResource:
        """
        The Resource to mount: all registries, each below its name, or the named one at this very path.

        :raises KeyError: if no registry of that name is served.
        """
        house = self.service.house
        if name:
            house.registries[name]
        return RegCacheResource(house, name or "")


def build(reactor: Any, config: Config, now: Callable[[], float] = time.time) -> Parts:
    """
    The parts of a cache; nothing is opened or started yet.

    :param now: the wall clock, in seconds, by which entries age.
    :raises regcache.errors.ConfigError: if a registry's options are wrong.
    """
    return Parts(CacheService(reactor, config, now))


class _Started(_InOrder):
    """
    The whole service: opens what can fail before the reactor runs, where a failure can still end the program.

    Of that only the ports may need privileges.

    :param read: what the configuration is now; see :class:`regcache.reload.Reload`.
    """

    def __init__(
        self, reactor: Any, parts: Parts, environ: Mapping[str, str], read: Callable[[], tuple[Config, list[str]]]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor, self._on_terminal = reactor, False
        service = self._service = parts.service
        house = service.house
        self._supervisor = Supervisor(reactor, environ)
        self._ports = Ports(reactor, house, parts.resource, _print, lambda: service.outward.told())
        running = Running(
            house=house,
            bounds=service.store.bounds,
            outward=service.outward,
            gate=self._ports.gate,
            clock=reactor,
            in_thread=service.in_thread,
            finish=self._ports.finish,
            reconsider=self._ports.reconsider,
        )
        self._renewal = Renewal(reactor, self._renewables, service.in_thread)
        self.reload = Reload(running, read, self._renewal, self._supervisor)
        admin = Admin(reactor, house, service.store, self._ports.bases, environ)
        for one in (service, admin, self._ports):
            one.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _renewables(self) -> Iterator[Renewable]:
        yield from self._service.outward.renewables()
        yield from self._ports.renewables()

    def privilegedStartService(self) -> None:
        try:
            self._ports.listen()
        except ConfigError as error:
            stop(error)
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        self._on_terminal = is_on_terminal()
        # Not before: only now is the process that of the user who will write there.
        self._renewal.start()
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except ConfigError as error:
            stop(error)
        collect_seldom()
        keep_freed()
        self._supervisor.start()

    def hang_up_soon(self) -> None:
        """SIGHUP came; what comes before the reactor turns waits until it does."""
        self._reactor.callFromThread(self._hang_up)

    def _hang_up(self) -> None:
        """Reload, unless it says that the terminal is gone that the service was run from."""
        if self._on_terminal and not is_on_terminal():
            self._reactor.stop()
        else:
            self.reload.ask()

    @inlineCallbacks
    def stopService(self) -> Any:
        self.reload.stop()
        self._supervisor.stopping()
        yield super().stopService()
        self._supervisor.stop()


def _print(line: str) -> None:
    tell(sys.stdout, line)


def makeService(options: Options) -> MultiService:
    """The service that ``twistd regcache`` runs."""
    from twisted.internet import reactor

    heed_hangup()
    # Twisted's clock is the wall clock, by which a step backwards would freeze every timer.
    if not reactor.getDelayedCalls():
        setattr(reactor, "seconds", time.monotonic)  # noqa: B010
    descriptors.raise_limit()
    let_out(reactor)
    try:
        parts = build(reactor, options.config)
    except ConfigError as error:
        stop(error)
    reactor.addSystemEventTrigger("before", "shutdown", heed_impatience, reactor, parts.service.hurry)
    made = _Started(reactor, parts, os.environ, lambda: options.read(os.environ))
    heed_hangup(made.hang_up_soon)
    return made


def serve(arguments: list[str]) -> None:
    """``regcache serve``: runs the service in the foreground, without a pidfile."""
    heed_hangup()
    Options.program = "regcache serve"
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "-n", "--pidfile=", "regcache", *arguments]
    run()
