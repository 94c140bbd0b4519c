"""A forward proxy on loopback under a test's control, on real sockets: CONNECT, and requests in absolute form."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import socketserver
import ssl
import threading
from typing import Any

__all__ = ["ForwardProxy"]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is nothing to report."""
        del request, client_address


class ForwardProxy:
    """
    The proxy. It listens from its making until ``close``.

    :ivar asked: the first line of each request.
    :ivar heads: the fields of each, names in lower case.
    :ivar places: the real host and port of names that nobody but this proxy can look up.
    :ivar answer: sent in place of doing what is asked, if not empty; ``hang`` for nothing at all.
    :ivar passed: bytes that went through tunnels towards registries.
    :param tls: speak TLS, as ``localhost``.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.heads: list[dict[str, str]] = []
        self.places: dict[tuple[str, int], tuple[str, int]] = {}
        self.answer = b""
        self.passed = b""
        self._released = threading.Event()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    proxy._serve(self.request if tls is None else tls.wrap_socket(self.request, True))

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}" if tls is None else f"https://localhost:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening, and let go whoever hangs."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = client.recv(65536)
            if not more:
                return
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        self.asked.append(line)
        self.heads.append({name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)})
        if self.answer == b"hang":
            self._released.wait(60)
            return
        if self.answer:
            client.sendall(self.answer)
            return
        method, target, _ = line.split(" ")
        if method == "CONNECT":
            with self._reach(target) as there:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self._pipe(client, there)
            return
        found = re.fullmatch(r"http://([^/]+)(/.*)", target)
        assert found is not None, target
        kept = [one for one in fields if not one.lower().startswith(("proxy-", "connection:"))]
        with self._reach(found[1]) as there:
            sent = "\r\n".join([f"{method} {found[2]} HTTP/1.1", *kept, "Connection: close", "", ""])
            there.sendall(sent.encode("latin-1") + rest)
            self._pipe(client, there)

    def _reach(self, place: str) -> socket.socket:
        host, _, port = place.rpartition(":")
        host, number = (host, int(port)) if host else (place, 80)
        host = host.strip("[]")
        return socket.create_connection(self.places.get((host, number), (host, number)), 10)

    def _pipe(self, client: socket.socket, there: socket.socket) -> None:
        while True:
            # What TLS has decrypted already no longer stands at the socket.
            waiting = isinstance(client, ssl.SSLSocket) and client.pending()
            readable = [client] if waiting else select.select([client, there], [], [], 30)[0]
            if not readable:
                return
            for one in readable:
                data = one.recv(65536)
                if not data:
                    return
                if one is client:
                    self.passed += data
                    there.sendall(data)
                else:
                    client.sendall(data)
