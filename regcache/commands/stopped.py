"""Working on the cache of a service that does not run, under the cache's own lock."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from regcache import registries
from regcache.access import Access
from regcache.commands.outcome import NOT_RUNNING, Failed
from regcache.config import Config, Listen
from regcache.errors import CannotStore, ConfigError
from regcache.outlook import below, described, outlook, rules_of, summary
from regcache.store.directory import Directory
from regcache.store.files import Files
from regcache.store.index import FAILURES
from regcache.store.listing import Listed, listed
from regcache.store.space import Bounds
from regcache.store.verifying import BEFORE_ALL, Tally, bodies
from regcache.store.writer import Writer

__all__ = ["Stopped", "client_config", "opened"]

_AT_ONCE = 500
_DEFAULT = "tcp:8650:interface=127.0.0.1"
_PORT = re.compile(r"(tcp6?|ssl):(?:port=)?([1-9]\d*)(?::|$)", re.ASCII)
_INTERFACE = re.compile(r":interface=((?:\\.|[^:\\])*)")


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
            return {"entries": [summary(one, self._now()) for one in self._listed(asked.get("pattern", ""))]}
        if command == "show":
            return self._show(asked["name"])
        if command == "purge":
            return self._purge(asked["pattern"], asked.get("metadata") == "1")
        raise Failed(f"No service runs on {self._config.cache_dir}, which {command!r} wants.", NOT_RUNNING)

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
                    self._writer.condemn(reading.digest, reading.inode)
            finally:
                reading.close()
            yield told
        yield tally.result()

    def _listed(self, pattern: str, documents: bool = False) -> list[Listed]:
        return listed(self._writer.index.connection, pattern, documents=documents)

    def _show(self, name: str) -> Any:
        config = self._config
        made = {one.name: registries.make(one) for one in config.registries}
        meant = below(made, name) if "://" in name or name.startswith("/") else None
        key = meant.key if meant is not None else ""
        rules, now = rules_of(config), self._now()
        for one in self._listed(key or name):
            if one.entry.key == key or name in (one.entry.key, one.entry.url):
                shown = described(made, one, rules, now)
                if meant is not None:
                    shown["now"], shown["why"] = outlook(meant, one.entry, rules, now)
                return shown
        if meant is None:
            raise Failed(f"Nothing is stored as {name!r}; see 'regcache ls'.")
        word, why = outlook(meant, None, rules, now)
        return {"key": key, "url": meant.route.url if meant.route else "", "now": word, "why": why}

    def _purge(self, pattern: str, documents: bool) -> Any:
        found = self._listed(pattern, documents)
        keys = [one.entry.key for one in found]
        for at in range(0, len(keys), _AT_ONCE):
            self._writer.drop(*keys[at : at + _AT_ONCE])
        return {"purged": keys, "bytes": sum(one.allocated for one in found)}


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
        raise Failed(f"{error.detail} Its admin socket cannot be reached.", NOT_RUNNING) from None
    try:
        if found.index is None:
            raise Failed(f"The cache in {path} cannot be changed: {found.why}")
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
    made = {one.name: registries.make(one) for one in config.registries}
    if name not in made:
        raise Failed(f"No registry {name!r} is served; there are: {', '.join(made)}.")
    access = Access(config)
    for listen in config.listen or (Listen(_DEFAULT),):
        port = _PORT.match(listen.endpoint)
        if port is None or listen.registry not in ("", name):
            continue
        interface = _INTERFACE.search(listen.endpoint)
        host = interface[1].replace("\\", "") if interface is not None else ""
        host = socket.gethostname() if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        scheme = "https" if port[1] == "ssl" else "http"
        url = access.base(f"{scheme}://{host}:{port[2]}", "", "" if listen.registry else f"{name}/")
        return {"name": name, "url": url, "lines": made[name].client_lines(url)}
    raise Failed(f"{name!r} is not served on a TCP port that is known before it runs.")
