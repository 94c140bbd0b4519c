"""Registries whose documents and artifacts are kept by their upstream's own account, and publishing through them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from regcache.errors import MethodNotAllowed, NotFound, UpstreamError
from regcache.flow.reply import How
from regcache.http.messages import RequestHead
from regcache.registries import make
from regcache.routes import RegistryOptions
from regcache.testing import FakeRegistry, Page
from regcache.testing.kit import BASE, Kit, make_cache

BODY = b"a file"
INDEX = json.dumps({"one": hashlib.sha256(BODY).hexdigest()}).encode()
UPSTREAM = "http://registry.test/"


def kit(said: str = "max-age=60", **options: Any) -> Kit:
    """A cache in front of a registry whose index says that of itself."""
    made = make_cache(FakeRegistry(RegistryOptions(name="fake", type="fake", follows=True, ttl=1e6, **options)))
    made.upstream.pages[f"{UPSTREAM}index"] = page(said)
    made.upstream.pages[f"{UPSTREAM}files/one"] = Page(body=BODY, headers={"cache-control": said})
    return made


def page(said: str, body: bytes = INDEX, status: int = 200, **fields: str) -> Page:
    """An index."""
    return Page(body=body, status=status, headers={"cache-control": said, **fields})


def how(cache: Kit, path: str = "/index", **fields: str) -> How:
    """How a request was answered."""
    return cache.get(path, **fields)[0].how


def test_documents_are_fresh_as_long_as_they_say() -> None:
    """RFC 9111 section 4.2: not as long as the operator's ttl says; clients are told the same, and the age."""
    cache = kit()
    assert how(cache) is How.MISS
    cache.advance(59)
    reply, _ = cache.get("/index")
    assert (reply.how, reply.headers.get("cache-control"), reply.headers.get("age")) == (How.HIT, "max-age=60", "59")
    assert reply.detail == "ttl=1"
    cache.upstream.pages[f"{UPSTREAM}index"] = page("max-age=60", b"{}")
    cache.advance(1)
    assert cache.get("/index")[1] == b"{}"


def test_age_of_a_document_counts() -> None:
    """RFC 9111 section 4.2.3: what it was old when it came is taken off."""
    cache = kit()
    cache.upstream.pages[f"{UPSTREAM}index"] = page("max-age=60", age="50")
    cache.get("/index")
    cache.advance(5)
    assert cache.get("/index")[0].headers.get("age") == "55"
    cache.advance(5)
    before = len(cache.upstream.asked)
    cache.get("/index")
    assert len(cache.upstream.asked) == before + 1


def test_a_validated_document_is_fresh_again() -> None:
    """RFC 9111 section 4.3.4: for as long as the 304 says."""
    cache = kit()
    cache.upstream.pages[f"{UPSTREAM}index"] = page("max-age=60", etag='"a"')
    cache.get("/index")
    cache.advance(60)
    cache.upstream.pages[f"{UPSTREAM}index"] = Page(status=304, headers={"cache-control": "max-age=90"})
    assert how(cache) is How.REVALIDATED
    cache.advance(89)
    assert how(cache) is How.HIT


@pytest.mark.parametrize("said", ["no-store", "private, max-age=60"])
def test_documents_that_may_not_be_stored(said: str) -> None:
    """RFC 9111 sections 5.2.2.5 and 5.2.2.7: they are passed on, and nothing made of them is stored either."""
    cache = kit(said)
    for _ in range(2):
        assert cache.get("/index", Accept_Encoding="identity")[1] == INDEX
    assert cache.store.entries == {}
    assert len(cache.upstream.asked) == 2


@pytest.mark.parametrize(("said", "usable"), [("max-age=60", True), ("max-age=60, must-revalidate", False)])
def test_documents_in_trouble(said: str, usable: bool) -> None:
    """RFC 9111 section 4.2.4: the stale one, unless it may not be used."""
    cache = kit(said)
    cache.get("/index")
    cache.advance(61)
    cache.upstream.down = True
    if usable:
        assert how(cache) is How.STALE
    else:
        with pytest.raises(UpstreamError):
            cache.get("/index")


def test_documents_beside() -> None:
    """RFC 5861 section 3: a stale one answers while the new one comes."""
    cache = kit("max-age=60, stale-while-revalidate=60")
    cache.get("/index")
    cache.advance(61)
    cache.upstream.pages[f"{UPSTREAM}index"] = page("max-age=60", b"{}")
    assert cache.get("/index")[1] == INDEX
    assert cache.get("/index")[1] == b"{}"


def test_demands_on_documents() -> None:
    """RFC 9111 section 5.2.1: what a client demands counts where the operator says so."""
    for heeded in (False, True):
        cache = kit(client_directives=heeded)
        cache.get("/index")
        before = len(cache.upstream.asked)
        cache.get("/index", Cache_Control="no-cache")
        assert len(cache.upstream.asked) == before + heeded


def test_what_is_not_there() -> None:
    """RFC 9111 section 3: that there is none holds as long as that says."""
    for said, asked in (("max-age=60", 1), ("no-store", 2), ("max-age=0", 2)):
        cache = kit()
        cache.upstream.pages[f"{UPSTREAM}index"] = page(said, b"none", 404)
        for _ in range(2):
            with pytest.raises(NotFound):
                cache.get("/index")
        assert len(cache.upstream.asked) == asked, said


def test_artifacts_that_may_not_be_stored() -> None:
    """RFC 9111 section 5.2.2.5: not even what never changes; it is verified and passed on."""
    cache = kit("no-store")
    assert cache.get("/files/one")[1] == BODY
    assert cache.store.entries == {}


def test_proven_artifacts_do_not_age() -> None:
    """RFC 8246 section 2: what a digest vouches for is what it was, whatever its lifetime."""
    cache = kit()
    cache.get("/index")
    cache.get("/files/one")
    cache.advance(1e6)
    before = len(cache.upstream.asked)
    assert how(cache, "/files/one") is How.HIT
    assert len(cache.upstream.asked) == before


def test_publishing() -> None:
    """RFC 9111 section 4.4: a method that is named is passed on below the upstream; what is stored there goes."""
    cache = kit(methods=("PUT",), forward_authorization=True)
    cache.get("/index")
    head = RequestHead(method="PUT", path="/index", base=BASE, body=b"x")
    reply, _ = cache.get_head(head)
    assert (reply.status, cache.upstream.asked[-1][:2], cache.upstream.bodies[-1]) == (
        200,
        ("PUT", f"{UPSTREAM}index"),
        b"x",
    )
    assert how(cache) is How.MISS
    with pytest.raises(MethodNotAllowed):
        cache.get("/index", "DELETE")


def test_publishing_what_is_anothers() -> None:
    """A name that belongs to another registry is told to no upstream, by whatever method."""
    made = make(
        RegistryOptions(
            name="npm", type="npm", url="https://npm.example/", follows=True, methods=("PUT",), elsewhere=("corp-*",)
        )
    )
    cache = make_cache(made)
    with pytest.raises(NotFound):
        cache.get("/corp-tool", "PUT")
    assert cache.upstream.asked == []
