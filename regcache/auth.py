"""
Who a client says it is: names and passwords, or tokens, held against the file of those who may use the cache.

Basic (RFC 7617) and Bearer (RFC 6750) credentials, and Cargo's, which are a token alone.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import ipaddress
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from regcache.access import Peer
from regcache.errors import BadRequest, ConfigError, Forbidden, TooBusy, TooManyFailures, Unauthorized
from regcache.flow.waiting import Outcome, spawn, within
from regcache.http.messages import Headers
from regcache.logs import Log
from regcache.readers import Readers
from regcache.routes import RegistryOptions

__all__ = ["Door", "check", "is_closed"]

_log = Log()
#: Seconds between two looks at the file, and the longest that a request waits for one.
_LOOK_EVERY = 1.0
#: Seconds for which a password that was right need not be hashed again, and how many are remembered.
_REMEMBERED_FOR, _MOST_REMEMBERED = 300.0, 1024
#: Failures within so many seconds that one name, and all from one address, may have; addresses that are counted.
_WINDOW, _MOST_OF_NAME, _MOST_OF_ADDRESS, _MOST_COUNTED = 60.0, 10, 100, 8192
#: Passwords that are hashed at the same time, that wait for it, and the seconds that they wait.
_AT_ONCE, _MOST_CHECKS, _CHECKED_WITHIN = 2, 64, 10.0
_MOST_BYTES = 4 << 20
_NAME_BYTES = 64
_Limits = tuple[tuple[str, int], ...]
_OTHERS_WRITE, _OTHERS_READ = 0o002, 0o004


def is_closed(options: RegistryOptions | None, path: str) -> bool:
    """Whether clients have to say who they are: of a registry, or of what is no registry's."""
    return bool(path) and not (options is not None and options.shared)


def check(registries: Iterable[RegistryOptions], path: str) -> None:
    """
    See that what the configuration says of who may read is sound, as far as it can be told without the file.

    :param path: the file of those who may use the cache, or empty.
    :raises regcache.errors.ConfigError: if a registry would be open that must not be, or closed to everybody.
    """
    for one in registries:
        if one.readers and one.shared:
            raise ConfigError(f"registries.{one.name}: it is shared with everybody, and has readers; it wants one.")
        if one.readers and not path:
            raise ConfigError(f"registries.{one.name}.readers: nobody can say who they are; name a file by --auth.")
        if one.has_credentials and not one.shared and not path:
            raise ConfigError(
                f"registries.{one.name}: by its credentials everybody on this machine could read what they open; name"
                " a file of who may by --auth, or say shared = true in its table if everybody may."
            )


@frozen
class _Seen:
    """By what a file is known; all zero for one that cannot be read."""

    inode: int = 0
    size: int = 0
    changed: int = 0
    mode: int = 0


@frozen
class _Given:
    """What a client said: a name, if any, and what it is known by."""

    name: str
    secret: bytes = field(repr=False)


def _given(text: str) -> _Given | None:
    """The credentials of an Authorization field; None if they are none of those that are known here."""
    scheme, blank, rest = text.strip().partition(" ")
    rest = rest.strip()
    if not blank:
        return _Given("", scheme.encode("latin-1"))
    if scheme.lower() == "bearer":
        return _Given("", rest.encode("latin-1"))
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(rest, validate=True).partition(b":")
        return _Given(name.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


@define(eq=False)
class _Failures:
    """How often what was not right was given lately, by whom; the oldest are forgotten when they are too many."""

    clock: IReactorTime
    _counts: OrderedDict[str, tuple[float, int]] = field(factory=OrderedDict, init=False)

    def note(self, *limits: tuple[str, int]) -> None:
        """
        Another one, of each of these that may have so many.

        :raises regcache.errors.TooManyFailures: if one has had them; then nothing is noted.
        """
        now = self.clock.seconds()
        for who, most in limits:
            began, count = self._counts.get(who, (now, 0))
            if now - began < _WINDOW and count >= most:
                raise TooManyFailures(wait=began + _WINDOW - now)
        for who, _ in limits:
            began, count = self._counts.pop(who, (now, 0))
            self._counts[who] = (began, count + 1) if now - began < _WINDOW else (now, 1)
        while len(self._counts) > _MOST_COUNTED:
            self._counts.popitem(last=False)

    def take_back(self, *limits: tuple[str, int]) -> None:
        """It was none."""
        for who, _ in limits:
            began, count = self._counts.get(who, (0.0, 0))
            if count > 1:
                self._counts[who] = (began, count - 1)
            else:
                self._counts.pop(who, None)


def _place(address: str) -> str:
    """Where a client is: of IPv6, whoever has one address has its whole network of 64 bits."""
    return str(ipaddress.ip_network(f"{address}/64", strict=False)) if ":" in address else address


class Door:
    """
    Lets in whoever may use the cache.

    :param path: the file of those who may; empty for everybody.
    :param registries: the options of those that are served.
    :param in_thread: runs a function beside the reactor.
    :param key: random bytes, by which credentials are hashed in memory.
    :raises regcache.errors.ConfigError: as :func:`check` does.
    """

    def __init__(
        self,
        path: str,
        registries: Iterable[RegistryOptions],
        clock: IReactorTime,
        in_thread: Callable[..., Deferred[Any]] = maybeDeferred,
        key: bytes = b"",
    ) -> None:
        self._path = path
        self._registries = tuple(registries)
        check(self._registries, path)
        self._clock = clock
        self._in_thread = in_thread
        self._key = key or os.urandom(32)
        self._failures = _Failures(clock)
        self._readers = Readers()
        self._seen: _Seen | None = None
        self._looked = 0.0
        self._looking: Outcome[None] | None = None
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._checking: dict[bytes, Outcome[bool]] = {}
        self._turn = DeferredSemaphore(_AT_ONCE)

    def probe(self) -> None:
        """
        See that the file can be read and understood.

        :raises regcache.errors.ConfigError: if not.
        """
        if self._path:
            self._read(None)

    def open(self) -> None:
        """Read the file; fails as :meth:`probe` does."""
        found = self._read(None) if self._path else None
        if found is not None:
            self._take(*found)
            self._looked = self._clock.seconds()

    def judge(self, headers: Headers) -> None:
        """
        Refuse whoever says nothing where everybody has to, before they send more.

        :raises regcache.errors.Unauthorized: to them.
        """
        if all(is_closed(one, self._path) for one in self._registries) and self._path:
            self._told(headers)

    def is_closed(self, options: RegistryOptions) -> bool:
        """Whether clients of a registry have to say who they are."""
        return is_closed(options, self._path)

    async def admit(self, headers: Headers, peer: Peer, options: RegistryOptions | None) -> str:
        """
        The name of a client; empty where none is asked for.

        :param options: the registry it asks; None for what is no registry's.
        :raises regcache.errors.Unauthorized: if it does not say, or it is not true.
        :raises regcache.errors.Forbidden: if that one may not read this registry.
        :raises regcache.errors.TooManyFailures: if it was not true too often.
        :raises regcache.errors.TooBusy: if passwords cannot be checked now.
        """
        if not is_closed(options, self._path):
            return ""
        told = self._told(headers)
        await self._look()
        name = await self._who(told, peer)
        if options is not None and not self.may(name, options):
            raise Forbidden(f"{name} is not among the readers of {options.name}.")
        return name

    def may(self, name: str, options: RegistryOptions) -> bool:
        """Whether one may read a registry."""
        return not is_closed(options, self._path) or not options.readers or name in options.readers

    @staticmethod
    def _told(headers: Headers) -> str:
        lines = headers.lines("authorization")
        if len(lines) > 1:
            raise BadRequest("It has more than one Authorization field.")
        if not lines or not lines[0].strip():
            raise Unauthorized("Give a name and a password, or a token.")
        return lines[0]

    async def _who(self, told: str, peer: Peer) -> str:
        mark = hmac.digest(self._key, told.encode("latin-1"), "sha256")
        name, until = self._known.get(mark, ("", 0.0))
        if name and self._clock.seconds() < until:
            return name
        given = _given(told)
        # A right token is let in however often others were wrong: it costs nothing to check, and cannot be guessed.
        owner = self._readers.owner(given.secret, given.name) if given is not None else ""
        if owner:
            return owner
        place = _place(peer.address)
        if given is None or not given.name:
            self._failures.note((place, _MOST_OF_ADDRESS))
        else:
            limits = (f"{place} {given.name[:_NAME_BYTES]}", _MOST_OF_NAME), (place, _MOST_OF_ADDRESS)
            if await self._checked(mark, given, limits):
                return given.name
        raise Unauthorized("What was given does not open it.")

    async def _checked(self, mark: bytes, given: _Given, limits: _Limits) -> bool:
        """Whether a password is right; the same one given at the same time is hashed once."""
        outcome = self._checking.get(mark)
        if outcome is None:
            if len(self._checking) >= _MOST_CHECKS:
                raise TooBusy("Too many passwords are to be checked.")
            # Counted before it is known, so that many at the same time are no way round the limit.
            self._failures.note(*limits)
            outcome = spawn(self._check(mark, given, limits))
            if not outcome.known:
                self._checking[mark] = outcome
        try:
            return await within(self._clock, _CHECKED_WITHIN, outcome.wait())
        except TimeoutError:
            raise TooBusy("The password could not be checked in time.") from None

    async def _check(self, mark: bytes, given: _Given, limits: _Limits) -> bool:
        readers = self._readers
        try:
            right: bool = await self._turn.run(self._in_thread, readers.fits, given.name, given.secret)
        finally:
            self._checking.pop(mark, None)
        if right:
            self._failures.take_back(*limits)
        if right and readers is self._readers:
            self._known[mark] = given.name, self._clock.seconds() + _REMEMBERED_FOR
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
        return right and readers is self._readers

    async def _look(self) -> None:
        """See whether the file has changed, every now and then; whoever comes meanwhile waits for it, not for long."""
        if self._looking is None:
            if self._clock.seconds() - self._looked < _LOOK_EVERY:
                return
            looking = spawn(self._look_now())
            if looking.known:
                return
            self._looking = looking
        with contextlib.suppress(TimeoutError):
            await within(self._clock, _LOOK_EVERY, self._looking.wait())

    async def _look_now(self) -> None:
        try:
            found = await self._in_thread(self._read, self._seen)
            if found is not None:
                self._take(*found)
                _log.info("{path} has changed, and was read again.", path=self._path)
        except _Unread as error:
            self._seen = error.seen
            _log.error("{why} Who was let in before still is.", why=error.detail)
        finally:
            self._looked = self._clock.seconds()
            self._looking = None

    def _take(self, seen: _Seen, readers: Readers) -> None:
        self._seen, self._readers = seen, readers
        self._known.clear()
        if seen.mode & _OTHERS_READ:
            _log.warn("{path} holds hashes of passwords, and everybody can read it: chmod 640", path=self._path)
        for one in self._registries:
            for name in sorted({*one.readers} - readers.names):
                _log.warn(
                    "registries.{one}.readers: {name} is not in {path}.", one=one.name, name=name, path=self._path
                )

    def _read(self, seen: _Seen | None) -> tuple[_Seen, Readers] | None:
        """What the file says and by what it is known, if that is not ``seen``; blocks."""
        now = _Seen()
        try:
            with open(self._path, "rb") as file:
                about = os.fstat(file.fileno())
                now = _Seen(about.st_ino, about.st_size, about.st_mtime_ns, about.st_mode)
                if now == seen:
                    return None
                if about.st_mode & _OTHERS_WRITE:
                    raise _Unread(f"{self._path} can be written by everybody: chmod 640 {self._path}", now)
                data = file.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise _Unread(f"{self._path} is too large: it may have {_MOST_BYTES} bytes.", now)
            readers = Readers.of(data.decode("utf-8-sig"), self._path)
        except OSError as error:
            if seen == now:
                return None
            raise _Unread(f"{self._path}: {error.strerror}.", now) from None
        except UnicodeDecodeError:
            raise _Unread(f"{self._path} is not text in UTF-8.", now) from None
        except _Unread:
            raise
        except ConfigError as error:
            raise _Unread(error.detail, now) from None
        return now, readers


class _Unread(ConfigError):
    """The file of those who may use the cache cannot be used."""

    def __init__(self, detail: str, seen: _Seen) -> None:
        super().__init__(detail)
        self.seen = seen
