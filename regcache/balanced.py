"""
Connections that a load balancer passes on as they are: whose they are, it says before their first byte.

That is the PROXY protocol, in both of its versions; a port speaks it whose endpoint begins with ``haproxy:``. Twisted
has such an endpoint as well; it believes whoever connects, and does not know all headers that there are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from regcache.errors import Forbidden
from regcache.site import CacheSite

__all__ = ["Balanced", "Told", "read"]

_FIRST = b"PROXY "
#: Bytes of a header of the first version at most, with the end of its line.
_LONGEST = 107
_SECOND = b"\r\n\r\n\0\r\nQUIT\n"
#: Bytes of a header of the second version before its addresses.
_FIXED = len(_SECOND) + 4
_LOCAL, _PROXY = 0x20, 0x21
_KINDS: dict[str, tuple[Any, Any]] = {
    "TCP4": (ipaddress.IPv4Address, IPv4Address),
    "TCP6": (ipaddress.IPv6Address, IPv6Address),
}
#: The families of the second version of which the addresses mean something here, and the bytes of an address.
_FAMILIES = {1: ("TCP4", 4), 2: ("TCP6", 16)}
#: All that there are, with that of an unknown and that of a UNIX socket; and all kinds of transport.
_ALL_FAMILIES, _ALL_TRANSPORTS = 4, 3


@frozen
class Told:
    """
    What a balancer says of a connection.

    :ivar size: bytes of the header that says it.
    :ivar client: whose the connection is; None if it is the balancer's own, or it knows no address.
    :ivar own: the address that the client connected to; None likewise.
    """

    size: int
    client: IAddress | None = None
    own: IAddress | None = None


def read(data: bytes) -> Told | None:
    """
    What the first bytes of a connection say.

    :returns: None as long as the header is not there whole.
    :raises ValueError: if they are no such header.
    """
    if data.startswith(_SECOND):
        return _second(data)
    if data.startswith(_FIRST):
        return _first(data)
    if _SECOND.startswith(data) or _FIRST.startswith(data):
        return None
    raise ValueError("There is no header.")


def _first(data: bytes) -> Told | None:
    end = data.find(b"\r\n", 0, _LONGEST)
    if end < 0:
        if len(data) >= _LONGEST:
            raise ValueError("It is too long.")
        return None
    kind, *rest = data[len(_FIRST) : end].decode("latin-1").split(" ")
    if kind == "UNKNOWN":
        return Told(end + 2)
    if kind not in _KINDS or len(rest) != 4:
        raise ValueError("It names no addresses.")
    client, own, *ports = rest
    return Told(end + 2, _address(kind, client, _port(ports[0])), _address(kind, own, _port(ports[1])))


def _second(data: bytes) -> Told | None:
    if len(data) < _FIXED:
        return None
    command, (family, transport) = data[len(_SECOND)], divmod(data[len(_SECOND) + 1], 16)
    if command not in (_LOCAL, _PROXY) or (
        command == _PROXY and (family >= _ALL_FAMILIES or transport >= _ALL_TRANSPORTS)
    ):
        raise ValueError("It says what this version does not know.")
    size = _FIXED + int.from_bytes(data[_FIXED - 2 : _FIXED], "big")
    if len(data) < size:
        return None
    if command == _LOCAL or family not in _FAMILIES or not transport:
        return Told(size)
    (kind, length), block = _FAMILIES[family], data[_FIXED:size]
    if len(block) < 2 * length + 4:
        raise ValueError("It ends within its addresses.")
    hosts = block[:length], block[length : 2 * length]
    ports = [int.from_bytes(block[2 * length + at : 2 * length + at + 2], "big") for at in (0, 2)]
    return Told(size, _address(kind, hosts[0], ports[0]), _address(kind, hosts[1], ports[1]))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 16):
        raise ValueError("It has no port.")
    return int(text)


def _address(kind: str, host: str | bytes, port: int) -> IAddress:
    parsed, made = _KINDS[kind]
    found: IAddress = made("TCP", str(parsed(host)), port)
    return found


class _Passed(ProtocolWrapper):
    """
    A connection of a balancer.

    Until it has said whose it is, nothing is read of it; then it is that client's, or stays the balancer's own.
    """

    _head = b""
    _told: Told | None = None

    def dataReceived(self, data: bytes) -> None:
        if self._told is None:
            self._head += data
            try:
                self._told = read(self._head)
            except ValueError:
                # Whatever it is may not be read as something else (section 2.2 of the specification).
                self.transport.abortConnection()  # type: ignore[union-attr]
                return
            if self._told is None:
                return
            data, self._head = self._head[self._told.size :], b""
        if data:
            self.wrappedProtocol.dataReceived(data)

    def getPeer(self) -> IAddress:
        found: IAddress = (self._told and self._told.client) or super().getPeer()  # type: ignore[no-untyped-call]
        return found

    def getHost(self) -> IAddress:
        found: IAddress = (self._told and self._told.own) or super().getHost()  # type: ignore[no-untyped-call]
        return found


class Balanced(WrappingFactory):
    """
    What listens on a port for balancers alone.

    Whoever connects to it could name any client there is, so that only trusted proxies may. Who connects to a UNIX
    socket is a matter of its mode.

    :param trusts: whether an address is a trusted proxy's.
    """

    protocol = _Passed
    noisy = False

    def __init__(self, site: CacheSite, trusts: Callable[[str], bool]) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._site, self._trusts = site, trusts

    def buildProtocol(self, addr: Any) -> Any:
        """Serve a new connection; one that is not trusted is told why not."""
        host = getattr(addr, "host", None) or ""
        if host and not self._trusts(host):
            error = Forbidden(f"{host} is no trusted proxy; the operator can add it with --trust-proxy.")
            return self._site.gate.refuse(error)
        made: Protocol | None = self._site.buildProtocol(addr)
        # One that is one too many is told so whatever it is going to say.
        return _Passed(self, made) if IProtocol.providedBy(made) and isinstance(made, self._site.protocol) else made
