"""The service as its users run it, before every fault that can be made from without, and cut at every byte."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import TestCase

from tests.fault_lab import Reply, ask
from tests.fault_table import FAULTS, Fault
from tests.faulty import INDEX_TYPE, Asked, End, Faulty, Page, Step, wire
from tests.service import Running

#: Those that are nothing but what the registry sends, but one: from without, a minute is a minute.
SENT = [one for one in FAULTS if (one.script is not None or one.refuses) and one.name != "the body trickles"]
HOST = "127.0.0.1"
#: Descriptors that come and go: connections kept to the registry, the index's files, pipes of helper processes.
MOST_MORE = 12


class Process(TestCase):
    """A process of its own, whose descriptors are counted from without."""

    timeout = 120

    async def start(self, *waits: str) -> None:
        """Start the registry and the service; the options say how long it waits for what does not come."""
        started: Deferred[None] = Deferred()
        reactor.callLater(0, started.callback, None)
        await started
        directory = tempfile.TemporaryDirectory(prefix="regcache-test-")
        self.addCleanup(directory.cleanup)
        self.registry = Faulty(reactor)
        self.registry.listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.registry.refuse()))
        url = self.registry.url(HOST)
        tables = f'[registries.pypi]\nurl = "{url}simple/"\nfiles = "{url}"\n'
        options = (*waits, "--refresh-after", "1ms", "--negative-ttl", "1ms", "--max-index-size", "4M")
        # It has no use for an origin where the tables are given.
        self.service = Running(Path(directory.name), cast(Any, None), *options, tables=tables)
        self.addCleanup(self.service.kill)
        self.said: list[str] = []
        # What it logs must be read, or it waits for that.
        self.reading = threading.Thread(target=lambda: self.said.extend(self.service.process.stdout or ()))
        self.reading.start()
        self.partial = Path(directory.name) / "cache" / "partial"
        self.port = urlsplit(self.service.url).port or 0

    def stop(self) -> None:
        """End it in order: nothing that it said is the report of a bug."""
        self.service.process.terminate()
        assert self.service.process.wait(20) in (0, -signal.SIGTERM)
        self.reading.join()
        assert "Traceback" not in "".join(self.said), self.said

    def ask(self, path: str) -> Deferred[Reply]:
        """What a client gets."""
        return ask(reactor, self.port, f"pypi/{path}", Accept=INDEX_TYPE)

    def descriptors(self) -> int:
        """How many the service has open."""
        return len(os.listdir(f"/proc/{self.service.process.pid}/fd"))

    async def until_clean(self) -> None:
        """Wait until no body is under way."""
        for _ in range(5000):
            if not list(self.partial.iterdir()):
                return
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.002, turn.callback, None)
            await turn
        raise AssertionError(f"left behind: {list(self.partial.iterdir())}")

    async def test_every_fault(self) -> None:
        """One after the other, five clients each: none hangs, nothing is left, and all is well afterwards."""
        await self.start("--upstream-timeout", "150ms", "--cold-timeout", "300ms", "--idle-timeout", "400ms")
        body = self.registry.publish("good", HOST)
        for path in ("simple/good/", "packages/good-1.0.tar.gz"):
            assert (await self.ask(path)).status == 200
        await self.until_clean()
        before = self.descriptors()
        for number, fault in enumerate(SENT):
            await self.under(fault, f"name{number}", body)
        await self.until_clean()
        assert self.descriptors() <= before + MOST_MORE
        for number in range(len(SENT)):
            path = f"packages/name{number}-1.0.tar.gz"
            replies = [await self.ask(path) for _ in range(2)]
            assert replies[-1].status == 200, (SENT[number].name, replies)
        self.stop()

    async def under(self, fault: Fault, name: str, body: bytes) -> None:
        self.registry.publish(name, HOST)
        self.registry.script = fault.script
        if fault.refuses:
            await self.registry.refuse()
        paths = [f"simple/{name}/", f"packages/{name}-1.0.tar.gz", "packages/good-1.0.tar.gz", "simple/good/"]
        asking: Any = DeferredList([self.ask(path) for path in [*paths, paths[1]]])
        replies: list[Reply] = [reply for _, reply in await asking]
        assert (replies[2].status, replies[2].body) == (200, body), fault.name
        assert replies[3].status in (200, 404), fault.name
        assert 500 not in {reply.status for reply in replies}, fault.name
        self.registry.script = None
        self.registry.listen()

    async def test_cut_at_every_byte(self) -> None:
        """Wherever an index or the head of an artifact is cut, no client takes it for the whole."""
        await self.start()
        at = 0

        def script(asked: Asked, page: Page) -> list[Step]:
            return [wire(asked, page)[:at], End.CLOSE]

        self.registry.script = script
        self.registry.publish("short", HOST)
        whole = len(wire(Asked("GET", "", {}), self.registry.page("/simple/short/")))
        for at in range(whole):
            reply = await self.ask("simple/short/")
            assert reply.status == 502, at
        for at in range(0, whole, 3):
            reply = await self.ask("packages/short-1.0.tar.gz")
            assert reply.status != 200 or not reply.whole, at
        at = 1 << 20
        assert (await self.ask("packages/short-1.0.tar.gz")).status == 200
        self.stop()
