"""
The service's side of the commands: HTTP and JSON on a UNIX socket that is its user's alone.

Whoever can open the socket may do everything; so it is never a TCP port.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure
from twisted.web.http import Request as WireRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from regcache._version import __version__
from regcache.errors import BadRequest, MethodNotAllowed, NotFound, RegCacheError
from regcache.flow.upstream import origin_of, origins_of
from regcache.flow.waiting import within
from regcache.house import House
from regcache.http.messages import Kind
from regcache.logs import Log
from regcache.mending import Mending
from regcache.outlook import asked_by, in_words, told_of
from regcache.pagewise import DOCUMENTS_AT_ONCE, ENTRIES_AT_ONCE, listing, purged, reading_on
from regcache.places import ADMIN_POINTER, admin_sockets, too_long
from regcache.store.disk import DiskStore
from regcache.store.listing import Listed, listed_in, seen_in
from regcache.store.verifying import BEFORE_ALL, Tally, bodies_in

__all__ = ["Admin"]

_log = Log()
#: Seconds to wait for what is being stored.
_SETTLING = 5.0
#: Of how many bodies that are read one is told of, if nothing is wrong with it.
_TOLD_EVERY = 20
Asked = Mapping[str, str]


class Admin(Service):
    """
    Listens on the admin socket while the service runs. Where that cannot be done, it goes on without.

    :param bases: where each registry is reached, by name.
    """

    def __init__(
        self,
        reactor: Any,
        house: House,
        store: DiskStore,
        bases: Callable[[], Iterable[tuple[str, str]]],
        environ: Mapping[str, str],
    ) -> None:
        self._reactor, self._directory = reactor, Path(house.config.cache_dir)
        self._path = Path(admin_sockets(house.config.cache_dir, environ)[0])
        self._desk = _Desk(house, store, bases)
        self._port: Any = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if too_long(str(self._path)):
            _log.warn("The admin socket {path} has too long a path; the service runs without.", path=str(self._path))
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The directory is locked by now, so nobody listens there.
            if self._path.is_socket():
                self._path.unlink()
            site = _Site(_Root(self._desk))  # type: ignore[no-untyped-call]
            self._port = self._reactor.listenUNIX(str(self._path), site, mode=0o600)
            self._pointer.write_text(f"{self._path}\n", "utf-8")
        except (OSError, CannotListenError) as error:
            _log.warn("The admin socket {path} cannot be used: {why}", path=str(self._path), why=str(error))

    @property
    def _pointer(self) -> Path:
        return self._directory / ADMIN_POINTER

    @inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(OSError):
                self._pointer.unlink()
            yield maybeDeferred(port.stopListening)
        self._desk.stop()


class _Desk:
    """What can be asked and done; a coroutine each, whose results are JSON."""

    def __init__(self, house: House, store: DiskStore, bases: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self.house, self._store, self._bases = house, store, bases
        self._mending = Mending(house, store)
        self._working: set[Deferred[None]] = set()
        self.reading = {
            "status": self._status,
            "ls": self._ls,
            "show": self._show,
            "client-config": self._client_config,
            "self": self._self,
        }
        self.changing = {"purge": self._purge, "refresh": self._refresh}
        self.streaming = {"verify": self._verify}

    def begin(self, work: Coroutine[Any, Any, None], request: Request) -> None:
        """Do what a request asks for, until it is done, the client leaves, or the service stops."""
        working = Deferred.fromCoroutine(work)
        self._working.add(working)
        request.notifyFinish().addErrback(lambda _: working.cancel())
        working.addErrback(self._bug).addBoth(lambda _: self._working.discard(working))

    @staticmethod
    def _bug(failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("A bug ended a command.", failure=failure)

    def stop(self) -> None:
        """End what is under way."""
        for working in list(self._working):
            working.cancel()

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await self.house.cache.context.in_thread(work, *args)

    async def encoded(self, answer: Any) -> bytes:
        """A result as JSON; a long list would hold the reactor up."""
        text: str = await self._in_thread(json.dumps, answer)
        return text.encode()

    async def _listed(self, asked: Asked, limit: int, *, documents: bool = False) -> list[Listed]:
        # What has come is served before it is stored, and would be stored after it was purged. A disk that is stuck is
        # no reason to say nothing.
        cache, after = self.house.cache, asked.get("after", "")
        if not after:
            with contextlib.suppress(TimeoutError):
                await within(cache.context.clock, _SETTLING, Deferred.fromCoroutine(cache.settled()))

        def work() -> list[Listed]:
            return listed_in(self._directory, asked.get("pattern", ""), documents=documents, after=after, limit=limit)

        found: list[Listed] = await self._in_thread(work)
        return found

    @property
    def _directory(self) -> Path:
        return Path(self.house.config.cache_dir)

    async def _status(self, _asked: Asked) -> Any:
        house, health = self.house, self.house.health(self.house.registries)
        return {
            "running": True,
            "since": house.since,
            "pid": os.getpid(),
            "version": __version__,
            "cache_dir": house.config.cache_dir,
            "bytes": health["bytes"],
            "max_size": house.config.max_size,
            "entries": health["entries"],
            "requests": health["requests"],
            "offline": health["offline"],
            "registries": {
                name: {"url": one.options.url, "upstream": health["upstreams"][name]}
                for name, one in house.registries.items()
            },
        }

    async def _ls(self, asked: Asked) -> Any:
        return listing(await self._listed(asked, ENTRIES_AT_ONCE), self.house.now())

    async def _show(self, asked: Asked) -> Any:
        house, name = self.house, _given(asked, "name")
        meant = asked_by(house.registries, name)
        found = await self._in_thread(seen_in, self._directory, *([meant.key] if meant else []), name)
        context, trouble = house.cache.context, False
        if found is not None:
            entry = found.one.entry
            trouble = context.breaker.spares(origin_of(entry.url), entry.key)
        return told_of(house.registries, name, found, context.rules, house.now(), trouble=trouble)

    async def _client_config(self, asked: Asked) -> Any:
        registries = self.house.registries
        name = _given(asked, "name")
        # What is listened on first: of loopback that is 127.0.0.1, which every client takes.
        base = next((base for registry, base in self._bases() if registry == name), None)
        if base is None:
            raise NotFound(f"No registry {name!r} is served on a TCP port; there are: {', '.join(registries)}.")
        registry = registries[name]
        lines = registry.client_lines(base)
        return {"name": name, "type": registry.options.type, "url": base, "lines": lines}

    async def _self(self, _asked: Asked) -> Any:
        house = self.house
        return {
            "pid": os.getpid(),
            "bases": [list(pair) for pair in self._bases()],
            "origins": {name: origins_of(one) for name, one in house.registries.items()},
            "offline": house.config.offline,
            "upstream_ca": house.config.upstream_ca,
            "min_free": house.config.min_free,
            "max_size": house.config.max_size,
        }

    async def _purge(self, asked: Asked) -> Any:
        _given(asked, "pattern")
        found = await self._listed(asked, ENTRIES_AT_ONCE, documents=asked.get("metadata") == "1")
        if found:
            await self._store.drop(*(one.entry.key for one in found))
        return purged(found)

    async def _refresh(self, asked: Asked) -> Any:
        _given(asked, "pattern")
        found = await self._listed(asked, DOCUMENTS_AT_ONCE, documents=True)
        documents = [one.entry for one in found if one.entry.kind is Kind.DOCUMENT]
        outcomes = {entry.key: await self._mending.refreshed(entry) for entry in documents}
        return {"refreshed": outcomes, "next": reading_on(found, DOCUMENTS_AT_ONCE)}

    async def _verify(self, asked: Asked, say: Callable[[Any], None]) -> None:
        """Read every body, and tell of each what came of it; one at a time, so that clients hardly notice."""
        total = await self._in_thread(bodies_in, self._directory)
        last, tally = BEFORE_ALL, Tally(*total)
        while (reading := await self._store.next_body(last)) is not None:
            before, last = last, reading.digest
            try:
                while not reading.over:
                    await self._in_thread(reading.step)
                if reading.wrong and not await self._stands(reading.digest, before):
                    continue
                told = tally.add(reading)
                if reading.wrong and asked.get("repair") == "1":
                    told["refetched"] = await self._mending.mended(reading)
            finally:
                reading.close()
            # Whoever listens may be slow, and a line a body would gather here.
            if reading.wrong or tally.checked % _TOLD_EVERY == 0:
                say(told)
        say(tally.result())

    async def _stands(self, digest: str, before: str) -> bool:
        """Whether a body is still an entry's: it may have been evicted while it was read."""
        found = await self._store.next_body(before)
        return found is not None and found.digest == digest


def _given(asked: Asked, name: str) -> str:
    if not asked.get(name):
        raise BadRequest(f"{name} is missing.")
    return asked[name]


class _Site(Site):
    """A Site that logs nothing: what an operator asks is no request of a client's."""

    noisy = False

    def log(self, request: WireRequest) -> None:
        """Nothing."""


class _Root(Resource):
    """A command a path."""

    isLeaf = True

    def __init__(self, desk: _Desk) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._desk = desk

    def render(self, request: Request) -> int:
        """Begin a command."""
        self._desk.begin(self._answer(request), request)
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        request.setHeader(b"content-type", b"application/json")
        try:
            body = await self._body(request)
        except RegCacheError as error:
            request.setResponseCode(error.status)
            body = json.dumps({"error": in_words(error)}).encode()
        except OSError as error:
            request.setResponseCode(503)
            body = json.dumps({"error": str(error)}).encode()
        request.write(body + b"\n" if body else b"")
        request.finish()

    async def _body(self, request: Request) -> bytes:
        name = (request.path or b"").decode("latin-1").strip("/")
        commands = self._desk.reading if request.method == b"GET" else self._desk.changing
        streaming = None if request.method == b"GET" else self._desk.streaming.get(name)
        if name not in commands and streaming is None:
            if name in self._desk.reading or name in self._desk.changing or name in self._desk.streaming:
                raise MethodNotAllowed()
            raise NotFound(f"There is no command {name!r}.")
        asked = {
            key.decode("utf-8", "surrogateescape"): values[0].decode("utf-8", "surrogateescape")
            for key, values in (request.args or {}).items()
        }
        if streaming is not None:
            await streaming(asked, lambda told: request.write(json.dumps(told).encode() + b"\n"))
            return b""
        answer = await commands[name](asked)
        body: bytes = await self._desk.encoded(answer)
        return body
