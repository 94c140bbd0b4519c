"""The helper processes that read documents."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from regcache.errors import BadDocument, TooBusy, UpstreamError
from regcache.flow import derive, helpers, large
from regcache.flow.derive import SMALL, VAST, Derived, InlineDeriver, Job
from regcache.flow.facts import decode_facts
from regcache.flow.helpers import ProcessDeriver
from regcache.routes import RegistryOptions, Source

OPTIONS = RegistryOptions(name="pypi", type="pypi", url="http://index.test/simple/")
JSON, HTML = "application/vnd.pypi.simple.v1+json", "text/html"


def job(body: bytes, kind: str = JSON, **more: Any) -> Job:
    """A project's page to be read."""
    source = Source(body=body, content_type=kind, url="http://index.test/simple/demo/")
    return Job(options=OPTIONS, document="simple/demo", source=source, facts=True, **more)


def page(number: int) -> bytes:
    """A page of so many files."""
    files = [{"filename": f"demo-{n}.zip", "url": f"demo-{n}.zip", "hashes": {}} for n in range(number)]
    return json.dumps({"meta": {"api-version": "1.0"}, "name": "demo", "files": files}).encode()


class Processes(TestCase):
    """Real processes."""

    def setUp(self) -> None:
        self.deriver = ProcessDeriver(reactor, deferToThread)
        self.addCleanup(self.deriver.stop)

    def pid(self, which: str = "_usual") -> int:
        """Of a helper that runs."""
        pid: int = getattr(self.deriver, which).transport.pid
        return pid

    async def test_what_is_small_needs_no_process(self) -> None:
        """It is read here; but HTML, whatever its size, is not."""
        made = await self.deriver.derive(job(page(3), representation="html"))
        assert len(decode_facts(made.facts)) == 3
        assert b"demo-2.zip" in made.plain
        assert not self.deriver._usual._running
        await self.deriver.derive(job(b'<a href="demo-1.zip">x</a>', HTML))
        assert self.deriver._usual._running

    async def test_options_arrive_as_they_are(self) -> None:
        """Whatever a registry was made with, the helper makes the same."""
        options = RegistryOptions(
            name="pypi", type="pypi", url="http://a/", artifact_hosts=("b",), readers=("r",), extra={"c": "d"}
        )
        several = options.followed_by("http://e/", "http://f/")
        for made in (options, several, several.further[0]):
            sent = Job(options=made, document="x", source=Source(body=b"x", content_type=JSON, url="http://a/x"))
            assert derive.unpack(derive.pack(sent)) == (sent, False)

    async def test_in_order(self) -> None:
        """Each answer to its own question, the errors too."""
        asked = [self.deriver.derive(job(page(number) + b" " * SMALL)) for number in (1, 2, 3)]
        bad = self.deriver.derive(job(b"{}" + b" " * SMALL))
        assert [len(decode_facts((await one).facts)) for one in asked] == [1, 2, 3]
        with pytest.raises(BadDocument):
            await bad

    async def test_what_takes_too_long(self) -> None:
        """It fails, and what waits behind it does not."""
        await self.deriver.derive(job(page(1) + b" " * SMALL))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(helpers, "_JOB_SECONDS", 0.2)
            os.kill(self.pid(), signal.SIGSTOP)
            stuck = self.deriver.derive(job(page(1) + b" " * SMALL))
        # Its time runs; what is behind it has the usual, from when it is begun.
        behind = [self.deriver.derive(job(page(number) + b" " * SMALL)) for number in (1, 2)]
        with pytest.raises(BadDocument, match="longer"):
            await stuck
        assert [len(decode_facts((await one).facts)) for one in behind] == [1, 2]

    async def test_the_largest_hold_nobody_up(self) -> None:
        """They have a process of their own."""
        large = self.deriver.derive(job(page(1) + b" " * (4 << 20)))
        await self.deriver.derive(job(page(1) + b" " * SMALL))
        assert self.pid() != self.pid("_large")
        await large

    async def test_a_process_that_dies(self) -> None:
        """The job is done by another; one that kills two of them is given up, those behind it are not."""
        await self.deriver.derive(job(page(1) + b" " * SMALL))
        os.kill(self.pid(), signal.SIGSTOP)
        asked = [self.deriver.derive(job(page(number) + b" " * SMALL)) for number in (1, 2)]
        before = self.pid()
        os.kill(before, signal.SIGKILL)
        while self.pid() == before:
            await turn()
        os.kill(self.pid(), signal.SIGKILL)
        with pytest.raises(UpstreamError):
            await asked[0]
        assert len(decode_facts((await asked[1]).facts)) == 2

    async def test_a_process_that_dies_when_there_can_be_no_other(self) -> None:
        """Whoever waits is told to come again; there is another as soon as there can be."""
        await self.deriver.derive(job(page(1) + b" " * SMALL))
        os.kill(self.pid(), signal.SIGSTOP)
        asked = [self.deriver.derive(job(page(number) + b" " * SMALL)) for number in (1, 2)]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(self.deriver._usual, "_start", refused)
            os.kill(self.pid(), signal.SIGKILL)
            for each in asked:
                with pytest.raises(TooBusy):
                    await each
        assert self.deriver._usual.waiting_bytes == 0
        await self.deriver.derive(job(page(1) + b" " * SMALL))

    async def test_what_waits_is_bounded(self) -> None:
        """Beyond that the cache is busy."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(helpers, "_MOST_WAITING", 10_000)
            first = self.deriver.derive(job(page(1) + b" " * 20_000))
            with pytest.raises(TooBusy):
                await self.deriver.derive(job(page(1) + b" " * 20_000))
            await first

    async def test_after_the_stop(self) -> None:
        """Jobs under way fail, and no more are taken."""
        waiting = self.deriver.derive(job(page(1) + b" " * SMALL))
        self.deriver.stop()
        for each in (waiting, self.deriver.derive(job(page(1)))):
            with pytest.raises(UpstreamError):
                await each


class ByFiles(TestCase):
    """The largest documents, which go past the pipe and the reactor."""

    def setUp(self) -> None:
        self.deriver = ProcessDeriver(reactor, deferToThread)
        self.addCleanup(self.deriver.stop)
        self.job = job(page(30) + b" " * VAST, representation="html", base="http://cache.test/")

    async def expected(self, asked: Job) -> Derived:
        """What comes of it where nothing is handed over."""
        made = await InlineDeriver().derive(asked)
        made.aside = [len(made.facts), len(made.plain), len(made.zipped)]
        return made

    async def test_the_same_comes_of_them(self) -> None:
        """Each byte and digest; and neither they nor what is made of them goes through the pipe, or stays."""
        made = await self.deriver.derive(self.job)
        assert made == await self.expected(self.job)
        assert made.facts_digest == hashlib.sha256(made.facts).hexdigest()
        assert made.plain_digest == hashlib.sha256(made.plain).hexdigest()
        assert made.zipped_digest == hashlib.sha256(made.zipped).hexdigest()
        assert len(derive.pack(self.job, VAST)) < SMALL
        files = self.deriver._aside._files or []
        assert [file.size for file in files] == [0, 0]
        assert self.deriver._aside.waiting_bytes == 0

    async def test_one_after_the_other(self) -> None:
        """Each answer to its own question, whoever of them cannot be read, or is not waited for any more."""
        others = [job(page(number) + b" " * VAST) for number in (1, 2)]
        unread = self.deriver.derive(job(b"{}" + b" " * VAST))
        given_up = self.deriver.derive(self.job)
        asked = [self.deriver.derive(other) for other in others]
        given_up.addErrback(lambda _: None).cancel()
        with pytest.raises(BadDocument):
            await unread
        assert [await one for one in asked] == [await self.expected(other) for other in others]

    async def test_a_process_that_dies(self) -> None:
        """The next one finds the document where it was."""
        await self.deriver.derive(self.job)
        before = self.deriver._large.transport.pid  # type: ignore[union-attr]
        os.kill(before, signal.SIGSTOP)
        asked = self.deriver.derive(self.job)
        while not self.deriver._large._jobs:
            await turn()
        os.kill(before, signal.SIGKILL)
        assert await asked == await self.expected(self.job)
        assert self.deriver._large.transport.pid != before  # type: ignore[union-attr]

    async def test_where_there_are_no_files(self) -> None:
        """All goes through the pipe."""
        expected = await InlineDeriver().derive(self.job)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(large, "_unnamed", refused)
            assert await self.deriver.derive(self.job) == expected

    async def test_where_there_is_no_room(self) -> None:
        """All goes through the pipe, until there is."""
        expected = await InlineDeriver().derive(self.job)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(large.Scratch, "lay", refused)
            assert await self.deriver.derive(self.job) == expected
        assert await self.deriver.derive(self.job) == await self.expected(self.job)

    async def test_a_process_that_lies(self) -> None:
        """It says that more is in the file than there is."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(large.Scratch, "size", 10)
            with pytest.raises(UpstreamError):
                await self.deriver.derive(self.job)
        assert await self.deriver.derive(self.job) == await self.expected(self.job)

    async def test_no_descriptor_stays(self) -> None:
        """After the stop, in the midst of work, there are no more than before; those who wait are told."""
        # What the first process makes the reactor open stays.
        await self.deriver.derive(self.job)
        other = ProcessDeriver(reactor, deferToThread)
        before = len(os.listdir("/dev/fd"))
        await other.derive(self.job)
        pid = other._large.transport.pid  # type: ignore[union-attr]
        os.kill(pid, signal.SIGSTOP)
        waiting = [other.derive(self.job) for _ in range(2)]
        while not other._large._jobs:
            await turn()
        other.stop()
        os.kill(pid, signal.SIGCONT)
        for each in waiting:
            with pytest.raises(UpstreamError):
                await each
        while other._aside._files:
            await turn()
        assert len(os.listdir("/dev/fd")) == before


def refused(*_: object) -> Any:
    """As a system that has no room."""
    raise OSError("There is no room.")


def turn() -> Deferred[None]:
    """Let everybody else have a turn."""
    waiting: Deferred[None] = Deferred()
    reactor.callLater(0.01, waiting.callback, None)
    return waiting
