"""What the cache makes of upstreams that fail it: each was once seen to go wrong."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from regcache.errors import (
    BadDocument,
    CutShort,
    DigestMismatch,
    ForbiddenOrigin,
    LinksLeave,
    NotFound,
    RegCacheError,
    TooBusy,
    UpstreamError,
    UpstreamStatus,
    shown,
)
from regcache.flow.reply import How, cache_status
from regcache.flow.upstream import Ask
from regcache.http.messages import Headers, RequestHead
from regcache.registries import make
from regcache.routes import RegistryOptions
from regcache.testing import Kit, Page, make_cache

DAY = 86400
BODY = bytes(range(256)) * 100
INDEX, FILE = "http://registry.test/index", "http://registry.test/files/a.bin"
NPM = "http://npm.test/"
FULL = {"Accept": "application/json"}
SHORT = {"Accept": "application/vnd.npm.install-v1+json"}


def sri(body: bytes, algorithm: str = "sha512") -> str:
    """A digest as npm publishes it."""
    return f"{algorithm}-{base64.b64encode(hashlib.new(algorithm, body).digest()).decode()}"


def package(kit: Kit, body: bytes = BODY, integrity: str | None = None, **more: Any) -> None:
    """An npm package of one version, with its tarball and its manifest."""
    link = f"{NPM}left/-/left-1.0.0.tgz"
    dist = {"tarball": link, "integrity": sri(body) if integrity is None else integrity, **more}
    manifest = {"name": "left", "version": "1.0.0", "dist": dist}
    packument = {"name": "left", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": manifest}}
    json_type = {"content-type": "application/json"}
    kit.upstream.pages[f"{NPM}left"] = Page(body=json.dumps(packument).encode(), headers=json_type)
    kit.upstream.pages[f"{NPM}left/1.0.0"] = Page(body=json.dumps(manifest).encode(), headers=json_type)
    kit.upstream.pages[dist["tarball"]] = Page(body=body)


@pytest.fixture
def kit() -> Kit:
    """An index that names one file, and the file."""
    made = make_cache()
    index = json.dumps({"a.bin": hashlib.sha256(BODY).hexdigest()}).encode()
    made.upstream.pages[INDEX] = Page(body=index)
    made.upstream.pages[FILE] = Page(body=BODY)
    return made


@pytest.fixture
def npm() -> Kit:
    """The npm registry."""
    made = make_cache(make(RegistryOptions(name="npm", type="npm", url=NPM)))
    package(made)
    return made


@pytest.fixture
def tree() -> Kit:
    """A tree of files of which nothing is known."""
    made = make_cache(make(RegistryOptions(name="tree", type="generic", url="http://tree.test/")))
    made.upstream.pages["http://tree.test/a"] = Page(
        body=BODY, headers={"content-type": "application/zip", "etag": '"1"'}
    )
    return made


TARBALL = "/left/-/left-1.0.0.tgz"


# A body and its proof.


def test_an_unproven_body_is_not_for_ever(npm: Kit) -> None:
    """Nobody vouched for it: it says so, is not called immutable, and is asked for again like an index."""
    for path in ("left", "left/1.0.0"):
        npm.upstream.pages[NPM + path] = Page(status=503)
    npm.upstream.pages[NPM + TARBALL[1:]] = Page(body=b"evil")
    assert npm.get(TARBALL)[1] == b"evil"
    reply, _ = npm.get(TARBALL)
    assert "unverified" in cache_status(reply)
    assert "immutable" not in reply.headers.get("cache-control")
    npm.advance(601)
    package(npm)
    assert npm.get(TARBALL)[1] == BODY
    assert "immutable" in npm.get(TARBALL)[0].headers.get("cache-control")


@pytest.mark.parametrize("good", [True, False])
def test_an_unproven_body_that_has_not_changed(npm: Kit, good: bool) -> None:
    """A 304 for it is not enough by then: what its index says decides."""
    body = BODY if good else b"evil"
    for path in ("left", "left/1.0.0"):
        npm.upstream.pages[NPM + path] = Page(status=503)
    npm.upstream.pages[NPM + TARBALL[1:]] = Page(body=body, headers={"etag": '"x"'})
    npm.get(TARBALL)
    npm.advance(601)
    package(npm)
    npm.upstream.pages[NPM + TARBALL[1:]] = Page(status=304)
    if good:
        assert npm.get(TARBALL)[1] == BODY
        assert npm.store.entries["npm/left/-/left-1.0.0.tgz"].verified
    else:
        with pytest.raises(UpstreamStatus):
            npm.get(TARBALL)
        assert "npm/left/-/left-1.0.0.tgz" not in npm.store.entries


def test_a_web_page_in_place_of_a_package(npm: Kit) -> None:
    """Unproven, it is what a portal sends, not a package; proven, it would be fine."""
    page = b"<html>log in</html>"
    for path in ("left", "left/1.0.0"):
        npm.upstream.pages[NPM + path] = Page(status=503)
    npm.upstream.pages[NPM + TARBALL[1:]] = Page(body=page, headers={"content-type": "text/html; charset=x"})
    with pytest.raises(BadDocument):
        npm.get(TARBALL)
    assert npm.store.entries == {}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("algorithm", ["sha512", "sha384", "sha256", "sha1", "md5"])
def test_a_wrong_body_by_any_digest(npm: Kit, algorithm: str, late: bool) -> None:
    """Whichever digest is published, and whether it is known before the body comes or after it."""
    package(npm, integrity=sri(b"other", algorithm))
    if not late:
        npm.get("/left", **SHORT)
    with pytest.raises(DigestMismatch):
        npm.get(TARBALL)
    assert "npm/left/-/left-1.0.0.tgz" not in npm.store.entries
    package(npm, integrity=sri(BODY, algorithm))
    npm.advance(601)
    if not late:
        npm.get("/left", **SHORT)
    assert npm.get(TARBALL)[1] == BODY
    assert npm.store.entries["npm/left/-/left-1.0.0.tgz"].verified


def test_any_of_several_digests_will_do(npm: Kit) -> None:
    """As browsers take it: one of the strongest that are published."""
    package(npm, integrity=f"{sri(b'other')} {sri(BODY)} {sri(b'other', 'sha1')}")
    assert npm.get(TARBALL)[1] == BODY


def test_a_published_size_is_a_proof_of_a_kind() -> None:
    """A body of another size than published is refused, digest or none."""
    index = "http://pypi.test/simple/"
    kit = make_cache(make(RegistryOptions(name="pypi", type="pypi", url=index, extra={"files": "http://pypi.test/"})))
    link = "http://pypi.test/packages/demo-1.0.tar.gz"
    page: dict[str, Any] = {"meta": {"api-version": "1.1"}, "name": "demo", "versions": ["1.0"]}
    page["files"] = [{"filename": "demo-1.0.tar.gz", "url": link, "hashes": {}, "size": 50000}]
    json_type = {"content-type": "application/vnd.pypi.simple.v1+json"}
    kit.upstream.pages[f"{index}demo/"] = Page(body=json.dumps(page).encode(), headers=json_type)
    kit.upstream.pages[link] = Page(body=b"x" * 40000)
    with pytest.raises(DigestMismatch):
        kit.get("/packages/demo-1.0.tar.gz")


def test_a_coded_body_counts_by_its_digest(npm: Kit) -> None:
    """Servers that mark archives as gzip-coded send the very bytes that were published."""
    page = npm.upstream.pages[NPM + TARBALL[1:]]
    npm.upstream.pages[NPM + TARBALL[1:]] = evolve(page, headers={"content-encoding": "gzip"})
    reply, body = npm.get(TARBALL)
    assert (body, reply.headers.get("content-encoding")) == (BODY, "")
    for path in ("left", "left/1.0.0"):
        npm.upstream.pages[NPM + path] = Page(status=404)
    npm.store.entries.clear()
    with pytest.raises(CutShort):
        npm.get(TARBALL)


@pytest.mark.parametrize("accept", [FULL, SHORT])
def test_either_index_corrects_a_stored_artifact(npm: Kit, accept: dict[str, str]) -> None:
    """A version published anew: whichever form of the index tells of it, the old bytes go."""
    npm.get(TARBALL)
    package(npm, BODY[::-1])
    npm.get("/left", **accept)
    assert npm.get(TARBALL)[1] == BODY[::-1]


def test_the_newest_index_counts(npm: Kit) -> None:
    """An old abbreviated form does not condemn what a newer full one names."""
    npm.get("/left", **SHORT)
    package(npm, BODY[::-1])
    npm.advance(1)
    npm.get("/left", **FULL)
    assert npm.get(TARBALL)[1] == BODY[::-1]


def test_a_mismatch_asks_the_index_again(kit: Kit) -> None:
    """Where a file can be published anew, the stored index may be the older of the two."""
    kit.get("/index")
    kit.upstream.pages[FILE] = Page(body=BODY[::-1])
    index = json.dumps({"a.bin": hashlib.sha256(BODY[::-1]).hexdigest()}).encode()
    kit.upstream.pages[INDEX] = Page(body=index)
    assert kit.get("/files/a.bin")[1] == BODY[::-1]
    assert kit.store.entries["fake/files/a.bin"].verified


def test_an_index_that_comes_in_mid_fill(kit: Kit) -> None:
    """What it says of a body that was begun without it is what counts at its end."""
    kit.upstream.pages[INDEX] = Page(status=503)
    kit.upstream.pages[FILE] = Page(body=b"evil")
    kit.upstream.hangs = True
    waiting = kit.ask("/files/a.bin")
    kit.upstream.release(INDEX)
    good = json.dumps({"a.bin": hashlib.sha256(BODY).hexdigest()}).encode()
    kit.upstream.pages[INDEX] = Page(body=good)
    index = kit.ask("/index")
    kit.upstream.release(INDEX)
    assert reply_of(index).status == 200
    for _ in range(2):
        kit.upstream.release()
    assert isinstance(error_of(waiting), DigestMismatch)


# Where an artifact is.


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500])
def test_a_tarball_at_an_unusual_place(npm: Kit, status: int) -> None:
    """Whatever the usual place answers, the manifest tells the right one."""
    link = f"{NPM}download/left/1.0.0/abc"
    package(npm, tarball=link)
    npm.upstream.pages[NPM + TARBALL[1:]] = Page(status=status)
    assert npm.get(TARBALL)[1] == BODY


def test_not_found_while_the_index_cannot_be_asked(npm: Kit) -> None:
    """That there is none is not known then, not said, and not remembered."""
    for path in ("left", "left/1.0.0"):
        npm.upstream.pages[NPM + path] = Page(status=503)
    del npm.upstream.pages[NPM + TARBALL[1:]]
    with pytest.raises(UpstreamError):
        npm.get(TARBALL)
    package(npm, tarball=f"{NPM}elsewhere.tgz")
    assert npm.get(TARBALL)[1] == BODY


def test_an_index_that_names_it_ends_the_memory_of_none(kit: Kit) -> None:
    """A file asked for before its release is there as soon as the index says so."""
    kit.upstream.pages[INDEX] = Page(body=b"{}")
    page = kit.upstream.pages.pop(FILE)
    with pytest.raises(NotFound):
        kit.get("/files/a.bin")
    kit.upstream.pages[FILE] = page
    kit.upstream.pages[INDEX] = Page(body=json.dumps({"a.bin": hashlib.sha256(BODY).hexdigest()}).encode())
    kit.advance(59)
    with pytest.raises(NotFound):
        kit.get("/files/a.bin")
    kit.store.entries.clear()
    kit.get("/index")
    assert kit.get("/files/a.bin")[1] == BODY


@pytest.mark.parametrize("status", [403, 404, 405, 500])
def test_head_says_nothing_of_get(kit: Kit, status: int) -> None:
    """Hosts that refuse HEAD serve the file all the same, to HEAD's client as well."""
    kit.upstream.heads[FILE] = Page(status=status)
    assert kit.get("/files/a.bin", "HEAD")[0].status == 200
    assert kit.get("/files/a.bin")[1] == BODY


def test_head_of_a_length_that_nobody_knows(kit: Kit) -> None:
    """Is answered without one, and nothing is fetched for it."""
    kit.upstream.pages[INDEX] = Page(status=404)
    kit.upstream.heads[FILE] = Page(unannounced=True)
    reply, _ = kit.get("/files/a.bin", "HEAD")
    assert (reply.status, reply.length) == (200, None)
    assert ("GET", FILE) not in [(method, url) for method, url, _ in kit.upstream.asked]


# Outages.


def test_one_form_of_a_packument_serves_for_the_other(npm: Kit) -> None:
    """In an outage a client that asks for the form that is not stored goes on with the one that is."""
    npm.get("/left", **FULL)
    npm.get("/left", **SHORT)
    npm.advance(700)
    npm.upstream.down = True
    reply, body = npm.get("/left", **SHORT)
    assert (reply.how, json.loads(body)["name"]) == (How.STALE, "left")
    assert reply.headers.get("content-type") == SHORT["Accept"]
    other = make_cache(npm.registry)
    package(other)
    other.get("/left", **SHORT)
    other.upstream.down = True
    reply, body = other.get("/left", **FULL)
    assert (reply.how, list(json.loads(body)["versions"])) == (How.STALE, ["1.0.0"])


def test_parts_of_a_packument_in_an_outage(npm: Kit) -> None:
    """A version's manifest and the tags are in what is stored; what is not in it stays an error of the upstream."""
    npm.get("/left", **FULL)
    npm.upstream.down = True
    for path in ("/left/1.0.0", "/left/latest"):
        assert json.loads(npm.get(path)[1])["version"] == "1.0.0"
    assert json.loads(npm.get("/-/package/left/dist-tags")[1]) == {"latest": "1.0.0"}
    with pytest.raises(UpstreamError):
        npm.get("/left/2.0.0")


def test_a_spare_is_not_waited_for_long(npm: Kit) -> None:
    """With something to answer from, the upstream timeout is all that is waited, and nothing while it is in trouble."""
    npm.get("/left", **FULL)
    npm.advance(DAY + 1)
    npm.upstream.hangs = True
    waiting = npm.ask("/left", **SHORT)
    npm.advance(5.1)
    assert waiting.called
    npm.upstream.hangs = False
    npm.upstream.down = True
    npm.ask("/left", **FULL)
    assert npm.get("/left", **SHORT)[0].how is How.STALE


@pytest.mark.parametrize("bad", ["http://[x", "http://127.0.0.1:99999/", "file:///etc/passwd", "//user@registry.test/"])
def test_a_redirect_to_no_url(kit: Kit, bad: str) -> None:
    """Is an error of the upstream like others: what is stored is served."""
    kit.get("/index")
    kit.advance(DAY + 1)
    kit.upstream.pages[INDEX] = Page(status=302, headers={"location": bad})
    assert kit.get("/index")[0].how is How.STALE
    kit.upstream.pages[FILE] = Page(status=302, headers={"location": bad})
    with pytest.raises(UpstreamError):
        kit.get("/files/a.bin")


def test_a_bug_in_asking_costs_no_stored_copy(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong on the way to the upstream, what is stored is served."""
    kit.get("/index")
    kit.advance(DAY + 1)
    monkeypatch.setattr(kit.upstream, "request", lambda *_: fail(ZeroDivisionError("a bug")))
    assert kit.get("/index")[0].how is How.STALE


@pytest.mark.parametrize(
    "page",
    [
        Page(body=BODY * 2, cut=100, headers={"content-type": "application/zip"}),
        Page(body=BODY, headers={"content-type": "application/zip", "content-encoding": "gzip"}),
        Page(body=b"<html>log in</html>", headers={"content-type": "text/html"}),
        Page(status=500),
    ],
)
def test_a_file_whose_new_body_is_bad(tree: Kit, page: Page) -> None:
    """The stored one is served instead, and stays."""
    tree.get("/a")
    tree.advance(DAY + 1)
    tree.upstream.pages["http://tree.test/a"] = page
    for _ in range(2):
        reply, body = tree.get("/a")
        assert (reply.how, body) == (How.STALE, BODY)
        tree.advance(11)


def test_a_file_whose_new_body_is_good(tree: Kit) -> None:
    """It takes the old one's place."""
    tree.get("/a")
    tree.advance(DAY + 1)
    tree.upstream.pages["http://tree.test/a"] = Page(body=b"new", headers={"content-type": "application/zip"})
    assert tree.get("/a")[1] == b"new"
    assert tree.get("/a")[1] == b"new"


def test_what_was_evicted_during_its_revalidation(kit: Kit, tree: Kit) -> None:
    """The upstream says it has not changed, and there is nothing left that could be served: it is asked once more."""
    kit.get("/index")
    kit.advance(601)
    kit.upstream.hangs = True
    waiting = kit.ask("/index")
    kit.store.entries.clear()
    kit.store.blobs.clear()
    kit.upstream.pages[INDEX], page = Page(status=304), kit.upstream.pages[INDEX]
    kit.upstream.release()
    kit.upstream.pages[INDEX] = page
    kit.upstream.hangs = False
    kit.upstream.release()
    assert reply_of(waiting).status == 200
    tree.get("/a")
    tree.advance(601)
    tree.store.blobs.clear()
    tree.upstream.pages["http://tree.test/a"], page = Page(status=304), tree.upstream.pages["http://tree.test/a"]
    tree.upstream.hangs = True
    waiting = tree.ask("/a")
    tree.upstream.release()
    tree.upstream.pages["http://tree.test/a"] = page
    tree.upstream.hangs = False
    tree.upstream.release()
    assert reply_of(waiting).status == 200


def test_a_document_too_large_for_the_memory(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is served while it is on its way to the store, and when the store refuses it."""
    kit = make_cache()
    names = {f"{number}.bin": "a" * 64 for number in range(400)}
    kit.upstream.pages[INDEX] = Page(body=json.dumps(names).encode())
    monkeypatch.setattr(kit.cache._documents._representations._sources, "_most", 1000)
    monkeypatch.setattr(kit.cache._documents._representations._ready, "_most", 1000)
    kit.store.holds = True
    for gzipped in ("", "gzip"):
        assert kit.get("/index", Accept_Encoding=gzipped)[0].status == 200
    kit.store.release()
    assert kit.get("/index")[1] == kit.upstream.pages[INDEX].body


def test_a_withdrawal_of_what_is_not_stored_yet(kit: Kit) -> None:
    """A 404 that comes while the document is on its way to the store is not forgotten by it."""
    kit.store.holds = True
    kit.get("/index")
    kit.advance(601)
    del kit.upstream.pages[INDEX]
    with pytest.raises(NotFound):
        kit.get("/index")
    kit.store.release()
    with pytest.raises(NotFound):
        kit.get("/index")
    assert kit.store.entries["fake/index"].withdrawn == 404


def test_a_head_that_comes_and_a_body_that_does_not(kit: Kit) -> None:
    """The next request does not wait again: an answer that is not whole in time is none."""
    kit.get("/index")
    kit.advance(DAY + 1)
    kit.upstream.pages[INDEX] = Page(body=b"{}", cut=1, hangs=True)
    waiting = kit.ask("/index")
    kit.advance(5.1)
    assert reply_of(waiting).how is How.STALE
    kit.upstream.pages[FILE] = Page(body=BODY)
    assert kit.get("/index")[0].how is How.STALE


# Withdrawals.


def names_of(kit: Kit, number: int) -> list[str]:
    """Documents of an npm registry that are stored."""
    names = [f"name{n}" for n in range(number)]
    for name in names:
        body = json.dumps({"name": name, "versions": {}}).encode()
        kit.upstream.pages[NPM + name] = Page(body=body, headers={"content-type": "application/json"})
        kit.get(f"/{name}")
    return names


def test_everything_at_once_is_not_believed(npm: Kit) -> None:
    """Many names turning 404 within a minute: those already hidden come back, and the rest is served."""
    names = names_of(npm, 8)
    npm.advance(601)
    npm.upstream.pages.clear()
    found = [outcome(npm, f"/{name}") for name in names]
    assert found == [404] * 4 + [200] * 4
    assert [outcome(npm, f"/{name}") for name in names] == [200] * 8


def test_one_by_one_they_are_believed_and_stay_gone(npm: Kit) -> None:
    """Taken down one after the other with good answers between, they do not come back because they are asked for."""
    names = names_of(npm, 6)
    npm.advance(601)
    for name in names:
        del npm.upstream.pages[NPM + name]
        assert outcome(npm, f"/{name}") == 404
        package(npm)
        assert npm.get("/left")[0].status == 200
        npm.advance(601)
    for _ in range(3):
        assert [outcome(npm, f"/{name}") for name in names] == [404] * 6
        npm.advance(61)


def test_the_law_is_always_believed(npm: Kit) -> None:
    """451 for many names is a decision, not a fault."""
    names = names_of(npm, 8)
    npm.advance(601)
    for name in names:
        npm.upstream.pages[NPM + name] = Page(status=451)
    assert [outcome(npm, f"/{name}") for name in names] == [404] * 8


def test_a_tree_that_lost_its_files(tree: Kit) -> None:
    """The rule holds for files as for documents."""
    for number in range(8):
        tree.upstream.pages[f"http://tree.test/{number}"] = Page(body=BODY)
        tree.get(f"/{number}")
    tree.advance(601)
    tree.upstream.pages.clear()
    assert [outcome(tree, f"/{number}") for number in range(8)] == [404] * 4 + [200] * 4


# Bounds.


def test_a_queue_is_not_waited_in_for_ever(kit: Kit) -> None:
    """What no fetch goes on behind is told that the cache is busy."""
    for number in range(32):
        kit.upstream.pages[f"http://registry.test/files/{number}.bin"] = Page(body=BODY, cut=9000, hangs=True)
        kit.ask(f"/files/{number}.bin")
    waiting = kit.ask("/files/other.bin", "HEAD")
    kit.advance(14.1)
    assert isinstance(error_of(waiting), TooBusy)


def test_a_client_that_leaves_says_nothing_of_the_upstream(kit: Kit) -> None:
    """A request that is given up is no sign of trouble."""
    kit.upstream.hangs = True
    waiting = kit.ask("/files/a.bin", "HEAD")
    waiting.cancel()
    assert isinstance(error_of(waiting), Exception)
    assert not kit.cache.context.breaker.is_open("http://registry.test")


def test_a_proof_that_drips(npm: Kit) -> None:
    """It is waited for as long as anything, and the body is served without it then."""
    npm.upstream.pages[f"{NPM}left/1.0.0"] = Page(body=b"{}", cut=1, hangs=True)
    npm.upstream.pages[f"{NPM}left"] = Page(status=404)
    waiting = npm.ask(TARBALL)
    npm.advance(14.1)
    assert reply_of(waiting).status == 200
    npm.advance(1)
    assert "npm/left/-/left-1.0.0.tgz" in npm.store.entries


def test_links_for_many_mounts_are_not_all_stored(npm: Kit) -> None:
    """By how many names clients reach the cache is their choice; how much is stored is not."""
    body = json.dumps({"name": "left", "versions": {}, "readme": "x" * 9000}).encode()
    npm.upstream.pages[f"{NPM}left"] = Page(body=body, headers={"content-type": "application/json"})
    for number in range(20):
        head = RequestHead(method="GET", path="/left", base=f"http://{number}.test/npm/")
        reply_of(Deferred.fromCoroutine(npm.cache.answer(npm.registry, head)))
    derived = [key for key in npm.store.entries if "|" in key]
    assert 0 < len(derived) <= 8


def test_what_is_derived_depends_on_the_options(npm: Kit) -> None:
    """After a change of the hosts that may be asked, pages are made anew."""
    body = json.loads(npm.upstream.pages[f"{NPM}left"].body)
    body["versions"]["1.0.0"]["dist"]["tarball"] = "http://cdn.test/left-1.0.0.tgz"
    body["readme"] = "x" * 9000
    npm.upstream.pages[f"{NPM}left"] = Page(
        body=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    assert b"http://cdn.test" in npm.get("/left")[1]
    again = make_cache(make(RegistryOptions(name="npm", type="npm", url=NPM, artifact_hosts=("cdn.test",))))
    again.store.entries, again.store.blobs = npm.store.entries, npm.store.blobs
    assert b"http://cdn.test" not in again.get("/left")[1]


def test_foreign_hosts_are_counted_up_to_a_bound(npm: Kit) -> None:
    """However many a document names."""
    versions = {
        f"1.0.{n}": {"name": "left", "version": f"1.0.{n}", "dist": {"tarball": f"http://h{n}.test/x"}}
        for n in range(3000)
    }
    body = json.dumps({"name": "left", "versions": versions}).encode()
    npm.upstream.pages[f"{NPM}left"] = Page(body=body, headers={"content-type": "application/json"})
    npm.get("/left")
    foreign = npm.cache.context.foreign
    assert (len(foreign), sum(foreign.values())) == (1001, 3000)


def leading_past(readme: str = "") -> Page:
    """A packument whose tarball is at another host."""
    link = "http://cdn.test/left-1.0.0.tgz?token=abc"
    version = {"name": "left", "version": "1.0.0", "dist": {"tarball": link}}
    body = {"name": "left", "versions": {"1.0.0": version}, "readme": readme}
    return Page(body=json.dumps(body).encode(), headers={"content-type": "application/json"})


def test_links_past_the_cache_are_told_by_their_url(npm: Kit) -> None:
    """Whoever reads the log can see what would be fetched from elsewhere; what signs the link is left out."""
    npm.upstream.pages[f"{NPM}left"] = leading_past()
    told: list[str] = []

    @implementer(ILogObserver)
    def observer(event: LogEvent) -> None:
        told.append(formatEvent(event))

    globalLogPublisher.addObserver(observer)
    npm.get("/left")
    globalLogPublisher.removeObserver(observer)
    assert [line for line in told if "The first is http://cdn.test/left-1.0.0.tgz?token=..." in line]


def test_strict_links() -> None:
    """A page with links past the cache is 502 then, and is kept for what it vouches for."""
    options = RegistryOptions(name="npm", type="npm", url=NPM, strict_links=True)
    npm = make_cache(make(options))
    npm.upstream.pages[f"{NPM}left"] = leading_past()
    for _ in range(2):
        with pytest.raises(LinksLeave) as caught:
            npm.get("/left")
        assert caught.value.status == 502
        assert "http://cdn.test/left-1.0.0.tgz" in caught.value.detail
    assert npm.upstream.urls() == [f"{NPM}left"]
    admitted = make_cache(make(evolve(options, artifact_hosts=("cdn.test",))))
    admitted.upstream.pages[f"{NPM}left"] = leading_past()
    assert admitted.get("/left")[0].status == 200


def test_strict_links_count_for_what_is_stored() -> None:
    """A representation that was stored before is not sent any more."""
    options = RegistryOptions(name="npm", type="npm", url=NPM)
    npm = make_cache(make(options))
    npm.upstream.pages[f"{NPM}left"] = leading_past("x" * 9000)
    assert npm.get("/left")[0].status == 200
    strict = make_cache(make(evolve(options, strict_links=True)))
    strict.store.entries, strict.store.blobs = npm.store.entries, npm.store.blobs
    with pytest.raises(LinksLeave):
        strict.get("/left")


def test_a_document_that_unpacks_to_much(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unpacked in a thread, however small it came, and only up to the bound."""
    threads: list[object] = []
    context = kit.cache.context

    def in_thread(work: object, *_: object) -> Deferred[Any]:
        threads.append(work)
        return Deferred()

    monkeypatch.setattr(context, "in_thread", in_thread)
    bomb = gzip.compress(b" " * (1 << 20) + b"{}")
    kit.upstream.pages[INDEX] = Page(body=bomb, headers={"content-encoding": "gzip"})
    kit.ask("/index")
    assert len(threads) == 1


# What is told.


@pytest.mark.parametrize("method", ["POST"])
def test_a_relay_whose_upstream_fails(npm: Kit, method: str) -> None:
    """The client learns of it: an audit that could not be made is not a clean one."""
    path = "-/npm/v1/security/advisories/bulk"
    npm.upstream.pages[NPM + path] = Page(status=503, body=b"{}", headers={"content-type": "application/json"})
    assert npm.get(f"/{path}", method)[0].status == 503
    npm.upstream.down = True
    with pytest.raises(UpstreamError):
        npm.get(f"/{path}", method)
    npm.upstream.down, npm.upstream.hangs = False, True
    waiting = npm.ask(f"/{path}", method)
    npm.advance(5.1)
    assert isinstance(error_of(waiting), UpstreamError)


def test_a_body_is_not_told_to_others(kit: Kit) -> None:
    """A redirect of a request with a body is followed on its own origin only, and only as it was."""
    upstream, url = kit.cache.context.upstream, "http://registry.test/audit"
    kit.upstream.pages["http://registry.test/there"] = Page(body=b"ok")
    for status, location, good in (
        (307, "/there", True),
        (308, "/there", True),
        (302, "/there", False),
        (307, "http://other.test/", False),
    ):
        kit.upstream.pages[url] = Page(status=status, headers={"location": location})
        ask = Ask(method="POST", url=url, allows=lambda _: True, body=b"secret")
        result = settled(Deferred.fromCoroutine(upstream.ask(ask, 5)))
        assert isinstance(result, Failure) is not good
        assert good or (isinstance(result, Failure) and result.check(ForbiddenOrigin))


def test_secrets_are_not_shown() -> None:
    """Neither in an error nor in a log: what opens or signs a URL, and what would make a line of its own."""
    text = "http://user:word@host.test/a?token=s3cret&X-Amz-Signature=abc&name=x\r\n2026 fake\x1b[2J\u2028"
    told = UpstreamStatus(f"It was 500 for {text}", 500).text
    for secret in ("word", "s3cret", "abc", "\n", "\r", "\x1b", "\u2028"):
        assert secret not in told
    assert "name=x" in told
    assert shown("J\u00f6rg/caf\u00e9") == "J\u00f6rg/caf\u00e9"


def settled(waiting: Deferred[Any]) -> object:
    """What something came to, which it must have by now."""
    results: list[object] = []
    waiting.addBoth(results.append)
    assert results, "it takes time"
    return results[0]


def reply_of(waiting: Deferred[Any]) -> Any:
    """The reply that an answer came to."""
    found = settled(waiting)
    assert not isinstance(found, Failure), found
    return found


def error_of(waiting: Deferred[Any]) -> BaseException:
    """The error that an answer came to."""
    found = settled(waiting)
    assert isinstance(found, Failure)
    assert found.value is not None
    return found.value


def outcome(kit: Kit, path: str) -> int:
    """The status of an answer, errors included."""
    try:
        return kit.get(path)[0].status
    except RegCacheError as error:
        return error.status


def test_headers_of_the_client_stay_here(npm: Kit) -> None:
    """A relay takes along what describes its body, and nothing of who sends it."""
    npm.upstream.pages[f"{NPM}-/npm/v1/security/audits"] = Page(body=b"{}")
    npm.ask(
        "/-/npm/v1/security/audits", "POST", Authorization="Bearer x", Cookie="a=b", Content_Type="application/json"
    )
    sent = npm.upstream.asked[-1][2]
    assert "content-type" in sent
    assert not {"authorization", "cookie"} & {name for name, _ in sent}
    assert sent.get("via") == Headers().get("via")
