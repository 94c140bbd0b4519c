"""
The laboratory: a real service in front of a registry that fails on command, and clients, all on one reactor.

Nothing lies between them but sockets on loopback. Names are resolved by the laboratory, the wall clock and the
monotonic clock can be moved, and everything that may be left behind can be counted.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IDelayedCall, IHostnameResolver, IHostResolution
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from regcache import Config, RegistryOptions
from regcache.http.messages import Stored
from regcache.http.policy import Rules
from regcache.site import CacheSite
from regcache.tap import build
from tests.fault_certificates import authority
from tests.faulty import Faulty

__all__ = ["HOST", "NOON", "Lab", "Reply", "ask"]

HOST = "registry.test"
#: Bytes that an index may unpack to here.
MOST = 4 << 20
#: Seconds that pass in a turn of the reactor.
_TURN = 0.001
#: The wall clock at first.
NOON = 1_800_000_000.0


@define
class Reply:
    """What a client got until its connection ended: a whole answer, or what there was of it."""

    status: int = 0
    fields: dict[str, str] = field(factory=dict)
    body: bytes = b""
    whole: bool = False

    @classmethod
    def of(cls, data: bytes, method: str) -> Reply:
        """An answer from the bytes of a connection."""
        head, sep, body = data.partition(b"\r\n\r\n")
        if not sep:
            return cls()
        line, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        status, whole = int(line.split(" ")[1]), True
        if method != "HEAD" and "chunked" in fields.get("transfer-encoding", ""):
            whole = body.endswith(b"0\r\n\r\n")
            body = _unchunked(body)
        elif method != "HEAD" and status != 304:
            whole = len(body) == int(fields.get("content-length", -1))
        return cls(status, fields, body, whole)


def _unchunked(data: bytes) -> bytes:
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        number = int(size or b"0", 16)
        found, data = found + data[:number], data[number + 2 :]
    return found


class _Client(Protocol):
    """Sends one request, and takes what comes until the connection ends."""

    transport: Any

    def __init__(self, request: bytes, method: str) -> None:
        self.done: Deferred[Reply] = Deferred()
        self._request, self._method = request, method
        self._data: list[bytes] = []

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._data.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        del reason
        self.done.callback(Reply.of(b"".join(self._data), self._method))


def ask(reactor: Any, port: int, path: str, method: str = "GET", **headers: str) -> Deferred[Reply]:
    """What a client of that port gets, on a connection of its own; underscores in fields' names stand for hyphens."""
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    request = f"{method} /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"
    client = _Client(request.encode(), method)
    made: Deferred[Any] = connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), client)
    return made.addCallback(lambda _: client.done)


class _Bystander(Factory):
    """A server that is not among the registry's hosts: whoever comes there was led astray."""

    noisy = False

    def __init__(self) -> None:
        self.visits = 0

    def buildProtocol(self, _address: object) -> Protocol:
        self.visits += 1
        return Protocol()


@implementer(IHostResolution)
class _Looking:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Nobody looks any more."""


@implementer(IHostnameResolver)
class _Names:
    """
    Every name is that of loopback.

    :ivar trouble: ``none`` if no name is known, ``silent`` if nobody says.
    """

    trouble = ""

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: object = None,
        transportSemantics: str = "TCP",
    ) -> _Looking:
        del addressTypes, transportSemantics
        receiver, looking = resolutionReceiver, _Looking(hostName)
        receiver.resolutionBegan(looking)
        if self.trouble != "silent":
            if not self.trouble:
                receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
            receiver.resolutionComplete()
        return looking


class _Movable:
    """
    The reactor, with a clock of its own that can be moved on; timers keep their time.

    At most a millisecond passes in a turn of the reactor, and none while a thread is at work: on a machine that is busy
    with other things, too, what is under way comes to its end in the time that the service has for it.

    :ivar timers: those of whoever has this for a reactor.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._at_work = 0
        self._patch = pytest.MonkeyPatch()
        self.skew = 0.0
        self.timers = Clock()
        self.timers.advance(reactor.seconds())
        self.turn: IDelayedCall | None = None

    def start(self) -> None:
        """Let time pass."""
        # Only when it would go on to the next address does Twisted notice that there was but one.
        self._patch.setattr(HostnameEndpoint, "_DEFAULT_ATTEMPT_DELAY", _TURN)
        self._patch.setattr(ThreadPool, "callInThreadWithCallback", self._counted(ThreadPool.callInThreadWithCallback))
        self._pass()

    def stop(self) -> None:
        """Let it stand. Harmless when repeated."""
        self._patch.undo()
        if self.turn is not None:
            self.turn.cancel()
            self.turn = None

    def _pass(self) -> None:
        self.turn = self._reactor.callLater(_TURN, self._pass)
        # What is due is done in any case.
        self.timers.advance(0 if self._at_work else _TURN)

    def _counted(self, usual: Any) -> Any:
        """Have a thread work, and the result be taken notice of, before time passes."""

        def run(pool: ThreadPool, done: Any, work: Any, *args: Any, **more: Any) -> None:
            def told(success: bool, result: Any) -> None:
                if done is not None:
                    done(success, result)
                self._reactor.callFromThread(self._worked)

            self._at_work += 1
            usual(pool, told, work, *args, **more)

        return run

    def _worked(self) -> None:
        self._at_work -= 1

    def seconds(self) -> float:
        return self.timers.seconds() + self.skew

    def callLater(self, delay: float, work: Any, *args: Any, **more: Any) -> IDelayedCall:
        return self.timers.callLater(delay, work, *args, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class Lab:
    """
    The service, its registry, and whoever asks.

    :ivar wall: the wall clock.
    :ivar registry: the one that fails.
    :ivar bystander: counts who was led astray.
    """

    def __init__(self, reactor: Any, directory: Path, shown: SSL.Context | None = None, **options: Any) -> None:
        self._reactor, self._directory, self._options = reactor, directory, options
        self.wall = NOON
        self.movable = _Movable(reactor)
        self.registry = Faulty(self.movable, shown)
        self.bystander = _Bystander()
        self.names = _Names()
        self.service: Any = None
        self._before = self.left()

    # Life.

    def start(self) -> None:
        """Open the registry and the service."""
        self.movable.start()
        self.registry.listen()
        self._astray = self._reactor.listenTCP(0, self.bystander, interface="127.0.0.1")
        self.open_service()

    @property
    def astray(self) -> int:
        """The port of the bystander."""
        port: int = self._astray.getHost().port
        return port

    def open_service(self) -> None:
        """Start the service, on the directory as it is."""
        root = self.registry.url(HOST)
        pypi = RegistryOptions(name="pypi", type="pypi", url=f"{root}simple/", extra={"files": root})
        tree = RegistryOptions(name="tree", type="generic", url=f"{root}tree/")
        config = Config(
            cache_dir=str(self._directory / "cache"),
            registries=(pypi, tree),
            max_index_size=MOST,
            min_free=0,
            upstream_ca=authority(self._directory) if self.registry.shown is not None else "",
            **self._options,
        )
        parts = build(self.movable, config, now=lambda: self.wall)
        self.service = parts.service
        self.service.outward._common._resolving.installNameResolver(self.names)
        self.service.startService()
        self.context = self.service.house.cache.context
        self.rules: Rules = self.context.rules
        self._port = self._reactor.listenTCP(
            0, CacheSite(parts.resource(), self._reactor), interface="127.0.0.1", backlog=1024
        )

    async def close_service(self) -> None:
        """Stop the service in order."""
        await self._port.stopListening()
        await self.service.stopService()

    async def close(self) -> None:
        """Stop all."""
        if self.service is not None and self.service.running:
            await self.close_service()
        await self.registry.refuse()
        await maybeDeferred(self._astray.stopListening)
        self.movable.stop()

    async def stop(self) -> None:
        """Stop all; nothing is left behind then."""
        await self.close()
        for _ in range(2000):
            if self.left() == self._before:
                return
            await self.pause(0.001)
        assert self.left() == self._before, f"left behind: {self.left()}, before: {self._before}"

    def short(self) -> None:
        """Shorten every wait, in the usual order."""
        self.context.rules = evolve(self.rules, brief_wait=0.01, upstream_timeout=0.02, cold_timeout=0.04)
        self.context.upstream._idle_timeout = 0.08

    def usual(self) -> None:
        """As configured."""
        self.context.rules = self.rules
        self.context.upstream._idle_timeout = 30.0

    def pass_time(self, seconds: float) -> None:
        """Let it pass, for ages and for the breaker."""
        self.wall += seconds
        self.movable.skew += seconds

    def pause(self, seconds: float) -> Deferred[None]:
        """Let the reactor run."""
        turn: Deferred[None] = Deferred()
        self._reactor.callLater(seconds, turn.callback, None)
        return turn

    # Asking.

    @property
    def port(self) -> int:
        """The service's."""
        port: int = self._port.getHost().port
        return port

    def ask(self, path: str, method: str = "GET", **headers: str) -> Deferred[Reply]:
        """As :func:`ask`, of the service."""
        return ask(self._reactor, self.port, path, method, **headers)

    async def crowd(self, number: int, path: str, method: str = "GET", **headers: str) -> list[Reply]:
        """What many clients get at once."""
        found = await DeferredList([self.ask(path, method, **headers) for _ in range(number)])
        return [reply for _, reply in found]

    # What is left.

    async def settled(self) -> None:
        """Wait until nothing is under way in the service any more."""
        for _ in range(10_000):
            if not self.busy():
                return
            await self.pause(0.001)
        raise AssertionError(f"still under way: {self.busy()}")

    def busy(self) -> list[object]:
        """What is under way in the service, waiters and connections included."""
        cache, connections = self.service.house.cache, self.service.outward._common
        fetching = cache._documents._fetching
        idle = {one for kept in connections._idle.values() for one in kept}
        return [
            *self.service.house._exchanges,
            *cache._artifacts.transfers,
            *cache._artifacts._filling._fills,
            *cache._artifacts._filling._disproved,
            *fetching._fills,
            *fetching._storing,
            *(connections._open - idle),
            *([] if self.context.upstream._queues.idle else ["places in the queues"]),
            *self.leftovers(),
        ]

    def leftovers(self) -> list[str]:
        """The files of bodies that are not whole."""
        return [str(path) for path in (self._directory / "cache" / "partial").iterdir()]

    def left(self) -> tuple[list[str], list[str]]:
        """The descriptors that are open in this process, and the timers that run."""
        there, found = Path("/proc/self/fd"), []
        for one in os.listdir(there):
            with contextlib.suppress(OSError):
                found.append(os.readlink(there / one))
        timers = [*self._reactor.getDelayedCalls(), *self.movable.timers.getDelayedCalls()]
        # Twisted holds one of these in reserve from its first port on.
        return sorted(one for one in found if one != os.devnull), sorted(
            str(call.func) for call in timers if call is not self.movable.turn
        )

    @staticmethod
    def waiting() -> int:
        """How many Deferreds exist that nobody has fired, of those that are not frozen."""
        gc.collect()
        return sum(1 for one in gc.get_objects() if type(one) is Deferred and not one.called)

    def stored(self, key: str) -> Stored | None:
        """The entry of that key; its body must be what its digest says."""
        entry: Stored | None = self.service.store.peek(key)
        if entry is not None:
            blob = self._directory / "cache" / "blobs" / entry.digest[:2] / entry.digest[2:]
            body = blob.read_bytes()
            assert (len(body), hashlib.sha256(body).hexdigest()) == (entry.size, entry.digest)
        return entry
