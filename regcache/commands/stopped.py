"""Working on the cache of a service that does not run, under the cache's own lock."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from regcache import registries
from regcache.access import Access
from regcache.commands.outcome import Code, Failed
from regcache.config import Config, Listen
from regcache.errors import CannotStore, ConfigError, NotFound
from regcache.interfaces import IRegistry
from regcache.outlook import asked_by, in_words, rules_of, told_of
from regcache.pagewise import ENTRIES_AT_ONCE, listing, purged
from regcache.ports import tcp_address
from regcache.store.directory import Directory
from regcache.store.files import Files
from regcache.store.index import FAILURES
from regcache.store.listing import Listed, listed, seen
from regcache.store.space import Bounds
from regcache.store.verifying import BEFORE_ALL, Tally, bodies
from regcache.store.writer import Writer

__all__ = ["DEFAULT_ENDPOINT", "Stopped", "addresses", "client_config", "opened"]

#: Where the service listens unless it is told.
DEFAULT_ENDPOINT = "tcp:8650:interface=127.0.0.1"


class Stopped:
    """
    A cache that nobody else uses now.

    :param now: the wall clock.
    """

    def __init__(self, config: Config, writer: Writer, now: Callable[[], float]) -> None:
        self._config, self._writer, self._now = config, writer, now

    def ask(self, command: str, **asked: str) -> Any:
        """
        As a running service answers it.

        :raises Failed: if there is nothing of that.
        """
        if command == "ls":
            return listing(self._listed(asked), self._now())
        if command == "show":
            return self._show(asked["name"])
        if command == "purge":
            return self._purge(asked)
        raise Failed(f"No service runs on {self._config.cache_dir}, which {command!r} wants.", Code.NOT_RUNNING)

    def verify(self, repair: bool) -> Generator[Any, None, None]:
        """As a running service does it."""
        tally, last = Tally(*bodies(self._writer.index.connection)), BEFORE_ALL
        while (reading := self._writer.next_body(last)) is not None:
            last = reading.digest
            try:
                while not reading.over:
                    reading.step()
                told = tally.add(reading)
                if reading.wrong and repair:
                    keys = self._writer.condemn(reading.digest, reading.inode)
                    told["refetched"] = dict.fromkeys(keys, "fetched when it is next wanted")
            finally:
                reading.close()
            yield told
        yield tally.result()

    def _listed(self, asked: Mapping[str, str]) -> list[Listed]:
        return listed(
            self._writer.index.connection,
            asked.get("pattern", ""),
            documents=asked.get("metadata") == "1",
            after=asked.get("after", ""),
            limit=ENTRIES_AT_ONCE,
        )

    def _show(self, name: str) -> Any:
        made = _made(self._config)
        meant = asked_by(made, name)
        keys = [meant.key] if meant is not None else []
        found = seen(self._writer.index.connection, Path(self._config.cache_dir), *keys, name)
        try:
            return told_of(made, name, found, rules_of(self._config), self._now())
        except NotFound as error:
            raise Failed(in_words(error)) from None

    def _purge(self, asked: Mapping[str, str]) -> Any:
        found = self._listed(asked)
        self._writer.drop(*(one.entry.key for one in found))
        return purged(found)


def _made(config: Config) -> dict[str, IRegistry]:
    return {one.name: registries.make(one) for one in config.registries}


@contextlib.contextmanager
def opened(config: Config, now: Callable[[], float] = time.time) -> Iterator[Stopped]:
    """
    Hold a cache directory.

    :raises Failed: if there is none, or it cannot be used.
    """
    path = Path(config.cache_dir)
    if not (path / "index.sqlite3").exists():
        raise Failed(f"There is no cache in {path}; name another directory with --cache-dir.")
    files = Files()
    directory = Directory(path, files, now)
    try:
        found = directory.open()
    except ConfigError as error:
        raise Failed(f"{error.detail} Its admin socket cannot be reached.", Code.NOT_RUNNING) from None
    try:
        if found.index is None:
            raise Failed(f"The cache in {path} cannot be used. {found.why}")
        yield Stopped(config, Writer(found.index, path, Bounds(0, 0), now, lambda _step: None, files), now)
    except (CannotStore, *FAILURES) as error:
        raise Failed(f"The cache in {path} cannot be used: {getattr(error, 'detail', error)}") from None
    finally:
        found.close()
        directory.let_go()


def client_config(config: Config, name: str) -> Any:
    """
    The lines that point clients at a registry, for the port that a service would open.

    :raises Failed: if it is not served, or not on a TCP port that is known beforehand.
    """
    made = _made(config)
    if name not in made:
        raise Failed(f"No registry {name!r} is served; there are: {', '.join(made)}.")
    for url in addresses(config, name):
        registry = made[name]
        return {"name": name, "type": registry.options.type, "url": url, "lines": registry.client_lines(url)}
    raise Failed(f"{name!r} is not served on a TCP port that is known before it runs.")


def addresses(config: Config, name: str) -> Iterator[str]:
    """Where a registry would be reached, on the ports that are known before the service runs."""
    access = Access(config)
    for listen in config.listen or (Listen(DEFAULT_ENDPOINT),):
        place = tcp_address(listen.endpoint)
        if place is None or listen.registry not in ("", name):
            continue
        kind, host, port = place
        host = socket.gethostname() if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        scheme = "https" if kind == "ssl" else "http"
        yield access.base(f"{scheme}://{host}:{port}", "", "" if listen.registry else f"{name}/")
