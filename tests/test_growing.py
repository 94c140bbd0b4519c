"""Documents that grow: only their new end is asked for, and nothing is believed that does not fit."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from regcache.errors import DigestMismatch
from regcache.flow.cache import Cache
from regcache.flow.reply import How
from regcache.http.fields import format_date
from regcache.http.messages import Headers
from regcache.interfaces import IResponse
from regcache.registries import make
from regcache.routes import RegistryOptions
from regcache.testing import FakeUpstream, Kit, Page, make_cache

UPSTREAM = "https://gems.example/"
VERSIONS = UPSTREAM + "versions"
OLD = b"created_at: now\n---\nalpha 1.0 " + b"a" * 32 + b"\n"
NEW = OLD + b"alpha 1.1 " + b"b" * 32 + b"\n"
REWRITTEN = NEW.replace(b"1.0", b"0.9")


def fields(body: bytes, *names: str) -> dict[str, str]:
    """What is said of a body, all or some of it."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    told = {
        "etag": f'"{hashlib.md5(body).hexdigest()}"',
        "repr-digest": f"sha-256=:{digest}:",
        "digest": f"SHA-256={digest}",
    }
    return {name: told[name] for name in names or ("etag", "repr-digest")}


class Ranging(FakeUpstream):
    """
    An upstream that gives parts of its pages, as is asked for, and vouches for what a client has.

    :ivar statuses: what it answered, in order.
    :ivar spoil: changes a part before it is sent; None to give the whole instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[int] = []
        self.spoil: dict[str, Any] | None = {}

    def request(
        self, method: str, url: str, headers: Headers, body: Any = b"", interim: Any = None
    ) -> Deferred[IResponse]:
        """As IUpstream.request."""
        del interim
        page = whole = self.pages[url]
        wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("range"))
        if page.headers.get("etag") and headers.get("if-none-match") == page.headers["etag"]:
            page = Page(status=304, headers=page.headers)
        elif wanted is not None and int(wanted[1]) >= len(page.body):
            page = Page(status=416)
        elif wanted is not None and page.status == 200 and self.spoil is not None:
            start, size = int(wanted[1]), len(page.body)
            told = {**page.headers, "content-range": f"bytes {start}-{size - 1}/{size}"}
            page = evolve(page, status=206, body=page.body[start:], headers=told)
            page = evolve(page, **self.spoil)
        self.statuses.append(page.status)
        self.pages[url] = page
        try:
            return super().request(method, url, headers, body)
        finally:
            self.pages[url] = whole

    def ranges(self) -> list[str]:
        """The Range field of each request."""
        return [headers.get("range") for _, _, headers in self.asked]


@pytest.fixture
def kit() -> Kit:
    """A cache that has the old document, and an upstream that has the new one."""
    made = make_cache(make(RegistryOptions(name="gems", type="rubygems", url=UPSTREAM)), upstream=Ranging())
    made.upstream.pages[VERSIONS] = Page(body=OLD, headers=fields(OLD))
    assert made.get("/versions")[1] == OLD
    made.upstream.pages[VERSIONS] = Page(body=NEW, headers=fields(NEW))
    made.advance(700)
    return made


def upstream(kit: Kit) -> Ranging:
    """The upstream of such a cache, which has forgotten how it was filled."""
    assert isinstance(kit.upstream, Ranging)
    return kit.upstream


def test_only_the_end_is_asked_for(kit: Kit) -> None:
    """The last byte that is known and what follows it; the whole is served, and is what the next end is added to."""
    reply, body = kit.get("/versions")
    assert (reply.how, body) == (How.MISS, NEW)
    assert upstream(kit).ranges() == ["", f"bytes={len(OLD) - 1}-"]
    assert upstream(kit).statuses == [200, 206]
    assert upstream(kit).asked[-1][2].get("accept-encoding") == "identity"
    longer = NEW + b"beta 1.0 " + b"c" * 32 + b"\n"
    upstream(kit).pages[VERSIONS] = Page(body=longer, headers=fields(longer, "digest"))
    kit.advance(700)
    assert kit.get("/versions")[1] == longer
    assert upstream(kit).ranges()[-1] == f"bytes={len(NEW) - 1}-"
    kit.upstream.down = True
    kit.advance(86400)
    assert kit.get("/versions")[1] == longer


def test_what_has_not_grown_is_not_sent(kit: Kit) -> None:
    """The validators go with the range."""
    upstream(kit).pages[VERSIONS] = Page(body=OLD, headers=fields(OLD))
    reply, body = kit.get("/versions")
    assert (reply.how, body) == (How.REVALIDATED, OLD)
    assert upstream(kit).statuses == [200, 304]


@pytest.mark.parametrize(
    "spoil",
    [
        {"headers": {**fields(NEW), "content-range": f"bytes 0-{len(NEW) - 1}/{len(NEW)}"}},
        {"headers": {**fields(NEW), "content-range": f"bytes {len(OLD) - 1}-{len(NEW) - 1}/*"}},
        {"headers": {**fields(NEW), "content-range": f"bytes {len(OLD) - 1}-{len(NEW) - 1}/{len(NEW) + 1}"}},
        {"headers": fields(NEW)},
        {"headers": {"content-range": f"bytes {len(OLD) - 1}-{len(NEW) - 1}/{len(NEW)}"}},
        {"headers": {**fields(OLD), "content-range": f"bytes {len(OLD) - 1}-{len(NEW) - 1}/{len(NEW)}"}},
        {"body": NEW[len(OLD) :]},
        {"body": b"x" + NEW[len(OLD) :]},
        {"body": NEW[len(OLD) - 1 : -1]},
        {"body": b""},
    ],
)
def test_an_end_that_does_not_fit_is_no_end(kit: Kit, spoil: dict[str, Any]) -> None:
    """Another part, another byte, another digest or none: the whole is asked for, and nothing mixed is served."""
    upstream(kit).spoil = spoil
    assert kit.get("/versions")[1] == NEW
    assert upstream(kit).ranges() == ["", f"bytes={len(OLD) - 1}-", ""]
    kit.upstream.down = True
    assert kit.get("/versions")[1] == NEW


@pytest.mark.parametrize("body", [REWRITTEN, OLD[:-10] + b"\n"])
def test_a_document_that_was_rewritten_is_fetched_whole(kit: Kit, body: bytes) -> None:
    """Longer or shorter than what is stored."""
    upstream(kit).pages[VERSIONS] = Page(body=body, headers=fields(body))
    assert kit.get("/versions")[1] == body
    assert upstream(kit).statuses[-1] == 200


def test_an_upstream_that_knows_no_ranges_sends_the_whole(kit: Kit) -> None:
    """A 200 is taken as what it is, and not asked for twice."""
    upstream(kit).spoil = None
    assert kit.get("/versions")[1] == NEW
    assert upstream(kit).statuses == [200, 200]


def test_an_end_that_is_cut_changes_nothing(kit: Kit) -> None:
    """What is stored is served on, and is asked for again."""
    upstream(kit).spoil = {"cut": 5}
    assert kit.get("/versions")[1] == OLD
    upstream(kit).spoil = {}
    kit.advance(60)
    assert kit.get("/versions")[1] == NEW


@pytest.mark.parametrize("headers", [{}, {"etag": '"v1"'}, {"repr-digest": "sha-256=:AAAA:"}])
def test_without_a_digest_the_whole_is_asked_for(kit: Kit, headers: dict[str, str]) -> None:
    """Where nothing could prove that an end fits, none is asked for."""
    upstream(kit).pages[VERSIONS] = Page(body=NEW, headers=headers)
    assert kit.get("/versions")[1] == NEW
    longer = NEW + b"beta 1.0 " + b"c" * 32 + b"\n"
    upstream(kit).pages[VERSIONS] = Page(body=longer, headers=headers)
    kit.advance(700)
    if "etag" not in headers:
        assert kit.get("/versions")[1] == longer
    else:
        kit.get("/versions")
    assert upstream(kit).ranges()[-1] == ""


def test_the_tag_alone_is_a_proof(kit: Kit) -> None:
    """An index that gives no digests but its MD5 as entity tag, as the protocol asks."""
    for body in (NEW, NEW + b"beta 1.0 " + b"c" * 32 + b"\n"):
        upstream(kit).pages[VERSIONS] = Page(body=body, headers=fields(body, "etag"))
        assert kit.get("/versions")[1] == body
        assert upstream(kit).statuses[-1] == 206
        kit.advance(700)


def test_a_document_unlike_its_digest_is_refused(kit: Kit) -> None:
    """What was altered on the way is not stored; what is stored is served on."""
    altered = NEW.replace(b"1.1", b"6.6")
    upstream(kit).pages[VERSIONS] = Page(body=altered, headers=fields(NEW))
    assert kit.get("/versions")[1] == OLD
    cold = make_cache(kit.registry, upstream=Ranging())
    cold.upstream.pages[VERSIONS] = Page(body=altered, headers=fields(NEW))
    with pytest.raises(DigestMismatch):
        cold.get("/versions")


def test_a_stored_document_that_is_damaged_is_fetched_whole(kit: Kit) -> None:
    """Nothing is added to what cannot be read, or has rotted."""
    entry = kit.store.entries["gems/versions"]
    kit.store.blobs[entry.digest] = OLD.replace(b"1.0", b"6.6")
    kit.cache = Cache(kit.cache.context)
    assert kit.get("/versions")[1] == NEW
    assert upstream(kit).statuses == [200, 206, 200]
    del kit.store.blobs[kit.store.entries["gems/versions"].digest]
    upstream(kit).pages[VERSIONS] = Page(body=OLD, headers=fields(OLD))
    kit.cache = Cache(kit.cache.context)
    kit.advance(700)
    assert kit.get("/versions")[1] == OLD


def test_what_a_part_does_not_say_again(kit: Kit) -> None:
    """The type of the whole stays; a validator that was for the old whole does not."""
    page = Page(body=OLD, headers={**fields(OLD), "content-type": "text/plain", "last-modified": format_date(0)})
    upstream(kit).pages[VERSIONS] = page
    cold = make_cache(kit.registry, upstream=upstream(kit))
    cold.get("/versions")
    upstream(kit).pages[VERSIONS] = Page(body=NEW, headers=fields(NEW, "repr-digest"))
    cold.advance(700)
    assert cold.get("/versions")[1] == NEW
    assert upstream(kit).statuses[-1] == 206
    told = cold.store.entries["gems/versions"].headers
    assert dict(told) == {"content-type": "text/plain"}


@pytest.mark.parametrize("of_coded", [False, True])
def test_a_digest_of_the_document_or_of_its_coded_form(kit: Kit, of_coded: bool) -> None:
    """RFC 9530 means the coded form; the public gem index means the document, whatever form it sends."""
    coded = gzip.compress(NEW)
    headers = {**fields(coded if of_coded else NEW, "repr-digest"), "content-encoding": "gzip"}
    upstream(kit).spoil = None
    upstream(kit).pages[VERSIONS] = Page(body=coded, headers=headers)
    assert kit.get("/versions")[1] == NEW
    assert kit.store.entries["gems/versions"].verified


def test_a_large_document_grows_beside_the_reactor(kit: Kit) -> None:
    """As a small one does, in a thread; what does not fit there is fetched whole as well."""
    old = OLD + b"x 1 y\n" * 100_000
    new = old + b"beta 1.0 " + b"c" * 32 + b"\n"
    for body, spoil in ((old, {}), (new, {}), (new + b"z 1 y\n", {"body": b"\nzzzzzz"})):
        upstream(kit).spoil = spoil
        upstream(kit).pages[VERSIONS] = Page(body=body, headers=fields(body))
        assert kit.get("/versions")[1] == body
        kit.advance(700)
    assert upstream(kit).statuses == [200, 206, 206, 206, 200]
