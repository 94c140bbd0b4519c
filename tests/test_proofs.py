"""Artifacts whose index does not say what they are, but where that is said."""

from __future__ import annotations

import hashlib
import json

import pytest
from msgspec.structs import replace

from regcache.errors import DigestMismatch, UpstreamError
from regcache.flow import representations
from regcache.flow.derive import SMALL
from regcache.flow.facts import decode_facts
from regcache.flow.proofs import compared, uncomputed
from regcache.flow.reply import How, Reply
from regcache.http.messages import STRENGTH, Digest, RequestHead
from regcache.routes import Artifact, Document, Fact, Facts, RegistryOptions, Route, Source
from regcache.testing import FakeRegistry, Kit, Page, body_of, make_cache

HOME = "http://registry.test/"
DAY = 86_401.0
INDEX, FILE, PROOF = f"{HOME}index", f"{HOME}files/a.bin", f"{HOME}proofs/a.bin"
BODY = bytes(range(256)) * 40


class Pointing(FakeRegistry):
    """Its index says of each file only where its proof is; a proof is the file's digest, or where another proof is."""

    def facts(self, document: str, source: Source) -> Facts:
        text = source.body.decode()
        if document != "index":
            return Facts({f"files/{document}": self._said(text)} if text else {})
        return Facts({f"files/{name}": self._said(there) for name, there in json.loads(text).items()})

    def _said(self, text: str) -> Fact:
        if not text.startswith("http"):
            return Fact(url="", digests=(Digest("sha256", text),))
        proof = Document(key="a.bin", url=text, accept="x/y", representation="index", content_type="text/plain")
        return Fact(url=FILE, proof=proof)


def behind(proof: str = PROOF) -> Kit:
    """A cache in front of one file."""
    kit = make_cache(Pointing(RegistryOptions(name="fake", type="fake")))
    kit.upstream.pages = {
        INDEX: Page(body=json.dumps({"a.bin": proof, "padding": "0" * 64}).encode() + b" " * SMALL),
        PROOF: Page(body=hashlib.sha256(BODY).hexdigest().encode()),
        FILE: Page(body=BODY),
    }
    return kit


@pytest.mark.parametrize("known", [True, False])
def test_the_further_document_proves_it(known: bool) -> None:
    """It is asked for beside the artifact, once, and not kept; whether the index was stored before or not."""
    kit = behind()
    if known:
        kit.get("/index")
    assert kit.get("/files/a.bin")[1] == BODY
    assert kit.store.entries["fake/files/a.bin"].verified
    assert sorted(kit.upstream.urls()) == [FILE, INDEX, PROOF]
    assert [headers.get("accept") for _, url, headers in kit.upstream.asked if url == PROOF] == ["x/y"]
    assert "fake/a.bin" not in kit.store.entries


def test_what_it_contradicts_is_refused() -> None:
    """A body of another digest is not answered and not stored."""
    kit = behind()
    kit.upstream.pages[FILE] = Page(body=BODY[:-1] + b"x")
    with pytest.raises(DigestMismatch):
        kit.get("/files/a.bin")
    assert "fake/files/a.bin" not in kit.store.entries


def test_a_proof_that_goes_away_does_not_make_it_right() -> None:
    """A body is refused by what was known of it, also when that cannot be asked again."""
    kit = behind()
    kit.get("/index")

    class Fading(dict[str, Page]):
        """The proof is there once."""

        def get(self, key: str, default: Page | None = None) -> Page | None:  # type: ignore[override]
            found = super().get(key, default)
            if key == PROOF:
                self[PROOF] = Page(status=503)
            return found

    kit.upstream.pages = Fading(kit.upstream.pages)
    kit.upstream.pages[FILE] = Page(body=BODY[:-1] + b"x")
    with pytest.raises(DigestMismatch):
        kit.get("/files/a.bin")
    assert kit.upstream.urls().count(PROOF) == 2


@pytest.mark.parametrize("proof", [Page(status=503), Page(status=404), Page(body=b"")])
def test_without_it_nothing_is_proven(proof: Page) -> None:
    """A proof that cannot be had, or is of something else, leaves it unproven: served, and asked for again."""
    kit = behind()
    kit.upstream.pages[PROOF] = proof
    assert kit.get("/files/a.bin")[1] == BODY
    assert not kit.store.entries["fake/files/a.bin"].verified
    assert kit.get("/files/a.bin")[0].detail == "unverified"


def test_it_is_followed_once() -> None:
    """What a further document points to is not asked for, nor what is on another host."""
    kit = behind()
    kit.upstream.pages[PROOF] = Page(body=f"{HOME}more".encode())
    kit.get("/files/a.bin")
    assert f"{HOME}more" not in kit.upstream.urls()
    kit = behind("http://elsewhere.test/proof")
    assert kit.get("/files/a.bin")[1] == BODY
    assert not [url for url in kit.upstream.urls() if not url.startswith(HOME)]


def test_facts_of_another_form_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier version stored in its own form is not read as if it were of this one."""
    kit = behind()
    kit.get("/index")
    facts = kit.store.entries["fake/index\tfacts"]
    assert decode_facts(kit.store.blobs[facts.digest])["files/a.bin"].proof == ("a.bin", PROOF, "x/y")
    monkeypatch.setattr(representations, "FACTS_FORMAT", 0)
    again = make_cache(kit.registry)
    again.store.entries, again.store.blobs = dict(kit.store.entries), dict(kit.store.blobs)
    again.upstream.pages = kit.upstream.pages
    assert again.get("/files/a.bin")[0].how is How.MISS
    assert again.store.entries["fake/index\tfacts"].source != facts.source


OPTIONS = RegistryOptions(name="fake", type="fake")


class Stating(FakeRegistry):
    """Its index states each file's digest by the algorithm that stands before it."""

    algorithms = ("md5",)

    def facts(self, document: str, source: Source) -> Facts:
        del document
        stated = {name: told.split(":") for name, told in json.loads(source.body).items()}
        return Facts({f"files/{name}": Fact(url="", digests=(Digest(*pair),)) for name, pair in stated.items()})


def of(algorithm: str, body: bytes) -> Digest:
    """A digest of a body."""
    hashed = hashlib.blake2b(body, digest_size=32) if algorithm == "blake2b_256" else hashlib.new(algorithm, body)
    return Digest(algorithm, hashed.hexdigest())


@pytest.mark.parametrize(
    ("own", "told", "kept", "passing"),
    [
        ("", None, {"sha256", "md5"}, set(STRENGTH)),
        ("", "sha512 sha1", {"sha256", "md5", "sha512", "sha1"}, {"sha512", "sha1"}),
        ("blake2b_256", None, {"sha256", "blake2b_256"}, set(STRENGTH)),
        ("blake2b_256", "sha256", {"sha256"}, {"sha256"}),
        ("blake2b_256", "sha1", {"sha256", "sha1", "blake2b_256"}, set(STRENGTH)),
        ("", "zip_h1", {"sha256", "md5", "zip_h1"}, set(STRENGTH)),
    ],
)
def test_it_is_hashed_by_what_it_may_be_held_against(
    own: str, told: str | None, kept: set[str], passing: set[str]
) -> None:
    """What an address proves counts where the index states nothing stronger; without a proof any may turn up."""
    route = Artifact(key="a", url=FILE, digests=tuple(_any(one) for one in own.split()))
    fact = None if told is None else Fact(url=FILE, digests=tuple(_any(one) for one in told.split()))
    registry = Stating(OPTIONS)
    assert compared(registry, route, fact, kept=True) == kept
    assert compared(registry, route, fact, kept=False) == passing


def _any(algorithm: str) -> Digest:
    return Digest(algorithm, "0" * {"sha512": 128, "sha1": 40}.get(algorithm, 64))


def test_what_passes_through_is_held_against_what_was_computed() -> None:
    """A stronger digest that turns up meanwhile is computed of what can be read again alone."""
    route = Artifact(key="a", url=FILE)
    fact, had = Fact(url=FILE, digests=(of("sha512", BODY), of("sha256", BODY))), [of("sha256", BODY)]
    assert uncomputed(route, fact, had) == "sha512"
    assert uncomputed(route, fact, had, kept=False) == ""
    assert uncomputed(route, fact, [of("md5", BODY)], kept=False) == "sha512"


@pytest.mark.parametrize("weak", ["sha1", "md5"])
def test_a_digest_that_can_be_forged_does_for_no_stronger_one(weak: str) -> None:
    """Also of a body that passes through: whoever made two bodies with one of them would be believed."""
    route, digests = Artifact(key="a", url=FILE), (of("sha384", b"another"), of(weak, BODY))
    assert uncomputed(route, Fact(url=FILE, digests=digests), [of(weak, BODY)], kept=False) == "sha384"


def test_an_address_does_for_no_stronger_digest_of_the_index() -> None:
    """Nor of a body that passes through: it may agree with its address, and not with its index."""
    route = Artifact(key="a", url=FILE, digests=(of("blake2b_256", BODY),))
    fact = Fact(url=FILE, digests=(of("sha384", b"another"),))
    assert uncomputed(route, fact, [of("blake2b_256", BODY)], kept=False) == "sha384"


class Twofold(Stating):
    """Its index states each file by two algorithms; the weaker one is computed anyhow."""

    algorithms = ("sha1",)

    def facts(self, document: str, source: Source) -> Facts:
        del document
        named = json.loads(source.body)
        return Facts(
            {
                f"files/{name}": Fact(url="", digests=tuple(Digest(*one.split(":")) for one in told))
                for name, told in named.items()
            }
        )


def test_what_the_index_contradicts_is_not_given_though_a_weaker_digest_agrees() -> None:
    """It turned out to be too large to be stored, and its index came after its first bytes."""
    kit = make_cache(Twofold(OPTIONS))
    kit.cache.context.max_file_size = 100
    body = BODY * 1000
    stated = [f"sha384:{of('sha384', b'another').value}", f"sha1:{of('sha1', body).value}"]
    kit.upstream.pages = {
        INDEX: Page(body=json.dumps({"a.bin": stated}).encode()),
        FILE: Page(body=body, unannounced=True),
    }
    kit.upstream.hangs = True
    answer = kit.ask("/files/a.bin")
    kit.upstream.release(FILE)
    kit.upstream.release()
    replies: list[Reply] = []
    answer.addCallback(replies.append)
    with pytest.raises(DigestMismatch):
        body_of(replies[0])


def test_only_what_the_index_states_is_stored_with_it() -> None:
    """An address that proves as much is not what it is held against."""
    proven, body = make_cache(Addressed(OPTIONS)), BODY
    proven.upstream.pages = {
        INDEX: Page(body=json.dumps({"a.bin": "sha256:" + of("sha256", body).value}).encode()),
        FILE: Page(body=body),
    }
    proven.get("/index")
    assert proven.get("/files/a.bin")[1] == body
    entry = proven.store.entries["fake/files/a.bin"]
    assert entry.verified
    assert entry.digests == (of("sha256", body),)


class Addressed(Stating):
    """The address of its one file proves it as well."""

    def route(self, request: RequestHead) -> Route:
        route = super().route(request)
        return replace(route, digests=(of("blake2b_256", BODY),)) if isinstance(route, Artifact) else route


@pytest.mark.parametrize("good", [True, False])
def test_an_index_that_is_asked_again_may_state_it_by_another_algorithm(good: bool) -> None:
    """A body that the stored index contradicts is held against the new one, whatever that states it by."""
    kit = make_cache(Stating(OPTIONS))
    before, after = f"sha256:{'0' * 64}", "sha512:" + of("sha512", BODY if good else b"").value
    kit.upstream.pages = {INDEX: Page(body=json.dumps({"a.bin": before}).encode()), FILE: Page(body=BODY)}
    kit.get("/index")
    kit.upstream.pages[INDEX] = Page(body=json.dumps({"a.bin": after}).encode())
    if good:
        assert kit.get("/files/a.bin")[1] == BODY
        assert kit.store.entries["fake/files/a.bin"].verified
        return
    with pytest.raises(DigestMismatch):
        kit.get("/files/a.bin")
    assert "fake/files/a.bin" not in kit.store.entries


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("vouched", [True, False])
def test_a_stored_body_is_held_against_a_new_index_by_whatever_that_states(good: bool, vouched: bool) -> None:
    """By an algorithm that it was not hashed by as well: it is read for that once, and then known by it."""
    kit = make_cache(Stating(OPTIONS))
    before = {"a.bin": f"sha256:{of('sha256', BODY).value}"} if vouched else {}
    after = of("sha512", BODY if good else b"another")
    kit.upstream.pages = {INDEX: Page(body=json.dumps(before).encode()), FILE: Page(body=BODY)}
    kit.get("/index")
    assert kit.get("/files/a.bin")[1] == BODY
    assert kit.store.entries["fake/files/a.bin"].verified is vouched
    kit.upstream.pages[INDEX] = Page(body=json.dumps({"a.bin": f"sha512:{after.value}"}).encode())
    kit.advance(DAY)
    kit.get("/index")
    entry = kit.store.entries.get("fake/files/a.bin")
    assert (entry is not None) is good
    if entry is None:
        with pytest.raises(DigestMismatch):
            kit.get("/files/a.bin")
        return
    assert entry.verified
    assert after in entry.digests
    assert kit.get("/files/a.bin")[0].how is How.HIT


def waiting_for_the_disk(after: Digest) -> Kit:
    """A body that was found good by its sha256 waits for the disk, and by now its index states this instead."""
    kit = make_cache(Stating(OPTIONS))
    before = f"sha256:{of('sha256', BODY).value}"
    kit.upstream.pages = {INDEX: Page(body=json.dumps({"a.bin": before}).encode()), FILE: Page(body=BODY)}
    kit.get("/index")
    kit.store.holds = True
    assert kit.get("/files/a.bin")[1] == BODY
    kit.upstream.pages[INDEX] = Page(body=json.dumps({"a.bin": f"sha512:{after.value}"}).encode())
    kit.advance(DAY)
    kit.get("/index")
    return kit


@pytest.mark.parametrize("good", [True, False])
def test_what_waits_for_the_disk_is_joined_by_nobody_once_an_index_states_what_it_was_not_hashed_by(good: bool) -> None:
    """It is held against that as soon as it is stored; who comes before gets another body, and a proof of that."""
    after = of("sha512", BODY if good else b"another")
    kit = waiting_for_the_disk(after)
    if good:
        assert kit.get("/files/a.bin")[1] == BODY
    else:
        with pytest.raises(DigestMismatch):
            kit.get("/files/a.bin")
    assert kit.upstream.urls().count(FILE) == 2
    kit.store.release()
    assert ("fake/files/a.bin" in kit.store.entries) is good


@pytest.mark.parametrize("good", [True, False])
def test_an_index_that_comes_while_a_body_is_stored_may_state_what_it_was_not_hashed_by(good: bool) -> None:
    """It is held against the index before anybody finds it in the store."""
    after = of("sha512", BODY if good else b"another")
    kit = waiting_for_the_disk(after)
    kit.store.release()
    entry = kit.store.entries.get("fake/files/a.bin")
    assert (entry is not None) is good
    assert entry is None or after in entry.digests


class Beside(Stating):
    """What states a file's digest lies beside it; there is no index."""

    def route(self, request: RequestHead) -> Route:
        proof = Document(key="proofs/a.bin", url=PROOF, representation="", content_type="application/json")
        return Artifact(key=request.path[1:], url=FILE, proof=proof)


@pytest.mark.parametrize("good", [True, False])
def test_what_the_upstream_has_not_changed_is_held_against_what_it_was_not_hashed_by(good: bool) -> None:
    """Nothing had vouched for it when it came."""
    kit, after = make_cache(Beside(OPTIONS)), of("sha512", BODY if good else b"another")
    kit.upstream.pages = {PROOF: Page(status=503), FILE: Page(body=BODY, headers={"etag": '"a"'})}
    assert kit.get("/files/a.bin")[1] == BODY
    kit.upstream.pages = {
        PROOF: Page(body=json.dumps({"a.bin": f"sha512:{after.value}"}).encode()),
        FILE: Page(status=304, headers={"etag": '"a"'}),
    }
    kit.advance(DAY)
    if good:
        assert kit.get("/files/a.bin")[1] == BODY
        assert kit.store.entries["fake/files/a.bin"].verified
    else:
        with pytest.raises(UpstreamError):
            kit.get("/files/a.bin")
        assert "fake/files/a.bin" not in kit.store.entries


def test_a_body_of_another_size_is_not_vouched_for_by_its_digest() -> None:
    """An index that contradicts itself proves nothing of what is stored, as it does of nothing that comes."""
    kit = make_cache(Sized(OPTIONS))
    kit.upstream.pages = {INDEX: Page(body=b"{}"), FILE: Page(body=BODY)}
    kit.get("/index")
    assert kit.get("/files/a.bin")[1] == BODY
    stated = {"a.bin": f"sha256:{of('sha256', BODY).value}"}
    kit.upstream.pages[INDEX] = Page(body=json.dumps(stated).encode())
    kit.advance(DAY)
    kit.get("/index")
    assert not kit.store.entries["fake/files/a.bin"].verified


def test_a_stored_body_of_another_size_than_the_new_index_states_goes() -> None:
    """Where that states nothing else of it."""
    kit = make_cache(Sized(OPTIONS))
    kit.upstream.pages = {INDEX: Page(body=b"{}"), FILE: Page(body=BODY)}
    kit.get("/index")
    assert kit.get("/files/a.bin")[1] == BODY
    kit.upstream.pages[INDEX] = Page(body=json.dumps({"a.bin": ""}).encode())
    kit.advance(DAY)
    kit.get("/index")
    assert "fake/files/a.bin" not in kit.store.entries
    with pytest.raises(DigestMismatch):
        kit.get("/files/a.bin")


class Sized(Stating):
    """Its index states each file's size wrongly, and of some nothing else."""

    def facts(self, document: str, source: Source) -> Facts:
        del document
        stated = {name: told.split(":") for name, told in json.loads(source.body).items()}
        digests = {name: (Digest(*pair),) if pair[1:] else () for name, pair in stated.items()}
        return Facts({f"files/{name}": Fact(url="", digests=told, size=1) for name, told in digests.items()})
