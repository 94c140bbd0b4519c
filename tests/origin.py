"""A registry on loopback under a test's control: pypi and npm in their real formats, with real packages."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import re
import ssl
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name

__all__ = ["Origin"]

Answer = tuple[int, str, bytes]


def metadata(name: str, version: str, requires: Iterable[str] = ()) -> bytes:
    """What a wheel says of itself."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    return "\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires), ""]).encode()


def wheel(name: str, version: str, requires: Iterable[str] = ()) -> bytes:
    """A wheel that installs."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n".encode(),
        f"{info}/METADATA": metadata(name, version, requires),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}")
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2024, 1, 1, 0, 0, 0)), data)
    return sink.getvalue()


def tarball(
    name: str, version: str, more: Mapping[str, bytes] | None = None, requires: Mapping[str, str] | None = None
) -> bytes:
    """A package that npm installs."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for path, data in {
            "package/package.json": json.dumps({"name": name, "version": version, **_dependencies(requires)}).encode(),
            "package/index.js": b"module.exports = 1\n",
            **{f"package/{path}": data for path, data in (more or {}).items()},
        }.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(sink.getvalue(), mtime=0)


def _dependencies(requires: Mapping[str, str] | None) -> dict[str, Any]:
    return {"dependencies": dict(requires)} if requires else {}


class _Server(ThreadingHTTPServer):
    """Takes a burst of connections."""

    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is nothing to report."""
        del request, client_address


class Origin:
    """
    The server. It listens from its making until ``close``.

    :ivar asked: every path asked for, in order.
    :ivar heads: the fields of each request, likewise.
    :ivar sent: of each answer its path, its status (200 for a part, too) and how many bytes it had.
    :ivar spoil: changes each answer before it is sent; does nothing at first.
    :ivar trouble: says of each path whether it is to ``hang`` without an answer, to be ``cut`` in mid-body, or to come
        with its length ``unannounced``.
    :ivar latency: seconds that pass before each answer.
    :ivar lasting: whether connections are kept open after an answer.
    :ivar rate: bytes a second at which bodies are sent; 0 for as fast as it goes.
    :param tls: speak TLS, as ``localhost``.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.heads: list[dict[str, str]] = []
        self.sent: list[tuple[str, int, int]] = []
        self.spoil: Callable[[str, Answer], Answer] = lambda _path, answer: answer
        self.trouble: Callable[[str], str] = lambda _path: ""
        self.latency = 0.0
        self.rate = 0
        self.lasting = True
        self._released = threading.Event()
        self._pages: dict[str, Answer] = {}
        self._fields: dict[str, dict[str, str]] = {}
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = 1 << 16

            def do_GET(self) -> None:
                origin.asked.append(self.path)
                origin.heads.append(dict(self.headers))
                trouble = origin.trouble(self.path)
                self.close_connection = self.close_connection or not origin.lasting
                if trouble == "hang":
                    self.close_connection = True
                    origin._released.wait(120)
                    return
                time.sleep(origin.latency)
                status, kind, body = origin.spoil(
                    self.path, origin._pages.get(self.path, (404, "text/plain", b"none\n"))
                )
                fields = origin._fields.get(self.path, {}) if status == 200 else {}
                if self.headers.get("If-None-Match", "") == fields.get("ETag"):
                    status, body = 304, b""
                wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if status == 200 and wanted is not None:
                    self.send_response(206)
                    stop = int(wanted[2]) + 1 if wanted[2] else len(body)
                    self.send_header("Content-Range", f"bytes {wanted[1]}-{stop - 1}/{len(body)}")
                    body = body[int(wanted[1]) : stop]
                else:
                    self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name, value)
                origin.sent.append((self.path, status, len(body)))
                self.send_header("Content-Type", kind)
                if trouble == "unannounced":
                    self.close_connection = True
                else:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if trouble == "cut":
                    self.close_connection = True
                    body = body[: len(body) // 2]
                if self.command != "HEAD":
                    self.send_slowly(body)

            def send_slowly(self, body: bytes) -> None:
                began, piece = time.monotonic(), 1 << 16
                with contextlib.suppress(ConnectionError):
                    for at in range(0, len(body), piece):
                        if origin.rate:
                            time.sleep(max(0.0, began + at / origin.rate - time.monotonic()))
                        self.wfile.write(body[at : at + piece])
                        # Nobody waits for the next piece to have the whole of this one.
                        self.wfile.flush()

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                del format, args

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        if tls is not None:
            # Not while accepting, where one who says nothing would stop all.
            self._server.socket = tls.wrap_socket(self._server.socket, True, do_handshake_on_connect=False)
            self.url = f"https://localhost:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop listening, and let go whoever hangs."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def add_wheel(self, name: str, version: str, requires: Iterable[str] = (), *, sidecar: bool = False) -> str:
        """Publish a project with one wheel, with its metadata beside it as a ``sidecar`` or not; its path."""
        data = wheel(name, version, requires)
        blake = hashlib.blake2b(data, digest_size=32).hexdigest()
        file = f"{name}-{version}-py3-none-any.whl"
        path = f"/packages/{blake[:2]}/{blake[2:4]}/{blake[4:]}/{file}"
        hashes = {"sha256": hashlib.sha256(data).hexdigest()}
        entry: dict[str, Any] = {
            "filename": file,
            "url": self.url.rstrip("/") + path,
            "hashes": hashes,
            "size": len(data),
        }
        if sidecar:
            beside = metadata(name, version, requires)
            entry["core-metadata"] = {"sha256": hashlib.sha256(beside).hexdigest()}
            self.add(f"{path}.metadata", beside)
        page = {"meta": {"api-version": "1.1"}, "name": name, "versions": [version], "files": [entry]}
        self._pages[f"/simple/{canonicalize_name(name)}/"] = (
            200,
            "application/vnd.pypi.simple.v1+json",
            json.dumps(page).encode(),
        )
        self._pages[path] = (200, "binary/octet-stream", data)
        return path

    def add_tarball(
        self,
        name: str,
        version: str,
        more: Mapping[str, bytes] | None = None,
        requires: Mapping[str, str] | None = None,
    ) -> str:
        """Publish an npm package with one version; its tarball's path."""
        data = tarball(name, version, more, requires)
        page = "/" + quote(name, safe="@")
        path = f"/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        dist = {
            "tarball": self.url.rstrip("/") + path,
            "shasum": hashlib.sha1(data).hexdigest(),
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
        }
        manifest = {"name": name, "version": version, "dist": dist, **_dependencies(requires)}
        packument = {"name": name, "dist-tags": {"latest": version}, "versions": {version: manifest}}
        packument["time"] = dict.fromkeys(("created", "modified", version), "2024-01-01T00:00:00.000Z")
        self._pages[page] = (200, "application/json", json.dumps(packument).encode())
        self._pages[f"{page}/{version}"] = (200, "application/json", json.dumps(manifest).encode())
        self._pages[path] = (200, "application/octet-stream", data)
        return path

    def add(self, path: str, body: bytes, kind: str = "application/octet-stream", **fields: str) -> None:
        """Publish any body, with more header fields; one whose ETag a client has is not sent again."""
        self._pages[path] = (200, kind, body)
        self._fields[path] = {name.replace("_", "-"): value for name, value in fields.items()}

    def body(self, path: str) -> bytes:
        """What is published there."""
        return self._pages[path][2]
