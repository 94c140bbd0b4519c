"""Bodies that are stored already, without the name that is asked for."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from regcache.errors import Offline
from regcache.http.messages import Kind
from regcache.http.policy import Rules
from regcache.registries import make
from regcache.routes import RegistryOptions
from regcache.testing import Kit, Page, body_of, make_cache

BODY = b"a package" * 5000
DIGEST = hashlib.sha256(BODY).hexdigest()
URL = "http://registry.test/files/a"


def lost(kit: Kit, body: bytes = BODY) -> Kit:
    """An index that is stored states a digest, and the body lies in the store; no entry names it."""
    kit.upstream.pages["http://registry.test/index"] = Page(body=json.dumps({"a": DIGEST}).encode())
    kit.upstream.pages[URL] = Page(body=BODY)
    kit.get("/index")
    kit.upstream.asked.clear()
    kit.store.blobs[DIGEST] = body
    return kit


def test_a_body_that_stands_there_is_not_asked_for() -> None:
    """Nobody is asked: not the first time, and not later."""
    kit = lost(make_cache())
    for _ in range(2):
        reply, body = kit.get("/files/a")
        assert body == BODY
        assert "immutable" in reply.headers.get("cache-control")
    assert kit.upstream.urls() == []
    entry = kit.store.entries["fake/files/a"]
    assert (entry.kind, entry.digest, entry.size, entry.verified) == (Kind.ARTIFACT, DIGEST, len(BODY), True)
    assert (entry.url, entry.parent) == (URL, "fake/index")


def test_those_who_come_together_get_it_together() -> None:
    """Each has the whole body, though it is looked at once."""
    kit = lost(make_cache())
    replies: list[Any] = []
    for _ in range(3):
        kit.ask("/files/a").addBoth(replies.append)
    assert [body_of(reply) for reply in replies] == [BODY] * 3
    assert kit.upstream.urls() == []


@pytest.mark.parametrize("algorithm", ["sha512", "sha1"])
def test_by_another_digest(algorithm: str) -> None:
    """As some registries state it."""
    kit = make_cache(make(RegistryOptions(name="npm", type="npm", url="http://registry.test/")))
    value = hashlib.new(algorithm, BODY)
    dist = {"tarball": "http://registry.test/a/-/a-1.0.0.tgz"}
    if algorithm == "sha512":
        dist["integrity"] = "sha512-" + base64.b64encode(value.digest()).decode()
    else:
        dist["shasum"] = value.hexdigest()
    packument = {"name": "a", "versions": {"1.0.0": {"name": "a", "version": "1.0.0", "dist": dist}}}
    kit.upstream.pages["http://registry.test/a"] = Page(
        body=json.dumps(packument).encode(), headers={"content-type": "application/json"}
    )
    kit.get("/a")
    kit.upstream.asked.clear()
    kit.store.blobs[DIGEST] = BODY
    assert kit.get("/a/-/a-1.0.0.tgz")[1] == BODY
    assert kit.upstream.urls() == []
    assert kit.store.entries["npm/a/-/a-1.0.0.tgz"].verified


def test_offline_it_is_found_as_well() -> None:
    """What the index states is there: no reason to refuse it."""
    kit = lost(make_cache())
    kit.cache.context.rules = Rules(offline=True)
    assert kit.get("/files/a")[1] == BODY
    with pytest.raises(Offline):
        kit.get("/files/b")


@pytest.mark.parametrize("found", [BODY[:-1], BODY[:-1] + b"!", b""])
def test_one_that_is_damaged_is_fetched(found: bytes) -> None:
    """It is read before it is believed."""
    kit = lost(make_cache(), found)
    assert kit.get("/files/a")[1] == BODY
    assert kit.upstream.urls() == [URL]


def test_what_a_disk_refuses_is_fetched() -> None:
    """An entry that cannot be made is no reason to fail."""
    kit = lost(make_cache())
    kit.store.refuses = True
    assert kit.get("/files/a")[1] == BODY
    assert kit.upstream.urls() == [URL]
