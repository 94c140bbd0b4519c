"""Who is let in: so many connections in all and of each address, and a word to those that are not."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from regcache.errors import RegCacheError, TooBusy
from regcache.limits import Limits
from regcache.values import Network

__all__ = ["Gate", "admit", "refusal"]

#: Seconds in which a client that is not let in may send its request and read the answer.
_LINGER_SECONDS = 2.0


def refusal(error: RegCacheError) -> bytes:
    """A whole response, for a request that is not worth reading to its end."""
    body = error.text.encode() + b"\n"
    head = f"HTTP/1.1 {error.status} {error.reason}\r\nServer: regcache\r\nConnection: close\r\nX-Cache: BYPASS\r\n"
    head += (
        "Cache-Status: regcache; fwd=bypass\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
    )
    head += "".join(f"{name.title()}: {value}\r\n" for name, value in error.fields)
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@lru_cache(4096)
def _party(host: str) -> str:
    """Whose connections are counted together: those of an address, or of the network that an IPv6 host has."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


def admit(limits: Limits, under_way: int, own: int, address: str) -> None:
    """
    See that one more request can be answered.

    :param under_way: how many requests are, this one included.
    :param own: how many of them are of this address; a UNIX socket has none.
    :raises regcache.errors.TooBusy: if all together, or this client alone, have enough.
    """
    if limits.requests and under_way > limits.requests:
        raise TooBusy(f"{limits.requests} requests are under way.")
    share = limits.share(limits.requests)
    if address and 0 < share < own:
        raise TooBusy(f"{share} requests of {address} are under way.")


class Gate:
    """
    Counts the connections of all ports of one service.

    A new one past the limits is told to come again, and closed; while too many are being told, without a word.

    :param exempt: networks whose addresses stand for many clients, such as those of reverse proxies.
    """

    def __init__(self, clock: IReactorTime, limits: Limits, exempt: Iterable[Network] = ()) -> None:
        self._clock, self._limits, self._exempt = clock, limits, tuple(exempt)
        self._all = 0
        self._by_party: Counter[str] = Counter()
        self._refused = 0

    def change(self, limits: Limits, exempt: Iterable[Network]) -> None:
        """Take so many from now on; those that are open stay."""
        self._limits, self._exempt = limits, tuple(exempt)

    def judge(self, host: str) -> TooBusy | None:
        """Why one more connection is not taken; None if it is. A UNIX socket has no host."""
        most = self._limits.connections
        if not most:
            return None
        if self._all >= most:
            return TooBusy(f"{most} connections are open (--max-connections).")
        share, party = self._limits.share(most), _party(host)
        if not host or self._by_party[party] < share or self._stands_for_many(party):
            return None
        return TooBusy(f"{share} connections of {party} are open (--max-connections).")

    def _stands_for_many(self, party: str) -> bool:
        try:
            return any(ipaddress.ip_network(party).subnet_of(network) for network in self._exempt)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return False

    def enter(self, host: str) -> None:
        """There is one more."""
        self._all += 1
        self._by_party[_party(host)] += 1

    def leave(self, host: str) -> None:
        """There is one less."""
        self._all -= 1
        party = _party(host)
        self._by_party[party] -= 1
        if not self._by_party[party]:
            del self._by_party[party]

    def refuse(self, error: RegCacheError) -> Protocol | None:
        """Who says so on a new connection; None if that is to be closed at once."""
        if self._refused >= self._limits.refusals:
            return None
        self._refused += 1
        return _Refusing(self, error)

    def wait(self, work: Any) -> IDelayedCall:
        """Do that in a moment."""
        return self._clock.callLater(_LINGER_SECONDS, work)

    def told(self) -> None:
        """One that was refused is gone."""
        self._refused -= 1


class _Refusing(Protocol):
    """
    A connection that is not taken: says why at once, and waits a moment.

    Were it closed with a request unread, the client would see that it broke, and not why.
    """

    transport: Any

    def __init__(self, gate: Gate, error: RegCacheError) -> None:
        self._gate, self._error = gate, error
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._timer = self._gate.wait(self.transport.abortConnection)
        self.transport.write(refusal(self._error))
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        del reason
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._gate.told()
