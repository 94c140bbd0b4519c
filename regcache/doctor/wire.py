"""
One small request, step by step, so that each step can be told of: name, connection, tunnel, TLS, answer.

Blocking and bounded: every step has what is left of one deadline.
"""

from __future__ import annotations

import email.parser
import email.policy
import socket
import ssl
import time
from collections.abc import Sequence
from email.message import Message
from typing import Any, Protocol

from attrs import frozen

from regcache.http.proxies import Proxy

__all__ = ["Answer", "Plain", "Secure", "Stream", "connected", "exchanged", "tunnelled"]

#: Bytes of the head of an answer.
_MOST_HEAD = 64 << 10


@frozen
class Answer:
    """
    The head of an answer.

    :ivar at: when it came, by the wall clock.
    """

    status: int
    fields: Message
    at: float


class Stream(Protocol):
    """Bytes both ways."""

    def send(self, data: bytes) -> None:
        """Send all of it."""

    def recv(self) -> bytes:
        """What comes next; empty at the end."""


class Plain:
    """
    A TCP connection.

    :param until: the deadline, on the monotonic clock.
    """

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._socket, self._until = sock, until

    def _hurry(self) -> None:
        self._socket.settimeout(max(self._until - time.monotonic(), 0.001))

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._hurry()
        self._socket.sendall(data)

    def recv(self) -> bytes:
        """What comes next; empty at the end."""
        self._hurry()
        return self._socket.recv(1 << 14)


class Secure:
    """
    TLS over another stream, which may be TLS as well.

    :raises ssl.SSLError: if there is no agreement; its subclass for certificates says why one is not trusted.
    """

    def __init__(self, below: Stream, context: ssl.SSLContext, host: str) -> None:
        self._below = below
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        try:
            while not self._agreed():
                self._fill()
        finally:
            self._flush()

    def _agreed(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _flush(self) -> None:
        if data := self._out.read():
            self._below.send(data)

    def _fill(self) -> None:
        self._flush()
        data = self._below.recv()
        if not data:
            raise ConnectionResetError("It closed the connection in the middle of the TLS handshake.")
        self._in.write(data)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.tls.write(data)
        self._flush()

    def recv(self) -> bytes:
        """What comes next; empty at the end."""
        while True:
            try:
                return self.tls.read(1 << 14)
            except ssl.SSLWantReadError:
                data = self._below.recv()
                if not data:
                    return b""
                self._in.write(data)
            except ssl.SSLZeroReturnError:
                return b""


def connected(addresses: Sequence[tuple[socket.AddressFamily, tuple[Any, ...]]], until: float) -> socket.socket:
    """
    A connection to the first address that takes one.

    :raises OSError: what the last one said.
    """
    last: OSError = OSError("It has no address.")
    for number, (family, address) in enumerate(addresses):
        sock = socket.socket(family, socket.SOCK_STREAM)
        # One that says nothing leaves time for the others.
        sock.settimeout(max((until - time.monotonic()) / (len(addresses) - number), 0.001))
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = error
            continue
        return sock
    raise last


def tunnelled(stream: Stream, proxy: Proxy, authority: str) -> Answer:
    """Have a proxy connect us to a host (RFC 9110 section 9.3.6)."""
    return exchanged(stream, "CONNECT", authority, authority, proxy)


def exchanged(stream: Stream, method: str, target: str, host: str, proxy: Proxy | None = None) -> Answer:
    """
    The head of what is answered.

    :raises ValueError: if that is no HTTP.
    :raises OSError: if the connection ends before.
    """
    fields = {"Host": host, "User-Agent": "regcache-doctor", "Accept": "*/*"}
    if method != "CONNECT":
        fields["Connection"] = "close"
    if proxy is not None and proxy.authorization:
        fields["Proxy-Authorization"] = proxy.authorization
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    stream.send(f"{head}\r\n".encode("latin-1"))
    came = b""
    while b"\r\n\r\n" not in came:
        more = stream.recv()
        if not more:
            raise ConnectionResetError("It closed the connection without an answer.")
        came += more
        if len(came) > _MOST_HEAD:
            raise ValueError("The head of its answer has no end.")
    at = time.time()
    line, _, rest = came.partition(b"\r\n\r\n")[0].partition(b"\r\n")
    version, _, status = line.decode("latin-1").partition(" ")
    if not version.startswith("HTTP/") or not status[:3].isdigit():
        raise ValueError("Its answer is no HTTP.")
    fields_read = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(rest + b"\r\n\r\n", headersonly=True)
    return Answer(int(status[:3]), fields_read, at)
