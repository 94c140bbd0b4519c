"""An HTTP server whose answers are raw bytes that the test writes, one after the other, for each path."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections import defaultdict
from typing import Any

from attrs import frozen

__all__ = ["CLOSE", "Heard", "Scripted", "answer"]

#: In place of an answer: the connection is closed.
CLOSE = b""


@frozen
class Heard:
    """One request as it came: fields by name in lower case, all their lines."""

    method: str
    fields: dict[str, list[str]]
    body: bytes


def answer(*lines: str, body: bytes = b"", status: str = "200 OK", length: bool = True) -> bytes:
    """An answer, with the length of its body unless that is to be left out."""
    head = [f"HTTP/1.1 {status}", *lines, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


class Scripted:
    """
    The server. It listens on loopback from its making until :meth:`close`.

    :ivar heard: the requests, by path.
    """

    def __init__(self) -> None:
        self.heard: dict[str, list[Heard]] = defaultdict(list)
        self._answers: dict[str, list[bytes]] = {}
        script = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    while script._serve(self.rfile, self.wfile):
                        pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def says(self, path: str, *answers: bytes) -> None:
        """What is answered there, in this order; the last again and again."""
        self._answers[path] = list(answers)

    def _serve(self, reading: Any, writing: Any) -> bool:
        first = reading.readline().decode("latin-1").split(" ")
        if len(first) != 3:
            return False
        fields: dict[str, list[str]] = defaultdict(list)
        while (line := reading.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = line.partition(":")
            fields[name.lower()].append(value.strip())
        body = reading.read(int(fields.get("content-length", ["0"])[0]))
        self.heard[first[1]].append(Heard(first[0], dict(fields), body))
        answers = self._answers.get(first[1], [answer(status="404 Not Found")])
        data = answers.pop(0) if len(answers) > 1 else answers[0]
        writing.write(data)
        writing.flush()
        head = data.rpartition(b"HTTP/1.")[2].lower()
        framed = b"content-length:" in head or b"transfer-encoding: chunked" in head or head[2:5] in (b"304", b"204")
        return framed and b"connection: close" not in head

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
