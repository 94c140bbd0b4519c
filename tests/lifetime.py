"""
The whole service in memory, for simulated days: its disk is real, its clock and its registries are the test's own.

What its threads would do is done at once. Whatever it keeps can be counted.
"""

from __future__ import annotations

import base64
import functools
import gc
import hashlib
import importlib
import ipaddress
import json
import os
import pkgutil
import sqlite3
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from weakref import ReferenceType

import pytest
from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

import regcache
from regcache.config import LOOPBACK, Config
from regcache.flow.context import Bounded
from regcache.flow.derive import InlineDeriver
from regcache.gate import Gate
from regcache.http.messages import Headers
from regcache.interfaces import IResponse
from regcache.limits import Limits
from regcache.routes import RegistryOptions
from regcache.site import CacheSite
from regcache.store.files import Files
from regcache.tap import build
from regcache.testing import FakeUpstream, Page

__all__ = ["Census", "Life", "at_once", "memories"]

ROOT = "http://registry.test/"
DAY = 86400.0
#: Bytes that the cache may have.
MOST_STORED = 1_200_000
#: Where what was large enough to be derived once, and stored, begins.
FILLER = "x" * 9000
#: Bounds that would take more than some days to be reached.
SMALL_CAPS = {
    "auth._MOST_COUNTED": 30,
    "express._MOST_ASKED": 20,
    "express._MOST_FOUND": 20,
    "flow.copies._MOST_SERVED": 20,
    "flow.breaker._MOST_KEYS": 30,
    "flow.breaker._MOST_ORIGINS": 20,
    "flow.connections._MOST_ENDPOINTS": 20,
    "flow.context._MOST_MISSING": 30,
    "flow.documents._MOST_SENT": 20,
    "flow.fetching._MOST_FOREIGN": 20,
    "flow.ordered._MOST_OWNERS": 20,
    "flow.queues._MOST_HOSTS": 20,
    "flow.representations._MOST_FACTS": 100,
    "flow.representations._READY_BYTES": 100_000,
    "flow.withdrawals._MOST_ORIGINS": 5,
    "heads._MOST_BELOW": 20_000,
    "offhand._MOST_KNOWN": 40_000,
    "store.records._MOST": 100,
}


def at_once(patch: pytest.MonkeyPatch) -> None:
    """Have every pool of threads do its work in the thread that asks for it, and no bound be out of reach."""

    def run(self: Any, done: Callable[[bool, Any], None], work: Callable[..., Any], *args: Any, **more: Any) -> None:
        del self
        try:
            result = work(*args, **more)
        except BaseException:
            done(False, Failure())
        else:
            done(True, result)

    patch.setattr(ThreadPool, "callInThreadWithCallback", run)
    for name in ("start", "stop"):
        patch.setattr(ThreadPool, name, lambda _self: None)
    patch.setattr(Files, "sync", lambda _self, _fd: None)
    for name, most in SMALL_CAPS.items():
        patch.setattr(f"regcache.{name}", most)


class _Reactor(Clock):
    """A clock, and a way back from threads that there are none of."""

    def callFromThread(self, work: Callable[..., Any], *args: Any, **more: Any) -> None:
        work(*args, **more)


class World(FakeUpstream):
    """
    Registries that have whatever is asked for, and change every day.

    :ivar today: the number of the day.
    """

    today = 0

    def request(self, method: str, url: str, headers: Headers, *more: Any) -> Deferred[IResponse]:
        self.asked.clear()
        self.bodies.clear()
        self.pages = {url: self._page(url)}
        self.down = "broken" in url
        return super().request(method, url, headers, *more)

    def _page(self, url: str) -> Page:
        name = url.rpartition("/")[2]
        if "gone" in name or ("known" in name and not name.endswith(f"known{self.today}")):
            return Page(status=404)
        if "sick" in name:
            return Page(status=503, headers={"retry-after": "60"})
        if "/tree/" in url:
            return Page(body=b"" if "empty" in name else name[:12].encode() * 1000)
        if name.endswith(".tgz"):
            return Page(body=tarball(name))
        return Page(body=packument(name, self.today), headers={"etag": f'"{name}-{self.today}"'})


def tarball(name: str) -> bytes:
    """What lies behind a link."""
    return f"{name}\n".encode() * 200


def packument(name: str, today: int) -> bytes:
    """An index that has grown since yesterday, with links to hosts that nobody has heard of."""
    versions = {}
    for number, host in enumerate((ROOT, f"http://d{today}.cdn.test/", f"http://broken{today}.cdn.test/", "")):
        version = f"{today}.0.{number}"
        file = f"{name}-{version}.tgz"
        where = host or f"http://foreign{today}.test/"
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball(file)).digest()).decode()
        dist = {"tarball": f"{where}{name}/-/{file}", "integrity": integrity}
        versions[version] = {"name": name, "version": version, "dist": dist}
    tags = {"latest": f"{today}.0.0"}
    return json.dumps({"name": name, "dist-tags": tags, "versions": versions, "readme": FILLER}).encode()


class Life:
    """
    A service, and the days of its life.

    :ivar seen: how often it answered which status.
    """

    def __init__(self, directory: Path) -> None:
        # What the modules hold is looked at as well.
        gc.unfreeze()
        gc.collect()
        # What other tests have left behind is not the service's; held here, so that no new object is taken for one.
        self._others = {id(one): one for one in gc.get_objects() if _is_ours(one)}
        self._directory, self._reactor, self._world = directory, _Reactor(), World()
        self._wall, self._day = 1_700_000_000.0, 0
        self.seen: Counter[int] = Counter()
        users = directory / "users"
        users.write_text(f"ci:sha256:{hashlib.sha256(b'right').hexdigest()}\n")
        users.chmod(0o600)
        both = RegistryOptions(name="both", type="npm", url=f"{ROOT}first/", shared=True)
        config = Config(
            registries=(
                RegistryOptions(name="npm", type="npm", url=ROOT, artifact_hosts=("*.cdn.test",), shared=True),
                both.followed_by(f"{ROOT}second/"),
                RegistryOptions(name="tree", type="generic", url=f"{ROOT}tree/", shared=True),
                RegistryOptions(name="closed", type="generic", url=f"{ROOT}tree/"),
            ),
            cache_dir=str(directory / "cache"),
            max_size=MOST_STORED,
            min_free=0,
            memory_cache=40_000,
            hosts=("*",),
            allow=(*LOOPBACK, ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")),
            auth=str(users),
            access_log=str(directory / "access.log"),
            access_log_hits=True,
            access_log_max_size=20_000,
        )
        parts = build(self._reactor, config, now=lambda: self._wall)
        self.service = parts.service
        self.service.outward.upstream._lowest = self._world
        self.service.house.cache.context.deriver = InlineDeriver()
        self.service.startService()
        gate = Gate(self._reactor, Limits(connections=8, refusals=2))
        self._site = CacheSite(parts.resource(), self._reactor, gate)

    def stop(self) -> None:
        """End it in order."""
        stopped: list[Any] = []
        self.service.stopService().addBoth(stopped.append)
        self._reactor.advance(10)
        assert stopped == [None]

    def _connect(self, address: str) -> Any:
        kind = IPv6Address if ":" in address else IPv4Address
        peer: Any = kind("TCP", address, 50000)
        channel: Any = self._site.buildProtocol(peer)
        if channel is None:
            return None
        transport: Any = StringTransportWithDisconnection(peerAddress=peer)
        transport.protocol, transport.loseWriteConnection = channel, bool
        channel.makeConnection(transport)
        return transport

    def ask(self, path: str, address: str = "127.0.0.1", host: str = "localhost", *lines: str) -> None:
        """Ask on a connection of its own, and read the answer."""
        transport = self._connect(address)
        assert transport is not None
        head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", f"Host: {host}", *lines))
        transport.protocol.dataReceived(f"{head}\r\n".encode())
        raw: bytes = transport.value()
        assert raw.startswith(b"HTTP/1.1 "), (path, raw)
        self.seen[int(raw[9:12])] += 1
        if transport.connected:
            transport.loseConnection()

    def live(self, days: int) -> None:
        """So many days, on each of which strangers ask for what nobody has asked for before."""
        for _ in range(days):
            self._day = self._world.today = self._day + 1
            self._strangers(self._day)
            self._wall += DAY
            for _ in range(2):
                self._reactor.advance(DAY / 2)

    def _strangers(self, day: int) -> None:
        four, six = f"10.1.{day // 250}.{day % 250 + 1}", f"fd00:0:0:{day:x}::1"
        for host in (f"h{day}.test", f"h{day}.test:{day + 1000}"):
            self.ask("/npm/steady", four, host, "Accept-Encoding: gzip")
        self.ask(f"/npm/known{day}", six)
        self.ask(f"/npm/known{day - 1}", six)
        self.ask(f"/npm/known{day}/-/known{day}-{day}.0.0.tgz", four)
        for number in (1, 2):
            self.ask(f"/npm/known{day}/-/known{day}-{day}.0.{number}.tgz", four)
        self.ask(f"/npm/gone{day}", four)
        self.ask(f"/npm/sick{day}", four)
        self.ask(f"/both/two{day}", six)
        for name in (f"file{day}?q={day}", f"empty{day}", f"long{day}?{'q' * 5000}"):
            self.ask(f"/tree/{name}", four)
        self.ask(f"/closed/x{day}", four, "localhost", f"Authorization: Basic {_pair(f'n{day}')}")
        self.ask(f"/closed/x{day}", four, "localhost", f"Authorization: Bearer t{day}")
        self.ask(f"/nothing{day}/x", six)
        self.ask(f"/npm/{'%00' * 3}{day}", f"9.9.{day // 250}.{day % 250}")
        self.ask("/-/metrics")
        crowd = [self._connect(four) for _ in range(9)]
        for transport in crowd:
            if transport is not None:
                transport.loseConnection()

    def census(self) -> Census:
        """What there is now, when all is quiet."""
        for cached in memories().values():
            cached.cache_clear()
        gc.collect()
        objects = gc.get_objects()
        kept: Counter[str] = Counter()
        for one in objects:
            if _is_ours(one) and id(one) not in self._others and not isinstance(one, Page):
                kept.update(_containers(one))
        holding = Counter(type(one).__qualname__ for one in objects)
        items = sum(len(one) for one in objects if type(one) in _SIZED and not _passing(one))
        place = self._directory / "cache"
        with closing(sqlite3.connect(place / "index.sqlite3")) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
        files = [path.stat().st_size for path in self._directory.rglob("*") if path.is_file()]
        return Census(
            kept=dict(kept),
            objects=holding,
            items=items,
            rows=rows,
            files=len(files),
            bytes_on_disk=sum(files),
            index=(place / "index.sqlite3").stat().st_size,
            journal=(place / "index.sqlite3-wal").stat().st_size,
            descriptors=len(os.listdir("/proc/self/fd")),
            timers=len(self._reactor.getDelayedCalls()),
        )


@frozen
class Census:
    """
    All that a service keeps.

    :ivar kept: how many items each attribute of its objects holds that is a container.
    :ivar objects: how many objects there are of each class, of Twisted's and Python's as well.
    :ivar items: how many items all containers in the process hold together.
    :ivar rows: of each table of the index.
    :ivar files: how many there are, logs included; what they have is ``bytes_on_disk``.
    :ivar index: bytes.
    :ivar journal: bytes of the index's log.
    """

    kept: dict[str, int]
    objects: Counter[str]
    items: int
    rows: dict[str, int]
    files: int
    bytes_on_disk: int
    index: int
    journal: int
    descriptors: int
    timers: int


_SIZED = (dict, list, set, OrderedDict, Counter, deque)


def _is_ours(one: object) -> bool:
    return str(type(one).__module__).startswith("regcache.")


def _passing(one: Any) -> bool:
    """Whether it is an event of the log that nobody has asked for yet, or SQLite's list of cursors: 200 at most."""
    first = next(iter(one), None)
    return isinstance(first, ReferenceType) or (isinstance(one, dict) and "log_format" in one)


def _pair(name: str) -> str:
    return base64.b64encode(f"{name}:wrong".encode()).decode()


def _containers(one: object) -> Iterator[str]:
    """The containers that an object holds, each named once for every item that it has, and once for itself."""
    cls = type(one)
    names = {name for base in cls.__mro__ for name in getattr(base, "__slots__", ())}
    place = f"{cls.__module__.removeprefix('regcache.')}.{cls.__qualname__}"
    for name in names | set(getattr(one, "__dict__", ())):
        value = getattr(one, name, None)
        value = value._items if isinstance(value, Bounded) else value
        if isinstance(value, _SIZED) and not isinstance(one, Bounded):
            yield from [f"{place}.{name}"] * (1 + len(value))


@functools.cache
def _modules() -> list[Any]:
    found = pkgutil.walk_packages(regcache.__path__, "regcache.")
    return [importlib.import_module(one.name) for one in found if not one.name.endswith("__main__")]


def memories() -> dict[str, Any]:
    """What functions of the service remember of what they were asked, by name."""
    return {
        f"{module.__name__.removeprefix('regcache.')}.{name}": one
        for module in _modules()
        for name, one in vars(module).items()
        if hasattr(one, "cache_parameters") and one.__module__ == module.__name__
    }
