"""A registry that asks for patience: those with a stored copy have it, the others are told how long to wait."""

from __future__ import annotations

import pytest

from regcache.errors import UpstreamBusy, UpstreamStatus
from regcache.flow.reply import How
from regcache.http.fields import format_date
from regcache.testing import FakeRegistry, Kit, Page, make_cache
from tests.wire import Wire, answers

INDEX = f"{FakeRegistry.default_url}index"
FILE = f"{FakeRegistry.default_url}files/a"
DAY = 86400.0


def busy(status: int, wait: str = "") -> Page:
    """What such a registry answers."""
    return Page(status=status, body=b"Slow down.", headers={"retry-after": wait} if wait else {})


@pytest.fixture
def kit() -> Kit:
    """In front of a registry whose index names one file."""
    made = make_cache()
    made.upstream.pages[INDEX] = Page(body=b'{"a": "%s"}' % (b"0" * 64))
    return made


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("said", "told"),
    [("30", "30"), ("0", "1"), ("86400", "600"), ("date", "90"), ("", "5"), ("soon", "5"), ("9" * 400, "5")],
)
@pytest.mark.parametrize("url", [INDEX, FILE])
def test_nothing_is_stored(kit: Kit, status: int, said: str, told: str, url: str) -> None:
    """The client is told as long as the registry says, within bounds, and a few seconds where it says nothing."""
    said = format_date(kit.wall + 90) if said == "date" else said
    kit.upstream.pages[url] = busy(status, said)
    with pytest.raises(UpstreamBusy) as caught:
        kit.get(url.removeprefix(FakeRegistry.default_url.rstrip("/")))
    assert (caught.value.status, caught.value.code) == (503, status)
    assert caught.value.fields == (("retry-after", told),)


def test_other_errors_ask_for_nothing(kit: Kit) -> None:
    """Nobody knows when a registry that is broken will be well."""
    kit.upstream.pages[INDEX] = busy(500, "30")
    with pytest.raises(UpstreamStatus) as caught:
        kit.get("/index")
    assert (caught.value.status, caught.value.fields) == (502, ())


@pytest.mark.parametrize("status", [429, 503])
def test_what_is_stored_is_served(kit: Kit, status: int) -> None:
    """Nobody waits, and the registry is left in peace for as long as it asked."""
    kit.get("/index")
    kit.upstream.pages[INDEX] = busy(status, "300")
    kit.advance(DAY + 1)
    assert kit.get("/index")[0].how is How.STALE
    asked = len(kit.upstream.asked)
    kit.advance(299)
    assert kit.get("/index")[0].how is How.STALE
    assert len(kit.upstream.asked) == asked
    kit.advance(2)
    kit.get("/index")
    assert len(kit.upstream.asked) == asked + 1


def test_what_the_client_reads() -> None:
    """In the client's own format, with the registry's words, and the field that makes it wait."""
    wire = Wire()
    url = wire.registries["npm"].options.url
    wire.kit.upstream.pages[f"{url}left"] = Page(
        status=429, body=b"Slow down.", headers={"retry-after": "77", "content-type": "text/plain"}
    )
    (answer,) = answers(wire.connect(b"GET /npm/left HTTP/1.1\r\nHost: localhost\r\n\r\n").value())
    fields = dict(answer.headers)
    assert (answer.status, fields["retry-after"], fields["content-type"]) == (503, "77", "application/json")
    assert b"Slow down." in answer.body


def test_what_is_passed_on() -> None:
    """An audit is refused by the registry itself, and says until when."""
    wire = Wire()
    url = wire.registries["npm"].options.url
    wire.kit.upstream.pages[f"{url}-/npm/v1/security/audits"] = Page(status=429, headers={"retry-after": "7"})
    lines = b"POST /npm/-/npm/v1/security/audits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    (answer,) = answers(wire.connect(lines).value())
    assert (answer.status, dict(answer.headers)["retry-after"]) == (429, "7")
