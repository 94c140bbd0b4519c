"""Connections that a load balancer passes on: whose they are, for who may ask and for the log."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.testing import StringTransportWithDisconnection

from regcache.balanced import Balanced, read
from regcache.cautions import warnings
from regcache.config import Config, Listen
from regcache.limits import Limits
from regcache.values import networks
from tests.service import Running, free_port
from tests.wire import Wire, nothing_logged

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Where the balancer is; it is allowed to ask for itself.
BALANCER = "10.0.0.1"
ASKED = b"GET /npm/demo HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIVE = b"GET /-/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def first(client: str, own: str = "10.0.0.9") -> bytes:
    """A header of version 1."""
    return f"PROXY TCP{6 if ':' in client else 4} {client} {own} 50000 443\r\n".encode()


def second(
    client: str = "", own: str = "10.0.0.9", command: int = 1, kind: int | None = None, more: bytes = b""
) -> bytes:
    """A header of version 2."""
    hosts = [ipaddress.ip_address(host).packed for host in (client, own)] if client else []
    block = b"".join(hosts) + (struct.pack("!2H", 50000, 443) if client else b"") + more
    family = (0x21 if ":" in client else 0x11 if client else 0) if kind is None else kind
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(block)) + block


UNIX = second(kind=0x31, more=b"/run/client.sock".ljust(108, b"\0") * 2)
#: The balancer's own connections, and those of which it knows no address.
OWN = {
    "v1 unknown": b"PROXY UNKNOWN\r\n",
    "v1 unknown, with more": b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
    "v2 local": second(command=0),
    "v2 local, with addresses": second("127.0.0.1", command=0),
    "v2 local, with anything": second(command=0, kind=0xFF, more=b"anything"),
    "v2 unspecified": second(),
    "v2 unspecified, with more": second(more=b"\x04\0\1x"),
    "v2 no transport": second("127.0.0.1", kind=0x10),
    "v2 unix": UNIX,
}
#: What is no header.
WRONG = {
    "none": ASKED,
    "another": b"PROXY TCP5 127.0.0.1 127.0.0.1 1 2\r\n",
    "no address": b"PROXY TCP4  127.0.0.1 1 2\r\n",
    "a name": b"PROXY TCP4 localhost 127.0.0.1 1 2\r\n",
    "of another family": b"PROXY TCP6 127.0.0.1 127.0.0.1 1 2\r\n",
    "no ASCII": b"PROXY TCP4 127.0.0.\xb2 127.0.0.1 1 2\r\n",
    "a word for a port": b"PROXY TCP4 127.0.0.1 127.0.0.1 x 2\r\n",
    "no port": b"PROXY TCP4 127.0.0.1 127.0.0.1 1\r\n",
    "a port too high": b"PROXY TCP4 127.0.0.1 127.0.0.1 65536 2\r\n",
    "too long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v3": SIGNATURE + b"\x31\x11\0\0",
    "v2 another command": second("127.0.0.1", command=2),
    "v2 another family": second(kind=0x41),
    "v2 another transport": second("127.0.0.1", kind=0x13),
    "v2 cut": second(kind=0x11, more=b"\x7f\0\0\1" * 2),
}


class Port:
    """A port for balancers, in memory."""

    def __init__(self, allow: str = "127.0.0.0/8,192.0.2.0/24", trust: str = BALANCER) -> None:
        self.wire = Wire(Config(allow=networks(allow), trust_proxy=networks(trust)))
        self.factory = Balanced(self.wire.site, self.wire.house.access.is_trusted)

    def connect(self, address: Any = BALANCER) -> Any:
        """A new connection."""
        peer = IPv4Address("TCP", address, 40000) if isinstance(address, str) else address
        protocol, transport = self.factory.buildProtocol(peer), None
        if protocol is not None:
            transport = StringTransportWithDisconnection(peerAddress=peer)
            transport.protocol = protocol
            transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
            protocol.makeConnection(transport)
        return transport

    def said(self, *pieces: bytes, address: Any = BALANCER) -> bytes:
        """What is answered where these pieces come."""
        transport = self.connect(address)
        for piece in pieces:
            if transport.connected:
                transport.protocol.dataReceived(piece)
        found: bytes = transport.value()
        return found


@pytest.mark.parametrize("made", [first, second])
@pytest.mark.parametrize(
    ("client", "status"), [("192.0.2.7", 200), ("198.51.100.7", 403), ("::ffff:192.0.2.7", 200), ("2001:db8::1", 403)]
)
def test_a_client_is_who_the_balancer_says(made: Callable[[str, str], bytes], client: str, status: int) -> None:
    """Those who may ask may, and others not, though the balancer itself may or may not."""
    header = made(client, "2001:db8::9" if ":" in client else "10.0.0.9")
    for allow in ("192.0.2.0/24", f"192.0.2.0/24,{BALANCER}"):
        answer = Port(allow).said(header + LIVE)
        assert answer.startswith(b"HTTP/1.1 %d" % status)
        assert status == 200 or client.encode() in answer


@pytest.mark.parametrize("header", OWN.values(), ids=OWN)
def test_what_is_of_no_client_is_the_balancers_own(header: bytes) -> None:
    """It is answered if the balancer may ask, and not if not: no address is not the address of a UNIX socket."""
    assert Port(BALANCER).said(header + LIVE).startswith(b"HTTP/1.1 200")
    for kind in (LIVE, ASKED):
        answer = Port().said(header + kind)
        assert answer.startswith(b"HTTP/1.1 403")
        assert BALANCER.encode() in answer


@pytest.mark.parametrize("header", WRONG.values(), ids=WRONG)
def test_what_is_no_header(header: bytes) -> None:
    """The connection ends without an answer, and nothing is logged of a bug."""
    with nothing_logged():
        port = Port(f"127.0.0.0/8,{BALANCER}")
        transport = port.connect()
        transport.protocol.dataReceived(header + LIVE)
        assert not transport.connected
        assert transport.value() == b""


@pytest.mark.parametrize("header", [first("127.0.0.1"), second("127.0.0.1"), UNIX, *OWN.values(), b""])
def test_nobody_else_can_say_whose_a_connection_is(header: bytes) -> None:
    """Who is no trusted proxy is refused, whoever it pretends to be, and even where it may ask for itself."""
    answer = Port(f"127.0.0.0/8,{BALANCER}", trust="10.0.0.2").said(header + LIVE)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"--trust-proxy" in answer


def test_by_a_unix_socket() -> None:
    """Whoever may connect to it is believed, and is let in with what it says of no client."""
    port, peer = Port(), UNIXAddress(None)
    for header, status in [(first("192.0.2.7"), 200), (first("198.51.100.7"), 403), (OWN["v2 local"], 200)]:
        assert port.said(header + LIVE, address=peer).startswith(b"HTTP/1.1 %d" % status)


@pytest.mark.parametrize("header", [first("192.0.2.7"), second("192.0.2.7", more=b"\x04\0\1x"), OWN["v1 unknown"]])
def test_in_pieces(header: bytes) -> None:
    """However it comes, and whatever comes with its end."""
    port = Port(f"192.0.2.0/24,{BALANCER}")
    for cut in range(1, len(header) + len(LIVE)):
        whole = header + LIVE
        assert port.said(whole[:cut], whole[cut:]).startswith(b"HTTP/1.1 200")
    assert port.said(*(bytes([byte]) for byte in header + LIVE)).startswith(b"HTTP/1.1 200")
    assert port.said(header[:-1]) == b""


def test_where_a_client_connected() -> None:
    """The balancer's address is one of the names that its clients may use."""
    asked = LIVE.replace(b"/-/health/live", b"/").replace(b"localhost", b"198.51.100.1")
    assert Port().said(first("192.0.2.7", "198.51.100.1") + asked).startswith(b"HTTP/1.1 200")
    assert Port().said(first("192.0.2.7", "198.51.100.2") + asked).startswith(b"HTTP/1.1 421")


def test_what_a_client_says_of_others_does_not_count() -> None:
    """X-Forwarded-For is believed of trusted proxies, and the client is none."""
    asked = LIVE.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n")
    assert Port().said(first("198.51.100.7") + asked).startswith(b"HTTP/1.1 403")


def test_one_too_many() -> None:
    """It is told so, or closed without a word."""
    port = Port()
    port.wire.site.gate.change(Limits(connections=1, refusals=1), networks(BALANCER))
    assert port.said(first("192.0.2.7") + LIVE).startswith(b"HTTP/1.1 200")
    assert port.said(first("192.0.2.7") + LIVE).startswith(b"HTTP/1.1 503")
    assert port.connect() is None


@given(
    st.binary(max_size=40)
    | st.binary(max_size=40).map(SIGNATURE.__add__)
    | st.binary(max_size=120).map(b"PROXY ".__add__)
)
@example(b"")
def test_anything(data: bytes) -> None:
    """It is a header, the beginning of one, or none; and a header names two addresses or none."""
    try:
        told = read(data)
    except ValueError:
        return
    if told is not None:
        assert 0 < told.size <= len(data)
        assert (told.client is None) == (told.own is None)
        assert isinstance(told.client, IPv4Address | IPv6Address | None)


def test_nobody_is_trusted() -> None:
    """Whoever starts it is told that nobody will be answered there."""
    config = Config(listen=(Listen("haproxy:tcp:8650:interface=127.0.0.1"), Listen("haproxy:unix:/run/x.sock")))
    (line,) = warnings(config, {}, ())
    assert "--trust-proxy" in line
    assert "unix" not in line


def test_a_real_one(tmp_path: Path) -> None:
    """Clients are named in the log as the balancer does, on TCP and on a UNIX socket, which is for its owner alone."""
    log, port, path = tmp_path / "log", free_port(), tmp_path / "s"
    listen = ("--listen", f"haproxy:tcp:{port}:interface=127.0.0.1", "--listen", f"haproxy:unix:{path}")
    more = ("--access-log", str(log), "--access-log-format", "json", "--access-log-hits")
    tables = '[registries.npm]\nurl = "http://127.0.0.1:9/"\n'
    allow = ("--trust-proxy", "127.0.0.1", "--allow", "127.0.0.0/8,192.0.2.0/24")
    service = Running(tmp_path, None, *listen, *more, *allow, "--offline", tables=tables)
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        places: list[tuple[socket.AddressFamily, Any]]
        places = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_UNIX, str(path))]
        for family, address in places:
            for header in (first("192.0.2.7"), second("192.0.2.8"), OWN["v1 unknown"], OWN["v2 local"], UNIX):
                with socket.socket(family) as client:
                    client.settimeout(10)
                    client.connect(address)
                    client.sendall(header + ASKED)
                    assert client.recv(1000).startswith(b"HTTP/1.1 504")
        service.stop()
    finally:
        service.kill()
    clients = [json.loads(line)["client"] for line in log.read_text("utf-8").splitlines()]
    named = ["192.0.2.7", "192.0.2.8"]
    assert clients == [*named, *["127.0.0.1"] * 3, *named, *[None] * 3]
