"""
Taking over what the configuration says now, while the service runs.

All of it is read and checked first, in a thread; what is wrong leaves everything as it was. Then it is put in place
between two events of the reactor: no request sees a part of it. What is under way goes on as it was begun.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from attrs import asdict, evolve, field, fields, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from regcache import registries
from regcache.access import Access
from regcache.accesslog import Target
from regcache.auth import Door
from regcache.config import Config
from regcache.descriptors import limits_of
from regcache.errors import ConfigError
from regcache.flow.context import Context
from regcache.flow.waiting import Outcome, spawn
from regcache.gate import Gate
from regcache.house import House
from regcache.interfaces import IRegistry
from regcache.limits import Limits
from regcache.logs import Log
from regcache.outlook import rules_of
from regcache.outward import Outward, Plan, marked
from regcache.renewal import Renewal
from regcache.store.space import Bounds
from regcache.supervised import Supervisor

__all__ = ["LIVE", "Reload", "Running"]

_log = Log()
#: What can change while the service runs, by its name in :class:`regcache.config.Config`. Everything else needs a
#: restart: whoever adds an option adds it here once :meth:`Reload._use` puts it in place.
LIVE = frozenset(
    {
        *("registries", "credentials", "ttl", "refresh_after", "negative_ttl", "strict_links", "client_no_cache"),
        *("upstream_timeout", "cold_timeout", "idle_timeout", "offline", "upstream_ca"),
        *("allow", "trust_proxy", "hosts", "auth", "public_url", "max_connections"),
        *("max_size", "min_free", "max_file_size", "max_index_size", "memory_cache", "grace"),
        *("access_log", "access_log_hits", "access_log_format", "access_log_max_size", "access_log_files"),
    }
)


@frozen(kw_only=True)
class Running:
    """
    The parts of a service that a configuration is put into.

    :ivar finish: has answered what has come, and waits for the end of the turn.
    :ivar reconsider: has open connections looked at by the rules that are new.
    """

    house: House
    bounds: Bounds
    outward: Outward
    gate: Gate
    clock: IReactorTime
    in_thread: Callable[..., Deferred[Any]]
    finish: Callable[[], object]
    reconsider: Callable[[], object]


@frozen(kw_only=True)
class _Ready:
    """
    A configuration that has been checked, with what is made of it.

    :ivar pending: what it wants that only a restart can bring, by the names of the options.
    :ivar door: a new one, if the one there is does not do any more.
    """

    config: Config
    pending: tuple[str, ...]
    cautions: tuple[str, ...]
    made: Mapping[str, IRegistry]
    plan: Plan = field(repr=False)
    limits: Limits
    door: Door | None


def _changed(before: Config, after: Config) -> list[str]:
    """The names of what differs."""
    names = [one.name for one in fields(Config) if getattr(before, one.name) != getattr(after, one.name)]
    # A registry's credentials are keys of its table.
    return list(dict.fromkeys("registries" if name == "credentials" else name.replace("_", "-") for name in names))


def _who(config: Config) -> tuple[Any, ...]:
    """What decides who is let in, and to what."""
    return config.auth, [(one.name, one.shared, one.readers, one.has_credentials) for one in config.registries]


class Reload:
    """
    Reads the configuration again whenever it is asked to, one time after the other.

    :param read: what the configuration is now, and what of it is probably not meant; blocks, raises ConfigError.
    :param renewal: the files that are read anew at the same time.
    """

    def __init__(
        self,
        running: Running,
        read: Callable[[], tuple[Config, list[str]]],
        renewal: Renewal,
        supervisor: Supervisor,
    ) -> None:
        self._running, self._read = running, read
        self._renewal, self._supervisor = renewal, supervisor
        self._working: Outcome[None] | None = None
        self._again = self._stopped = False

    def ask(self) -> None:
        """Reload; if that goes on already, once more afterwards. Nothing happens once the service is to end."""
        if self._stopped:
            return
        if self._working is not None:
            self._again = True
            return
        self._again = False
        self._supervisor.reloading()
        working = self._working = spawn(self._work())
        working.wait().addErrback(self._bug).addBoth(self._worked)

    def stop(self) -> None:
        """The service is to end: what is being read is not used any more."""
        self._stopped = True
        self._renewal.stop()

    @staticmethod
    def _bug(failure: Any) -> None:
        _log.failure("A bug ended a reload; what was in force before still is.", failure=failure)

    def _worked(self, _result: object) -> None:
        self._working = None
        if self._again:
            self.ask()
        elif not self._stopped:
            self._supervisor.reloaded()

    async def _work(self) -> None:
        running = self._running
        await self._reopen()
        await self._renewal.look()
        try:
            ready = await running.in_thread(self._prepare)
        except ConfigError as error:
            _log.error(
                "The configuration is not taken over: {why} What was in force before still is.", why=error.detail
            )
            return
        if self._stopped:
            return
        before = running.house.config
        self._use(ready)
        changed = ", ".join(_changed(before, ready.config)) or "nothing"
        _log.info("The configuration was read again; changed: {changed}.", changed=changed)
        for caution in ready.cautions:
            _log.warn("{caution}", caution=caution)
        if ready.pending:
            names = ", ".join(ready.pending)
            _log.warn("Only a restart brings what the configuration says now of: {names}.", names=names)

    async def _reopen(self) -> None:
        """Whoever moved the access log away finds a new one; each batch of lines opens it anew in any case."""
        running = self._running
        try:
            await running.in_thread(Target.of(running.house.config).probe)
        except ConfigError as error:
            _log.error("{why} Its lines are lost until it can.", why=error.detail)

    def _prepare(self) -> _Ready:
        """
        Read and check everything; blocks.

        :raises regcache.errors.ConfigError: if something is wrong.
        """
        before = self._running.house.config
        wanted, cautions = self._read()
        fixed = {one.name: getattr(before, one.name) for one in fields(Config) if one.name not in LIVE}
        config = evolve(wanted, **fixed)
        names = {one.name for one in config.registries}
        for one in config.listen:
            if one.registry and one.registry not in names:
                raise ConfigError(f"{one.registry} has a port of its own, {one.endpoint}: only a restart can end that.")
        if Target.of(config) != Target.of(before):
            Target.of(config).probe()
        made = {one.name: registries.make(marked(one, config)) for one in config.registries}
        return _Ready(
            config=config,
            pending=tuple(_changed(config, wanted)),
            cautions=tuple(cautions),
            made=made,
            plan=Plan.of(config, made),
            limits=limits_of(config),
            door=self._door(before, config, made),
        )

    def _door(self, before: Config, config: Config, made: Mapping[str, IRegistry]) -> Door | None:
        options = [one.options for one in made.values()]
        if _who(config) == _who(before) and set(config.credentials) == set(before.credentials):
            return None
        door = Door(config.auth, options, self._running.clock, self._running.in_thread, os.urandom(32))
        door.open()
        return door

    def _use(self, ready: _Ready) -> None:
        """Put it in place."""
        house, config, running = self._running.house, ready.config, self._running
        # It was let in by the rules before: its answer may not be remembered by these.
        running.finish()
        context: Context = house.cache.context
        if config.registries != house.config.registries:
            # There may be something at another place.
            context.forget()
        running.outward.change(ready.plan)
        running.bounds.max_size, running.bounds.min_free = config.max_size, config.min_free
        context.rules = rules_of(config)
        context.max_index_size, context.max_file_size = config.max_index_size, config.max_file_size
        context.revalidate_on_request = config.client_no_cache == "revalidate"
        # The rest of the limits is by descriptors, of which there are as many as before.
        of_clients = {name: asdict(ready.limits)[name] for name in ("connections", "shared")}
        context.limits = evolve(context.limits, **of_clients)
        running.gate.change(context.limits, config.trust_proxy)
        house.log.change(Target.of(config))
        house.access = Access(config)
        house.door = ready.door or house.door
        house.registries, house.config = ready.made, config
        house.prepare_anew()
        running.reconsider()
