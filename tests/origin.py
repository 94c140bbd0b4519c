"""A registry on loopback under a test's control: pypi and npm in their real formats, with real packages."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Origin"]

Answer = tuple[int, str, bytes]


def wheel(name: str, version: str) -> bytes:
    """A wheel that installs."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n".encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
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


def tarball(name: str, version: str) -> bytes:
    """A package that npm installs."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for path, data in {
            "package/package.json": json.dumps({"name": name, "version": version}).encode(),
            "package/index.js": b"module.exports = 1\n",
        }.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


class Origin:
    """
    The server. It listens from its making until ``close``.

    :ivar asked: every path asked for, in order.
    :ivar spoil: changes each answer before it is sent; does nothing at first.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.spoil: Callable[[str, Answer], Answer] = lambda _path, answer: answer
        self._pages: dict[str, Answer] = {}
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                origin.asked.append(self.path)
                status, kind, body = origin.spoil(
                    self.path, origin._pages.get(self.path, (404, "text/plain", b"none\n"))
                )
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def add_wheel(self, name: str, version: str) -> str:
        """Publish a project with one wheel; its path."""
        data = wheel(name, version)
        blake = hashlib.blake2b(data, digest_size=32).hexdigest()
        file = f"{name}-{version}-py3-none-any.whl"
        path = f"/packages/{blake[:2]}/{blake[2:4]}/{blake[4:]}/{file}"
        hashes = {"sha256": hashlib.sha256(data).hexdigest()}
        entry = {"filename": file, "url": self.url.rstrip("/") + path, "hashes": hashes, "size": len(data)}
        page = {"meta": {"api-version": "1.1"}, "name": name, "versions": [version], "files": [entry]}
        self._pages[f"/simple/{name}/"] = (200, "application/vnd.pypi.simple.v1+json", json.dumps(page).encode())
        self._pages[path] = (200, "binary/octet-stream", data)
        return path

    def add_tarball(self, name: str, version: str) -> str:
        """Publish an npm package with one version; its tarball's path."""
        data = tarball(name, version)
        path = f"/{name}/-/{name}-{version}.tgz"
        dist = {
            "tarball": self.url.rstrip("/") + path,
            "shasum": hashlib.sha1(data).hexdigest(),
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
        }
        manifest = {"name": name, "version": version, "dist": dist}
        packument = {"name": name, "dist-tags": {"latest": version}, "versions": {version: manifest}}
        self._pages[f"/{name}"] = (200, "application/json", json.dumps(packument).encode())
        self._pages[f"/{name}/{version}"] = (200, "application/json", json.dumps(manifest).encode())
        self._pages[path] = (200, "application/octet-stream", data)
        return path

    def body(self, path: str) -> bytes:
        """What is published there."""
        return self._pages[path][2]
