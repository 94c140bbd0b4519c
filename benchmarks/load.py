"""The clients: wrk for many small answers, readers of whole bodies for large ones, and single requests to check."""

from __future__ import annotations

import gzip
import http.client
import json
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from attrs import frozen

__all__ = ["PIP", "Answer", "Download", "Load", "WrongAnswer", "download", "get", "wrk"]

#: What pip sends with every request.
PIP = {
    "Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
    "Accept-Encoding": "gzip, deflate",
}
_DONE = Path(__file__).with_name("done.lua")
_LINE = 1 << 16


class WrongAnswer(Exception):
    """A server answered something else than it should: nothing measured of it counts."""


@frozen
class Load:
    """What came back within a time: ``p99`` is in seconds, ``received`` in bytes, heads included."""

    requests: int
    seconds: float
    received: int
    p99: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def wrk(url: str, connections: int, seconds: float, headers: Mapping[str, str], script: str = "") -> Load:
    """
    Ask for that URL on so many connections.

    :param script: more Lua, such as what makes each request.
    :raises WrongAnswer: if any answer was an error, or none at all.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(seconds, 1):.0f}s", "--timeout", "60s"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(_DONE.read_text() + script)
        file.flush()
        command += ["-s", file.name, url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if found["refused"] or found["broken"] or not found["requests"]:
        raise WrongAnswer(f"{url}: {found['refused']} errors, {found['broken']} broken of {found['requests']}")
    return Load(found["requests"], found["microseconds"] / 1e6, found["bytes"], found["p99"] / 1e6)


@frozen
class Answer:
    """A whole answer; ``sent`` is the body as it came, ``body`` what it says."""

    status: int
    headers: http.client.HTTPMessage
    sent: bytes
    body: bytes


def get(url: str, headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a connection of its own, its body unpacked."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        connection.request("GET", parts.path, headers=dict(headers or {}))
        response = connection.getresponse()
        raw = response.read()
        body = gzip.decompress(raw) if response.headers.get("Content-Encoding") == "gzip" else raw
        return Answer(response.status, response.headers, raw, body)
    finally:
        connection.close()


@frozen
class Download:
    """
    Bodies read by one client or several at once.

    :ivar first: seconds until the first byte of a body, the median of the clients.
    """

    received: int
    seconds: float
    first: float

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.received / self.seconds


class _Reader:
    """One client that reads one body after the other, and looks only at how much it is."""

    def __init__(self, url: str, size: int, sink: BinaryIO | None) -> None:
        self._sink = sink
        parts = urlsplit(url)
        self._ask = f"GET {parts.path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n".encode()
        self._size, self._left, self._head = size, 0, b""
        self.firsts: list[float] = []
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80))
        self.ask()

    def ask(self) -> None:
        """Begin the next body."""
        self._left, self._head, self._began = 0, b"", time.monotonic()
        self.socket.sendall(self._ask)

    def read(self, buffer: bytearray) -> int:
        """Take what is there, of this body at most; how many bytes of bodies."""
        if not self._left:
            return self._read_head()
        # The kernel drops what nobody keeps: the clients share the machine with what is measured.
        flags = 0 if self._sink else socket.MSG_TRUNC
        got = self.socket.recv_into(buffer, min(self._left, len(buffer)), flags)
        if self._sink:
            self._sink.write(memoryview(buffer)[:got])
        if not got:
            raise WrongAnswer(f"a body ended {self._left} bytes early")
        self._left -= got
        return got

    def _read_head(self) -> int:
        more = self.socket.recv(_LINE)
        if not more:
            raise WrongAnswer("the connection ended before an answer")
        self._head += more
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return 0
        if not head.startswith(b"HTTP/1.1 200") or f"content-length: {self._size}".encode() not in head.lower():
            raise WrongAnswer(head.decode("latin-1"))
        self.firsts.append(time.monotonic() - self._began)
        self._head, self._left = head + end, self._size - len(body)
        return len(body)

    @property
    def idle(self) -> bool:
        """Whether a whole body has come."""
        return self._left == 0 and self._head.endswith(b"\r\n\r\n")


def download(
    url: str,
    size: int,
    clients: int = 1,
    seconds: float = 0,
    watch: Callable[[], object] | None = None,
    sink: BinaryIO | None = None,
) -> Download:
    """
    Read that body, again and again for so long; once each when ``seconds`` is 0.

    :param watch: what to do beside it, every tenth of a second.
    :param sink: where the bodies are written, as installers do; else they are dropped.
    :raises WrongAnswer: if an answer is no 200 of that size, or ends early.
    """
    selector = selectors.DefaultSelector()
    began = time.monotonic()
    readers: Sequence[_Reader] = [_Reader(url, size, sink) for _ in range(clients)]
    for one in readers:
        selector.register(one.socket, selectors.EVENT_READ, one)
    buffer, received, busy, looked = bytearray(1 << 20), 0, clients, began
    while busy and not (seconds and time.monotonic() - began > seconds):
        events = selector.select(30)
        if not events:
            raise WrongAnswer(f"{url}: nothing came for 30 seconds")
        if watch is not None and time.monotonic() - looked > 0.1:
            looked = time.monotonic()
            watch()
        for key, _ in events:
            reader: _Reader = key.data
            received += reader.read(buffer)
            if reader.idle and seconds:
                reader.ask()
            elif reader.idle:
                selector.unregister(reader.socket)
                busy -= 1
    took = time.monotonic() - began
    firsts = sorted(first for one in readers for first in one.firsts)
    for one in readers:
        one.socket.close()
    return Download(received, took, firsts[len(firsts) // 2] if firsts else took)
