"""A load on the service: many clients in one process, and what the service takes for them."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.service import Running

__all__ = ["Client", "Usage", "connect", "descriptors_for", "latencies", "memory", "open_files", "percentile"]


def descriptors_for(number: int) -> None:
    """See that this process, and the service it starts, may have so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= number, f"{number} descriptors are needed: ulimit -Hn"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))


def processes(service: Running) -> list[int]:
    """The service and its helper."""
    pid = service.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def memory(service: Running) -> int:
    """Bytes that the service has in memory, its helper included."""
    found = 0
    for pid in processes(service):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/status").read_text()
            found += int(text.partition("VmRSS:")[2].split()[0]) << 10
    return found


def open_files(service: Running) -> list[str]:
    """What its descriptors lead to."""
    found = []
    for path in Path(f"/proc/{service.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return sorted(found)


def connect(service: Running, address: str = "127.0.0.1", buffer: int = 0) -> socket.socket:
    """A connection of that address, with a receive buffer of that many bytes."""
    made = socket.socket()
    if buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    made.settimeout(30)
    made.bind((address, 0))
    made.connect(("127.0.0.1", urlsplit(service.url).port or 80))
    return made


def request(path: str, *lines: str, method: str = "GET") -> bytes:
    """A request, as bytes."""
    return "\r\n".join([f"{method} /{path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


class Client:
    """One kept connection that asks and reads."""

    def __init__(self, service: Running, address: str = "127.0.0.1") -> None:
        self.socket = connect(service, address)
        self._rest = b""

    def get(self, path: str, *lines: str) -> tuple[int, bytes]:
        """Status and body, of an answer with a length."""
        self.socket.sendall(request(path, *lines))
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._more()
        head, _, body = self._rest.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(body) < length:
            body += self._more()
        self._rest = body[length:]
        return int(head.split()[1]), body[:length]

    def _more(self) -> bytes:
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise ConnectionError("it was closed")
        return piece

    def close(self) -> None:
        """End it."""
        self.socket.close()


def latencies(service: Running, path: str, number: int) -> list[float]:
    """Seconds that each of so many requests took, one after the other."""
    client, found = Client(service, "127.0.0.9"), []
    for _ in range(number):
        began = time.perf_counter()
        assert client.get(path)[0] == 200
        found.append(time.perf_counter() - began)
    client.close()
    return sorted(found)


def percentile(sorted_values: list[float], part: float) -> float:
    """The value below which that part of them lies."""
    return sorted_values[min(int(len(sorted_values) * part), len(sorted_values) - 1)]


class Usage:
    """What the service takes more than when this was made."""

    def __init__(self, service: Running) -> None:
        self._service = service
        self._memory, self._files = memory(service), len(open_files(service))

    def more(self) -> tuple[int, int]:
        """Bytes and descriptors."""
        return memory(self._service) - self._memory, len(open_files(self._service)) - self._files


@contextlib.contextmanager
def drip(sockets: list[socket.socket], piece: int) -> Iterator[selectors.BaseSelector]:
    """Reads a little of each that has something."""
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ, piece)
        yield selector
