"""Files leave through the kernel, in turns, and arrive as they are."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor, threads
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from regcache.errors import BlobDamaged
from regcache.flow.reply import Reply
from regcache.flow.sending import Sender
from regcache.http.messages import Headers
from regcache.store.blobs import File, FileBody

BODY = os.urandom(1 << 20) * 7 + b"the end"


def body_in(directory: Path, data: bytes = BODY) -> FileBody:
    """A stored body, open."""
    path = directory / "body"
    path.write_bytes(data)

    def opened() -> FileBody:
        return FileBody(File(os.open(path, os.O_RDONLY)), len(data), maybeDeferred, opened)

    return opened()


class Page(Resource):
    """One file, sent by a sender."""

    isLeaf = True

    def __init__(self, body: FileBody) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.body = body
        self.senders: list[Sender] = []

    def render(self, request: Any) -> int:
        request.setHeader(b"content-length", b"%d" % len(BODY))
        reply = Reply(status=200, headers=Headers(), body=self.body, stop=len(BODY))
        self.senders.append(Sender(reactor, request, reply))
        self.senders[-1].start()
        return NOT_DONE_YET


class Serving(TestCase):
    """A page on a port, asked from a thread."""

    def setUp(self) -> None:
        self.sendfile, self.sent = os.sendfile, [0]
        self.patch(os, "sendfile", self.counting)  # type: ignore[no-untyped-call]
        self.page = Page(body_in(Path(tempfile.mkdtemp())))
        site: Any = Site(self.page)
        self.port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    def counting(self, *args: Any) -> int:
        sent = self.sendfile(*args)
        self.sent.append(sent)
        return sent

    def asked(self) -> bytes:
        """All that comes on a connection, read by a client that is slow at first."""
        with socket.create_connection(("127.0.0.1", self.port.getHost().port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            pieces: list[bytes] = []
            with contextlib.suppress(ConnectionResetError):
                while piece := client.recv(9999 if len(pieces) < 100 else 1 << 20):
                    pieces.append(piece)
        return b"".join(pieces)

    async def test_a_file_leaves_through_the_kernel(self) -> None:
        """All of it, in order, whatever the socket takes at a time."""
        head, _, body = (await threads.deferToThread(self.asked)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert body == BODY
        assert sum(self.sent) == len(BODY)
        assert len(self.sent) > 2, "it was one turn"
        assert self.page.senders[0].sent == len(BODY)

    async def test_one_that_is_cut_short_fails(self) -> None:
        """The client sees the end before the length it was told."""
        os.truncate(f"/proc/self/fd/{self.page.body._file.fd}", 3 << 20)  # type: ignore[union-attr]
        head, _, body = (await threads.deferToThread(self.asked)).partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(BODY) in head
        assert body == BODY[: len(body)]
        assert len(body) <= 3 << 20


def test_what_is_not_in_memory_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk is read in a thread, once, and then the kernel has it."""
    jobs: list[Any] = []
    body = body_in(tmp_path)

    def in_thread(*job: Any) -> Deferred[Any]:
        jobs.append(job)
        return Deferred()

    body._in_thread = in_thread
    monkeypatch.setattr(File, "is_warm", lambda *_: False)
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        waiting = body.send(left.fileno(), 5, 1000)
        assert isinstance(waiting, Deferred)
        ((work, *args),) = jobs
        work(*args)
        assert body.send(left.fileno(), 5, 1000) == 1000
        assert right.recv(2000) == BODY[5:1005]
        assert isinstance(body.send(left.fileno(), 1005, 1000), Deferred)
        monkeypatch.setattr(File, "is_warm", lambda *_: True)
        total = 0
        while sent := body.send(left.fileno(), 0, len(BODY)):
            assert isinstance(sent, int)
            total += sent
        assert 0 < total < len(BODY), "a socket that is full takes nothing"
    body.close()
    with pytest.raises(BlobDamaged):
        body.send(0, 0, 1)
