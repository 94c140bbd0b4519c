"""
An upstream some milliseconds away: a tree of files from memory, as little work an answer as can be.

    python -m benchmarks.late PORT MILLISECONDS TREE [URL]

Every URL of the tree's own, if given, is one of this server in its pages. ``/-/asked`` is all paths that were asked for
since it was last asked for, in order, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

__all__ = ["main"]

_KINDS = {"simple": "application/vnd.pypi.simple.v1+json", "npm": "application/json"}


class Pages:
    """What is published, and what was asked for."""

    def __init__(self, tree: Path, old: str, new: str) -> None:
        self.asked: list[str] = []
        self._answers: dict[str, bytes] = {}
        for file in tree.rglob("*"):
            if file.is_file() and file.suffix != ".gz" and file.parts[len(tree.parts)] != "files":
                self._add(file, file.relative_to(tree).as_posix(), old, new)

    def _add(self, file: Path, path: str, old: str, new: str) -> None:
        body, kind = file.read_bytes(), "application/octet-stream"
        if file.suffix == ".json":
            kind = _KINDS.get(path.partition("/")[0], kind)
            body = body.replace(old.encode(), new.encode()) if old else body
            path = path.removesuffix(".json").removesuffix("/index") + ("/" if path.startswith("simple") else "")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._answers[f"/{path}"] = head.encode() + body

    def answer(self, path: str) -> bytes:
        """The whole answer."""
        if path == "/-/asked":
            body = json.dumps(self.asked).encode()
            self.asked.clear()
            return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
                len(body),
                body,
            )
        self.asked.append(path)
        return self._answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


class Connection(asyncio.Protocol):
    """One client, who asks for one thing at a time."""

    def __init__(self, pages: Pages, latency: float) -> None:
        self._pages, self._latency, self._rest = pages, latency, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole request after the latency."""
        self._rest += data
        while b"\r\n\r\n" in self._rest:
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            answer = self._pages.answer(head.split(b" ", 2)[1].decode())
            if self._latency:
                asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def serve(port: int, latency: float, pages: Pages) -> None:
    """Until somebody ends it."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(pages, latency), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    """As the command line says."""
    port, milliseconds, tree, *old = sys.argv[1:]
    pages = Pages(Path(tree), old[0] if old else "", f"http://127.0.0.1:{port}/")
    asyncio.run(serve(int(port), float(milliseconds) / 1000, pages))


if __name__ == "__main__":
    main()
