"""What becomes of memory that is freed, and that no search for garbage has to free it."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from regcache.flow import filling
from regcache.flow.answers import Answer
from regcache.flow.exchange import Connection, Exchange
from regcache.flow.queues import Place
from regcache.flow.transfer import Transfer
from regcache.http.messages import Headers
from regcache.lean import LeanRequest
from regcache.testing import Page, make_cache
from tests.test_express import request
from tests.test_offhand import ARTIFACT
from tests.wire import Wire

#: Takes four pieces of half a megabyte and frees them, as a large body that comes does, again and again; says how often
#: the kernel had to give memory for that.
_BODY = """
import resource
def pieces():
    return [b"x" * (1 << 19) for _ in range(4)]
pieces()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    pieces()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str) -> int:
    """Page faults of that in a process of its own."""
    return int(subprocess.run([sys.executable, "-c", first + _BODY], capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has ways of its own")
def test_what_is_freed_is_used_again() -> None:
    """The pieces of a body are put where those before were, and not where the kernel has to clear memory first."""
    assert faults("from regcache.garbage import keep_freed; keep_freed()\n") < faults("") / 10


@pytest.fixture
def unsearched() -> Iterator[None]:
    """Nothing goes but what nobody holds."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("unsearched")
@pytest.mark.parametrize("page", [Page(body=b"x" * 9), Page(body=b"x" * 9, unannounced=True)])
def test_a_body_that_is_over_is_gone(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it came whole or bit by bit: what it took would else wait for the next search, in a burst a lot."""
    made = make_cache()
    made.upstream.pages["http://registry.test/files/a"] = page
    transfers: list[weakref.ref[Transfer]] = []

    def remembered(*args: Any) -> Transfer:
        transfer = Transfer(*args)
        transfers.append(weakref.ref(transfer))
        return transfer

    monkeypatch.setattr(filling, "Transfer", remembered)
    made.ask("/files/a").addBoth(lambda reply: getattr(reply, "close", int)())
    made.advance(1)
    assert [one() for one in transfers] == [None]


class _Idle:
    """A connection on which nothing else goes on."""

    kept = False

    def free(self, *, keep: bool) -> None:
        """It is."""

    pause = resume = free


@pytest.mark.usefixtures("unsearched")
def test_an_answer_that_is_over_is_gone() -> None:
    """With its parser, which leads back to it."""
    taken: list[bytes | None] = []
    exchange = Exchange(cast(Connection, _Idle()), "GET", "a host")
    exchange.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    exchange.head.addCallback(lambda answer: answer.whole(2)).addCallback(taken.append)
    assert taken == [b"ok"]
    gone = weakref.ref(exchange)
    del exchange
    assert gone() is None


@pytest.mark.usefixtures("unsearched")
def test_of_an_answer_that_was_taken_the_head_is_kept() -> None:
    """Whoever joins before it is stored is told of that; what it came by is many objects, of each that waits."""
    exchange = Exchange(cast(Connection, _Idle()), "GET", "a host")
    exchange.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    exchange.head.addCallback(lambda _answer: None)
    about = {"status": 200, "headers": Headers(), "url": "", "length": 2, "coding": "", "idle_timeout": 1.0}
    answer = Answer(**cast(Any, about), clock=cast(Any, Clock()), response=exchange, slot=Place())
    gone = weakref.ref(exchange)
    del exchange
    assert answer.whole(9) == b"ok"
    assert gone() is None


@pytest.mark.fast
@pytest.mark.usefixtures("unsearched")
def test_a_request_that_is_answered_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that it was answered by."""
    wire, requests = Wire(), list[weakref.ref[LeanRequest]]()
    occupy = LeanRequest.occupy

    def noting(lean: LeanRequest) -> None:
        requests.append(weakref.ref(lean))
        occupy(lean)

    monkeypatch.setattr(LeanRequest, "occupy", noting)
    transport = wire.connect(request(*ARTIFACT))
    assert transport.value().startswith(b"HTTP/1.1 200")
    assert [one() for one in requests] == [None]
