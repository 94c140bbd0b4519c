"""RubyGems: the compact index, what came before it, gems, and the clients gem and Bundler."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from regcache.errors import BadDocument, MethodNotAllowed, NotFound
from regcache.flow.reply import How
from regcache.http.messages import Digest, RequestHead
from regcache.registries import make
from regcache.registries.rubygems import RubyGems
from regcache.routes import Artifact, Document, Fact, RegistryOptions, Route, Source
from regcache.testing import Ask, Kit, Page, RegistryContract, Sample, make_cache
from tests import clients
from tests.journey import Journey
from tests.origin import Origin
from tests.service import Running

UPSTREAM = "https://gems.example/"
#: What Ruby makes of a list of one word.
MARSHALLED = b'\x04\x08[\x06"\x06a'
LISTS = frozenset({"versions", "names", "specs.4.8.gz", "latest_specs.4.8.gz", "prerelease_specs.4.8.gz"})
TEXT, BINARY = "text/plain; charset=utf-8", "application/octet-stream"
#: Two gems, one of which needs the other.
RELEASES = {"alpha-1.0.0": "beta", "beta-1.0.0": "", "beta-1.1.0": ""}


def info(*versions: tuple[str, bytes], needs: str = "") -> bytes:
    """A gem's page in the compact index."""
    dependency = f"{needs}:~> 1.0" if needs else ""
    lines = [f"{number} {dependency}|checksum:{hashlib.sha256(gem).hexdigest()}" for number, gem in versions]
    return "\n".join(["---", *lines, ""]).encode()


def versions(pages: dict[str, bytes]) -> bytes:
    """The list of all versions, from each gem's page."""
    lines = ["created_at: 2024-01-01T00:00:00Z", "---"]
    for name, page in sorted(pages.items()):
        numbers = [line.split()[0] for line in page.decode().splitlines()[1:]]
        lines.append(f"{name} {','.join(numbers)} {hashlib.md5(page).hexdigest()}")
    return "\n".join([*lines, ""]).encode()


def tags(body: bytes) -> dict[str, str]:
    """What the public index says of a body: its MD5 as entity tag, and its SHA-256."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "Repr-Digest": f'sha-256="{digest}"'}


class TestContract(RegistryContract):
    """What every registry must do."""

    type = "rubygems"

    def sample(self) -> Sample:
        gem, native = b"a gem of bytes", b"a gem of machine code"
        page = info(("1.0.0", gem), ("1.0.0-x86_64-linux", native))
        bodies = {
            "versions": versions({"a-b": page}),
            "names": b"---\na-b\n",
            "info/a-b": page,
            "specs.4.8.gz": gzip.compress(MARSHALLED),
            "latest_specs.4.8.gz": gzip.compress(MARSHALLED),
            "prerelease_specs.4.8.gz": gzip.compress(b"\x04\x08[\x00"),
            "quick/Marshal.4.8/a-b-1.0.0.gemspec.rz": zlib.compress(MARSHALLED),
            "api/v1/versions/a-b.json": b'[{"number": "1.0.0"}]',
        }
        gems = {"gems/a-b-1.0.0.gem": gem, "gems/a-b-1.0.0-x86_64-linux.gem": native}
        return Sample(
            url=UPSTREAM,
            pages={UPSTREAM + path: Page(body=body, headers=tags(body)) for path, body in {**bodies, **gems}.items()},
            documents=tuple(Ask(f"/{path}") for path in bodies),
            artifacts={Ask(f"/{path}"): UPSTREAM + path for path in gems},
            nameless=frozenset(Ask(f"/{path}") for path in bodies if path in LISTS),
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        del ask, body
        return []


REGISTRY = make(RegistryOptions(name="gems", type="rubygems", url=UPSTREAM))
CHECKSUM = hashlib.sha256(b"x").hexdigest()


def route(path: str, method: str = "GET", query: str = "") -> Route:
    """What a request means."""
    return REGISTRY.route(RequestHead(method=method, path=path, query=query))


def source(body: bytes) -> Source:
    """A document as the upstream sent it."""
    return Source(body=body, content_type=TEXT, url=UPSTREAM)


@pytest.mark.parametrize("path", ["/versions", "/names", "/info/alpha", "/info/Alpha_1.2-x", "//info/alpha"])
def test_the_compact_index(path: str) -> None:
    """Its pages grow, and their entity tag is their MD5; names in upper case are names of their own."""
    found = route(path)
    assert isinstance(found, Document)
    assert (found.key, found.url) == (path.lstrip("/"), UPSTREAM + path.lstrip("/"))
    assert (found.etag, found.grows, found.content_type) == ("md5", True, TEXT)


@pytest.mark.parametrize(
    "path", ["/specs.4.8.gz", "/prerelease_specs.4.8.gz", "/quick/Marshal.4.8/a-b-1.0-java.gemspec.rz"]
)
def test_the_marshal_indexes(path: str) -> None:
    """They may change, and are sent as they are."""
    found = route(path)
    assert isinstance(found, Document)
    assert (found.key, found.url, found.content_type) == (path[1:], UPSTREAM + path[1:], BINARY)


@pytest.mark.parametrize(("document", "pack"), [("specs.4.8.gz", gzip.compress), ("quick/x.gemspec.rz", zlib.compress)])
def test_a_marshal_index_is_whole_or_none(document: str, pack: Callable[[bytes], bytes]) -> None:
    """Nothing vouches for it but its own checksum; a byte less or another one is found out."""
    packed = pack(MARSHALLED)
    assert REGISTRY.facts(document, source(packed)) == {}
    assert REGISTRY.represent(document, source(packed), "as-is", "") == packed
    flipped = packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:]
    for bad in (packed[:-1], flipped, pack(b"<html>"), pack(b""), b"", b"<html>", packed[2:]):
        with pytest.raises(BadDocument):
            REGISTRY.facts(document, source(bad))


@pytest.mark.parametrize(("name", "undo"), [("specs.4.8.gz", gzip.decompress), ("x.gemspec.rz", zlib.decompress)])
def test_a_marshal_index_that_was_unpacked_on_the_way(name: str, undo: Callable[[bytes], bytes]) -> None:
    """Some servers say that the packing is a content coding; clients get it packed all the same."""
    assert REGISTRY.facts(name, source(MARSHALLED)) == {}
    assert undo(REGISTRY.represent(name, source(MARSHALLED), "as-is", "")) == MARSHALLED


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("alpha-1.0.gem", ["alpha"]),
        ("alpha-1.gem", ["alpha"]),
        ("a-b-1.0.0.pre1.gem", ["a-b"]),
        ("a-b_c-1.0.0-x86_64-linux.gem", ["a-b_c"]),
        ("a-1.0.0-universal-darwin-20.gem", ["a", "a-1.0.0-universal-darwin"]),
        ("a-1.0.0-x86-64.gem", ["a", "a-1.0.0-x86"]),
        ("a-2-1.0.gem", ["a-2", "a"]),
        ("a-1-1-1-1-1-1.0.gem", ["a-1-1-1-1-1", "a", "a-1", "a-1-1"]),
    ],
)
def test_whose_a_gem_may_be(file: str, names: list[str]) -> None:
    """Name, version and platform may all hold hyphens: the likeliest reading is asked about first, and few at all."""
    found = route(f"/gems/{file}")
    assert isinstance(found, Artifact)
    assert [index.key for index in found.indexes] == [f"info/{name}" for name in names]
    assert (found.key, found.url, found.mutable) == (f"gems/{file}", f"{UPSTREAM}gems/{file}", False)


@pytest.mark.parametrize(
    "path",
    [
        *("/gems/alpha.gem", "/gems/-1.0.gem", "/gems/alpha-1.0.zip", "/gems/alpha-1.0%20.gem", "/gems/a/b-1.0.gem"),
        *("/info", "/info/", "/info/a%20b", f"/info/{'x' * 300}", "/versions/x", "/names.gz", "/specs.4.8"),
        *("/quick/Marshal.4.8/x", "/quick/alpha-1.0.gemspec.rz", "/api/v1/api_key", "/api/v1/gems/a.yaml", "/x"),
    ],
)
def test_other_addresses_mean_nothing(path: str) -> None:
    """What no registry of gems serves is not asked for."""
    with pytest.raises(NotFound):
        route(path)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/info/a-b", ["a-b"]),
        ("/api/v1/gems/a-b.json", ["a-b"]),
        ("/api/v1/versions/a-b.json", ["a-b"]),
        ("/api/v1/versions/a-b/latest.json", ["a-b"]),
        ("/api/v2/rubygems/a-b/versions/1.0.json", ["a-b"]),
        ("/gems/a-1-1-1-1-1-1.0.gem", ["a-1-1-1-1-1", "a", "a-1", "a-1-1", "a-1-1-1", "a-1-1-1-1"]),
        ("/quick/Marshal.4.8/a-2-1.0.gemspec.rz", ["a-2", "a"]),
        ("/versions", []),
        ("/specs.4.8.gz", []),
    ],
)
def test_what_the_upstream_is_told(path: str, names: list[str]) -> None:
    """Every name that an address may be of counts, so that none of another registry's is ever asked for."""
    found = route(path)
    assert isinstance(found, Artifact | Document)
    assert list(found.packages) == names


def test_the_dependency_api_has_gone() -> None:
    """As at the registry: whoever asks for it goes on to the next index."""
    with pytest.raises(NotFound, match="compact index"):
        route("/api/v1/dependencies", query="gems=alpha")
    with pytest.raises(NotFound, match="compact index"):
        route("/api/v1/dependencies.json")


def test_gems_are_pushed_elsewhere() -> None:
    """A cache only reads."""
    with pytest.raises(MethodNotAllowed, match="pushed"):
        route("/api/v1/gems", method="POST")


def test_checksums_are_read_from_the_page_of_a_gem() -> None:
    """Whatever else a line says; a version whose checksum is not one is known all the same."""
    page = (
        f"---\n1.0 |checksum:{CHECKSUM}\n"
        f"1.1-java a:>= 1&< 2,b:= 0|ruby:>= 2.5,checksum:{CHECKSUM.upper()},rubygems:> 1.3\n"
        "1.2 a:>= 1|checksum:abc\n1.3 a:>= 1\n\nnot-a version\n"
    )
    facts = REGISTRY.facts("info/a", source(page.encode()))
    digest = (Digest("sha256", CHECKSUM),)
    assert facts == {
        f"gems/a-{version}.gem": Fact(url=f"{UPSTREAM}gems/a-{version}.gem", digests=digests)
        for version, digests in (("1.0", digest), ("1.1-java", digest), ("1.2", ()), ("1.3", ()))
    }


@pytest.mark.parametrize("document", ["info/a", "versions", "names"])
@pytest.mark.parametrize(
    "body", [b"", b"--", b"1.0 |checksum:x\n", b"<html>\n---\n", b"---\n1.0 |chec", b"x" * 9000 + b"\n---\n"]
)
def test_what_is_no_page_of_the_index(document: str, body: bytes) -> None:
    """A page without its line of dashes, or that breaks off in mid-line, is none."""
    with pytest.raises(BadDocument):
        REGISTRY.facts(document, source(body))


def test_a_gem_whose_name_may_be_read_in_two_ways_is_verified() -> None:
    """The reading that is not the likeliest is asked about when the registry knows nothing of the other."""
    kit, gem = make_cache(REGISTRY), b"a gem"
    page = info(("1-1.0", gem))
    kit.upstream.pages = {
        UPSTREAM + "info/a": Page(body=page, headers=tags(page)),
        UPSTREAM + "gems/a-1-1.0.gem": Page(body=gem),
    }
    assert kit.get("/gems/a-1-1.0.gem")[1] == gem
    assert kit.store.entries["gems/gems/a-1-1.0.gem"].verified
    assert kit.upstream.urls().count(UPSTREAM + "info/a-1") == 1


@pytest.fixture
def kit() -> Kit:
    """A cache that has the list of versions."""
    made, body = make_cache(REGISTRY), versions({"a": info(("1.0", b"gem"))})
    made.upstream.pages[UPSTREAM + "versions"] = Page(body=body, headers=tags(body))
    made.get("/versions")
    return made


def test_the_tag_is_the_md5(kit: Kit) -> None:
    """
    Bundler up to 2.4 compares it with the MD5 of its file, later ones hold the file against the digest; compressed it
    is another body with the same MD5 behind it, so the tag is weak then.
    """
    plain, body = kit.get("/versions")
    told = tags(body)
    assert plain.headers.get("etag") == told["ETag"]
    assert plain.headers.get("repr-digest") == told["Repr-Digest"].replace('"', ":")
    packed, sent = kit.get("/versions", accept_encoding="gzip;q=1.0,deflate;q=0.6,identity;q=0.3")
    assert packed.headers.get("content-encoding") == "gzip"
    assert gzip.decompress(sent) == body
    assert packed.headers.get("etag") == f"W/{told['ETag']}"
    assert "repr-digest" not in packed.headers


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_client_gets_the_end_of_what_it_has(kit: Kit, coding: str) -> None:
    """The end of the document itself, never of its compressed form; nothing if there is nothing new."""
    _, body = kit.get("/versions")
    asked = {"range": f"bytes={len(body) - 3}-", "accept_encoding": coding}
    reply, end = kit.get("/versions", if_none_match='"another"', **asked)
    assert (reply.status, end) == (206, body[-3:])
    assert reply.headers.get("content-range") == f"bytes {len(body) - 3}-{len(body) - 1}/{len(body)}"
    assert reply.headers.get("etag") == tags(body)["ETag"]
    assert reply.headers.get("repr-digest") == tags(body)["Repr-Digest"].replace('"', ":")
    assert "content-encoding" not in reply.headers
    assert kit.get("/versions", if_none_match=tags(body)["ETag"], **asked)[0].status == 304


def test_a_client_that_has_more_gets_the_whole(kit: Kit) -> None:
    """A list that was rewritten may be shorter; after a 416 Bundler would take gzip for the list itself."""
    _, body = kit.get("/versions")
    reply, whole = kit.get("/versions", range=f"bytes={len(body)}-", if_none_match='"another"', accept_encoding="gzip")
    assert (reply.status, whole) == (200, body)
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize("status", [500, 503, 429, 403])
def test_a_stale_list_rather_than_an_error(kit: Kit, status: int) -> None:
    """An error would make Bundler fetch the indexes of all gems."""
    _, body = kit.get("/versions")
    kit.upstream.pages[UPSTREAM + "versions"] = Page(status=status)
    kit.advance(30 * 86400)
    reply, stale = kit.get("/versions")
    assert (reply.status, reply.how, stale) == (200, How.STALE, body)


# Real gems, made and indexed by gem itself, for the real clients.


@functools.cache
def built(*releases: str) -> dict[str, bytes]:
    """What a registry with these releases holds, by path, less the compact index."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "out" / "gems").mkdir(parents=True)
        for release in releases:
            name, number = release.rsplit("-", 1)
            (place / "lib").mkdir(exist_ok=True)
            (place / "lib" / f"{name}.rb").write_text(f"module {name.title()}; VERSION = '{number}'; end\n")
            needs = f"spec.add_runtime_dependency '{RELEASES[release]}', '~> 1.0'" if RELEASES.get(release) else ""
            (place / "made.gemspec").write_text(
                f"Gem::Specification.new do |spec|\nspec.name = '{name}'\nspec.version = '{number}'\n"
                "spec.summary = 'tests'\nspec.authors = ['tests']\nspec.license = 'MIT'\n"
                f"spec.homepage = 'http://localhost'\nspec.files = ['lib/{name}.rb']\n{needs}\nend\n"
            )
            gem = [clients.program("gem"), "build", "-q", "made.gemspec", "-o", f"out/gems/{release}.gem"]
            done = clients.run(gem, place, SOURCE_DATE_EPOCH="1700000000")
            assert done.returncode == 0, done.stderr
        done = clients.run([clients.program("gem"), "generate_index", "-q", "-d", "out"], place)
        assert done.returncode == 0, done.stderr
        files = [path for path in (place / "out").rglob("*") if path.is_file()]
        return {f"/{path.relative_to(place / 'out').as_posix()}": path.read_bytes() for path in files}


def publish(origin: Origin, *releases: str) -> None:
    """Put releases into an origin, and the compact index of them, which gem does not make."""
    found = built(*releases)
    for path, body in found.items():
        origin.add(path, body)
    pages = {}
    for name in {release.rsplit("-", 1)[0] for release in releases}:
        gems = [one for one in releases if one.rsplit("-", 1)[0] == name]
        listed = [(gem.rsplit("-", 1)[1], found[f"/gems/{gem}.gem"]) for gem in gems]
        pages[name] = info(*listed, needs=RELEASES[gems[0]])
    lists = {f"info/{name}": page for name, page in pages.items()}
    lists |= {"versions": versions(pages), "names": "\n".join(["---", *sorted(pages), ""]).encode()}
    for path, body in lists.items():
        origin.add(f"/{path}", body, "text/plain; charset=utf-8", **tags(body))


class _Gems(Journey):
    """A client of gems."""

    registry = "rubygems"

    def publish(self, origin: Origin) -> str:
        publish(origin, *RELEASES)
        return "/gems/beta-1.1.0.gem"


@pytest.mark.journey
class TestGem(_Gems):
    """The real gem."""

    client = "gem"

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        del locked
        command = [clients.program("gem"), "install", "--no-document", "--clear-sources", "--source", url]
        return clients.run([*command, "--install-dir", str(place / "installed"), "alpha"], place)


@pytest.mark.journey
class TestBundler(_Gems):
    """The real Bundler."""

    client = "bundle"
    locks = ("Gemfile.lock",)

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        place.mkdir(exist_ok=True)
        (place / "Gemfile").write_text(f'source "{url}"\ngem "alpha"\n')
        return self._bundle(place, "install", **({"BUNDLE_FROZEN": "true"} if locked else {}))

    def _bundle(self, place: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return clients.run([clients.program("bundle"), *words], place, BUNDLE_PATH="installed", **variables)

    def test_trouble_does_not_lead_to_the_other_indexes(
        self, tmp_path: Path, origin: Origin, begin: Callable[..., Running]
    ) -> None:
        """While the registry answers 503, a Bundler that has nothing is content with lists that are out of date."""
        self.publish(origin)
        service = begin("--ttl", "1ms")
        self._went_well(self.install(self._mount(service), tmp_path / "before"))
        origin.spoil = lambda _path, _answer: (503, TEXT, b"trouble\n")
        origin.asked.clear()
        self._went_well(self.install(self._mount(service), tmp_path / "during"))
        assert not [path for path in origin.asked if "specs" in path or "dependencies" in path]
        assert service.get("rubygems/versions")[1]["X-Cache"] == "STALE"
        service.stop()

    def test_a_mirror_leaves_no_trace(self, tmp_path: Path, origin: Origin, begin: Callable[..., Running]) -> None:
        """Told of the cache as a mirror, Bundler installs from it, and locks what it would have locked without."""
        self.publish(origin)
        service = begin()
        place = tmp_path / "project"
        place.mkdir()
        (place / "Gemfile").write_text(f'source "{UPSTREAM}"\ngem "alpha"\n')
        line = REGISTRY.client_lines(self._mount(service))[0].replace(RubyGems.default_url, UPSTREAM)
        self._went_well(clients.run([clients.program("bundle"), *line.split()[1:]], place))
        self._went_well(self._bundle(place, "install"))
        assert f"remote: {UPSTREAM}\n" in (place / "Gemfile.lock").read_text()
        assert service.url not in (place / "Gemfile.lock").read_text()
        service.stop()

    def test_what_is_new_is_all_that_is_sent(
        self, tmp_path: Path, origin: Origin, begin: Callable[..., Running]
    ) -> None:
        """A new version reaches a Bundler that has the index by the ends of the lists, on both sides of the cache."""
        publish(origin, "alpha-1.0.0", "beta-1.0.0")
        before = {path: origin.body(path) for path in ("/versions", "/info/beta")}
        log = tmp_path / "access.log"
        service = begin("--refresh-after", "1ms", "--access-log", str(log))
        place = tmp_path / "project"
        self._went_well(self.install(self._mount(service), place))
        publish(origin, *RELEASES)
        line = f"beta 1.1.0 {hashlib.md5(origin.body('/info/beta')).hexdigest()}\n"
        longer = before["/versions"] + line.encode()
        origin.add("/versions", longer, TEXT, **tags(longer))
        origin.sent.clear()
        self._went_well(self._bundle(place, "update", "--all"))
        assert "beta (1.1.0)" in (place / "Gemfile.lock").read_text()
        service.stop()
        sent = {path: size for path, _, size in origin.sent}
        told = log.read_text()
        for path, old in before.items():
            size = len(origin.body(path)) - len(old) + 1
            assert sent[path] == size, path
            assert f'rubygems{path} HTTP/1.1" 206 {size} ' in told, told
