"""Go: module proxies, checksum databases, and the go command itself."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

import pytest
from attrs import evolve

from regcache.errors import (
    BadDocument,
    ConfigError,
    DigestMismatch,
    MethodNotAllowed,
    NotFound,
    UpstreamError,
    UpstreamStatus,
)
from regcache.flow.dirhash import mod_h1
from regcache.http.messages import Digest, RequestHead
from regcache.registries import make
from regcache.registries.go import is_canonical
from regcache.routes import Artifact, Document, RegistryOptions, Source
from regcache.testing import Ask, Kit, Page, RegistryContract, Sample, make_cache
from tests import clients
from tests.gomodules import Database, Module
from tests.journey import Journey, Start
from tests.origin import Answer, Origin

UPSTREAM = "https://modules.example/proxy/"
SUMS = "sums.example"


def modules() -> list[Module]:
    """A module in upper case that needs another, of which there are two versions, and one of before modules."""
    lib = {"go.mod": b"module go.example/fx/lib\n\ngo 1.18\n", "lib.go": b'package lib\n\nconst V = "lib"\n'}
    lib["data"] = random.Random(1).randbytes(50_000)
    app = {
        "go.mod": b"module go.example/Fx/App\n\ngo 1.18\n\nrequire go.example/fx/lib v1.0.0\n",
        "app.go": b'package app\n\nimport "go.example/fx/lib"\n\nfunc V() string { return "app " + lib.V }\n',
    }
    old = {"old.go": b'package old\n\nconst V = "old"\n'}
    return [
        Module("go.example/fx/lib", "v1.0.0", lib),
        Module("go.example/Fx/App", "v0.3.0", app),
        Module("go.example/fx/old", "v2.0.0+incompatible", old),
    ]


def proxied(database: Database | None) -> dict[str, bytes]:
    """All that a proxy has, by the path of the URL."""
    pages: dict[str, bytes] = {}
    for module in modules():
        pages |= module.pages()
    if database is not None:
        pages |= {f"sumdb/{database.name}/{path}": body for path, body in database.pages().items()}
    return pages


class TestContract(RegistryContract):
    """What every registry must do."""

    type = "go"

    def sample(self) -> Sample:
        pages = proxied(Database(SUMS, modules()))
        app = "go.example/!fx/!app/@v/v0.3.0"
        old = "go.example/fx/old/@v/v2.0.0+incompatible"
        return Sample(
            url=UPSTREAM,
            pages={UPSTREAM + path: Page(body=body) for path, body in pages.items()},
            documents=(
                Ask("/go.example/%21fx/%21app/@v/list"),
                Ask("/go.example/fx/lib/@latest"),
                Ask(f"/{app}.info"),
                Ask(f"/sumdb/{SUMS}/supported"),
                Ask(f"/sumdb/{SUMS}/latest"),
                Ask(f"/sumdb/{SUMS}/lookup/go.example/!fx/!app@v0.3.0"),
                Ask(f"/sumdb/{SUMS}/tile/8/0/000.p/3"),
            ),
            artifacts={
                Ask(f"/{app}.zip"): f"{UPSTREAM}{app}.zip",
                Ask(f"/{app}.mod"): f"{UPSTREAM}{app}.mod",
                Ask(f"/{old}.zip"): f"{UPSTREAM}{old.replace('+', '%2B')}.zip",
                Ask(f"/{old}.mod"): f"{UPSTREAM}{old.replace('+', '%2B')}.mod",
            },
            nameless=frozenset(Ask(f"/sumdb/{SUMS}/{path}") for path in ("supported", "latest", "tile/8/0/000.p/3")),
            options={"extra": {"sumdb": SUMS}},
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        del ask, body
        return []


def answering(path: str, status: int, text: str) -> Callable[[str, Answer], Answer]:
    """Spoils one path."""
    return lambda asked, answer: (status, "text/plain", f"{text}\n".encode()) if asked == path else answer


@pytest.mark.journey
class TestGo(Journey):
    """The real go command, which verifies all by the checksum database."""

    client = "go"
    registry = "go"
    locks = ("project/go.mod", "project/go.sum", "project/main.go")
    database: ClassVar[Database] = Database(SUMS, modules())

    def publish(self, origin: Origin) -> str:
        for path, body in proxied(self.database).items():
            origin.add(f"/proxy/{path}", body)
        return "/proxy/go.example/fx/lib/@v/v1.0.0.zip"

    def table(self, origin: Origin) -> str:
        return f'url = "{origin.url}proxy/"\nsumdb = "{SUMS}"\n'

    def version(self) -> str:
        told = subprocess.run([clients.program("go"), "version"], capture_output=True, text=True, timeout=60)
        return told.stdout.split()[2].removeprefix("go")

    def environment(self, url: str, place: Path) -> dict[str, str]:
        """What tells the go command where all is."""
        return {
            "GOPROXY": url,
            "GOSUMDB": self.database.key,
            "GOPATH": str(place / "path"),
            "GOCACHE": str(place / "compiled"),
            "GOTOOLCHAIN": "local",
            # Else it would leave directories that cannot be removed.
            "GOFLAGS": "-modcacherw",
        }

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        told, project = self.environment(url, place), place / "project"
        if locked:
            return clients.run([clients.program("go"), "run", "-mod=readonly", "."], project, **told)
        project.mkdir(parents=True)
        (project / "go.mod").write_text("module p\n\ngo 1.18\n")
        imported = 'import (\n\tapp "go.example/Fx/App"\n\t"go.example/fx/old"\n)\n'
        (project / "main.go").write_text(f"package main\n\n{imported}\nfunc main() {{ println(app.V(), old.V) }}\n")
        tidied = clients.run([clients.program("go"), "mod", "tidy"], project, **told)
        return tidied if tidied.returncode else clients.run([clients.program("go"), "run", "."], project, **told)

    def go(self, url: str, place: Path, *arguments: str, **more: str) -> tuple[int, str]:
        """Run the go command in a new module; its status and what it says."""
        project = place / "project"
        project.mkdir(parents=True)
        (project / "go.mod").write_text("module p\n\ngo 1.18\n")
        done = clients.run([clients.program("go"), *arguments], project, **self.environment(url, place), **more)
        return done.returncode, done.stdout + done.stderr

    def test_what_changes_is_seen(self, tmp_path: Path, origin: Origin, begin: Start) -> None:
        """Lists, the latest of all where none is listed, and branches are asked for, and change."""
        self.publish(origin)
        head = Module(
            "go.example/fx/head", "v0.0.0-20230901120000-abcdefabcdef", {"go.mod": b"module go.example/fx/head\n"}
        )
        for path, body in {**head.pages(), "go.example/fx/head/@v/main.info": head.info}.items():
            origin.add(f"/proxy/{path}", body)
        origin.add("/proxy/go.example/fx/head/@v/list", b"")
        service = begin("--refresh-after", "0s")
        url = self._mount(service)
        unsummed = {"GONOSUMDB": "go.example"}
        status, said = self.go(url, tmp_path / "list", "list", "-m", "-versions", "go.example/fx/lib")
        assert (status, said.split()) == (0, ["go.example/fx/lib", "v1.0.0"])
        for query in ("latest", "main"):
            status, said = self.go(url, tmp_path / query, "get", f"go.example/fx/head@{query}", **unsummed)
            assert status == 0, said
            assert head.version in said
        newer = Module("go.example/fx/lib", "v1.1.0", modules()[0].files)
        for path, body in {**newer.pages(), "go.example/fx/lib/@v/list": b"v1.0.0\nv1.1.0\n"}.items():
            origin.add(f"/proxy/{path}", body)
        status, said = self.go(url, tmp_path / "newer", "list", "-m", "-versions", "go.example/fx/lib", **unsummed)
        assert (status, said.split()) == (0, ["go.example/fx/lib", "v1.0.0", "v1.1.0"])
        service.stop()

    def test_what_is_not_there(self, tmp_path: Path, origin: Origin, begin: Start) -> None:
        """An absence carries the upstream's text, and is asked for once."""
        self.publish(origin)
        gone = "/proxy/go.example/fx/lib/@v/list"
        origin.spoil = answering(gone, 410, "not found: told upstream")
        service = begin()
        for number in range(2):
            place = tmp_path / f"place-{number}"
            status, said = self.go(self._mount(service), place, "list", "-m", "-versions", "go.example/fx/lib")
            assert status != 0
            assert "not found: told upstream" in said
        assert origin.asked.count(gone) == 1
        service.stop()

    @pytest.mark.parametrize(("status", "asked"), [(404, 2), (410, 2), (403, 1), (503, 1)])
    def test_the_next_proxy(self, tmp_path: Path, origin: Origin, begin: Start, status: int, asked: int) -> None:
        """An absence sends the go command on to the next proxy of its list; trouble and a refusal do not."""
        artifact = self.publish(origin)
        origin.spoil = answering(artifact, status, "said upstream")
        service = begin()
        proxies = f"{self._mount(service)},{origin.url}proxy"
        failed, said = self.go(proxies, tmp_path / "place", "mod", "download", "go.example/fx/lib@v1.0.0")
        assert (failed, origin.asked.count(artifact)) == (1, asked), said
        assert "said upstream" in said or status == 503
        service.stop()


class TestGoWithoutSums(TestGo):
    """The go command and a cache that nobody vouches for anything."""

    def table(self, origin: Origin) -> str:
        return f'url = "{origin.url}proxy/"\nsumdb = "off"\n'

    def environment(self, url: str, place: Path) -> dict[str, str]:
        return {**super().environment(url, place), "GOSUMDB": "off"}


REGISTRY = make(RegistryOptions(name="go", type="go", url=UPSTREAM, extra={"sumdb": SUMS}))
LIB = "go.example/fx/lib"


def route(path: str) -> Artifact | Document:
    """What a path means."""
    found = REGISTRY.route(RequestHead(method="GET", path=path))
    assert isinstance(found, Artifact | Document)
    return found


# Addresses.


@pytest.mark.parametrize(
    ("path", "key", "url"),
    [
        ("/go.example/x/@v/list", "go.example/x/@v/list", "go.example/x/@v/list"),
        ("/go.example/x/@latest", "go.example/x/@latest", "go.example/x/@latest"),
        ("/go.example/%21fx/@v/v1.0.0.mod", "go.example/!fx/@v/v1.0.0.mod", "go.example/!fx/@v/v1.0.0.mod"),
        ("/go.example/!fx/@v/v1.0.0.mod", "go.example/!fx/@v/v1.0.0.mod", "go.example/!fx/@v/v1.0.0.mod"),
        ("//go.example//x/@v/list", "go.example/x/@v/list", "go.example/x/@v/list"),
        ("/x.y/@v/v2.0.0+incompatible.zip", "x.y/@v/v2.0.0+incompatible.zip", "x.y/@v/v2.0.0%2Bincompatible.zip"),
        ("/x.y/@v/v2.0.0%2bincompatible.zip", "x.y/@v/v2.0.0+incompatible.zip", "x.y/@v/v2.0.0%2Bincompatible.zip"),
        ("/x.y/@v/!main.info", "x.y/@v/!main.info", "x.y/@v/!main.info"),
        ("/x.y/a~b/@v/v1.0.0-!r!c1.info", "x.y/a~b/@v/v1.0.0-!r!c1.info", "x.y/a~b/@v/v1.0.0-!r!c1.info"),
    ],
)
def test_addresses(path: str, key: str, url: str) -> None:
    """However a path is encoded, it is one path, and is asked for as the protocol escapes it."""
    found = route(path)
    assert (found.key, found.url) == (key, UPSTREAM + url)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/go.example/Fx/@v/list", "exclamation mark"),
        ("/go.example/!Fx/@v/list", "exclamation mark"),
        ("/go.example/f!/@v/list", "exclamation mark"),
        ("/go.example/!1/@v/list", "exclamation mark"),
        ("/go.example/x/@v/V1.0.0.info", "exclamation mark"),
        ("/go.example/x/@v/v1.0.0-!RC.zip", "exclamation mark"),
        ("/sumdb/sums.example/lookup/go.example/Fx@v1.0.0", "exclamation mark"),
        ("/sumdb/sums.example/lookup/go.example/x@v1.0.0-RC", "exclamation mark"),
        ("/go.example/.x/@v/list", "no path of a module"),
        ("/go.example/x./@v/list", "no path of a module"),
        ("/go.example/%C3%BC/@v/list", "no path of a module"),
        ("/@v/list", "no path of a module"),
        ("/@latest", "no path of a module"),
        ("/go.example/x/@v/v1.0.0.exe", "no file of a version"),
        ("/go.example/x/@v/.info", "no file of a version"),
        ("/go.example/x/@v/", "A module proxy has"),
        ("/go.example/x", "A module proxy has"),
        ("/sumdb/sums.example", "A module proxy has"),
        ("/sumdb/sums.example/tile/8/0/0", "A checksum database has"),
        ("/sumdb/sums.example/lookup/go.example/x", "no version"),
        ("/sumdb/Sums/latest", "no name of a checksum database"),
    ],
)
def test_what_is_no_address(path: str, why: str) -> None:
    """What could only be a mistake is not asked for upstream, and the text says what is wrong."""
    with pytest.raises(NotFound) as caught:
        route(path)
    assert why in caught.value.detail


@pytest.mark.parametrize(
    ("module", "version"),
    [
        ("m", "v1.2.3"),
        ("m", "v0.0.0-20230901120000-abcdefabcdef"),
        ("m", "v1.0.0-rc.1"),
        ("m", "v2.0.0+incompatible"),
        ("m/v2", "v2.1.0"),
        ("m/v10", "v10.0.0-0.20230901120000-abcdefabcdef"),
        ("gopkg.in/yaml.v3", "v3.0.1"),
        ("gopkg.in/x.v0", "v0.1.0"),
        ("gopkg.in/x.v2-unstable", "v2.0.0"),
        ("gopkg.in/x.v1", "v0.0.0-20230901120000-abcdefabcdef"),
        ("golang.org/toolchain", "v0.0.1-go1.21.0.linux-amd64"),
    ],
)
def test_versions(module: str, version: str) -> None:
    """The one name of a version."""
    assert is_canonical(module, version)


@pytest.mark.parametrize(
    ("module", "version"),
    [
        *(("m", query) for query in ("master", "v1", "v1.2", "latest", "abcdefabcdef", "upgrade", "1.2.3", "v1.2.3.4")),
        *(("m", query) for query in ("v01.2.3", "v1.2.3+meta", "v1.2.3-", "v1.0.0-01", "v2.0.0", "V1.0.0", "v1.0.0 ")),
        ("m/v2", "v1.0.0"),
        ("m/v2", "v3.0.0"),
        ("m/v2", "v2"),
        ("gopkg.in/yaml.v3", "v2.0.0"),
        ("gopkg.in/yaml.v3", "v3"),
    ],
)
def test_questions(module: str, version: str) -> None:
    """What may be answered otherwise tomorrow."""
    assert not is_canonical(module, version)


def test_versions_are_told_from_questions() -> None:
    """What names a version lasts; a branch, a list and the latest of all change."""
    for path in (f"/{LIB}/@v/v1.0.0.info", f"/{LIB}/@v/v1.0.0.mod", f"/{LIB}/@v/v1.0.0.zip"):
        assert not route(path).mutable
    for name in ("v1.info", "master.info", "v1.mod", "list"):
        assert route(f"/{LIB}/@v/{name}").mutable
    assert route(f"/{LIB}/@latest").mutable
    base = f"/sumdb/{SUMS}"
    assert [route(f"{base}/{path}").mutable for path in ("supported", "latest")] == [True, True]
    for path in ("lookup/x.y@v1.0.0", "tile/8/0/000", "tile/8/0/x001/234.p/7", "tile/8/data/000"):
        assert not route(f"{base}/{path}").mutable


def test_who_vouches() -> None:
    """The database is asked by way of the upstream, of versions only; the public one not of what is another's."""
    own = ("corp.example/secret", "*.team.example/*")

    def asked(path: str, **extra: str) -> list[str]:
        made = make(RegistryOptions(name="go", type="go", url=UPSTREAM, names=own, extra=extra))
        found = made.route(RequestHead(method="GET", path=path))
        assert isinstance(found, Artifact)
        return [document.url for document in found.documents]

    for database in (SUMS, "sum.golang.org"):
        there = f"{UPSTREAM}sumdb/{database}/lookup/go.example/!fx@v1.0.0"
        assert asked("/go.example/!fx/@v/v1.0.0.zip", sumdb=database) == [there]
        assert asked("/go.example/!fx/@v/v1.mod", sumdb=database) == []
    assert asked("/go.example/!fx/@v/v1.0.0.zip", sumdb="off") == []
    for module in ("corp.example/secret", "corp.example/secret/sub", "git.team.example/x/y"):
        assert asked(f"/{module}/@v/v1.0.0.zip") == []
        assert len(asked(f"/{module}/@v/v1.0.0.zip", sumdb=SUMS)) == 1
    assert len(asked("/corp.example/@v/v1.0.0.zip")) == 1


def test_what_a_path_tells() -> None:
    """Whoever is asked for a path learns of every module that it may be a package of."""
    for path in ("/corp.example/!secret/x/@v/list", "/sumdb/sums.example/lookup/corp.example/!secret/x@v1.0.0"):
        assert route(path).packages == ("corp.example/Secret/x", "corp.example/Secret", "corp.example")
    assert route("/sumdb/sums.example/tile/8/0/000").packages == ()


@pytest.mark.parametrize("name", ["", "Sums", "sums.example+1234+abcd", "sums/x"])
def test_a_wrong_name_of_a_database(name: str) -> None:
    """A name that could not be a database's is a clear error."""
    with pytest.raises(ConfigError, match="sumdb wants"):
        make(RegistryOptions(name="go", type="go", extra={"sumdb": name}))


def test_the_hosts_of_the_public_proxy() -> None:
    """The public proxy redirects to a host for files; another's may not."""
    public, own = make(RegistryOptions(name="go", type="go")), REGISTRY
    assert public.allows("https://storage.googleapis.com/x.zip")
    assert not own.allows("https://storage.googleapis.com/x.zip")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_reading(method: str) -> None:
    """Nothing is published through a proxy."""
    with pytest.raises(MethodNotAllowed):
        REGISTRY.route(RequestHead(method=method, path="/go.example/x/@v/list"))


# Documents.


@pytest.mark.parametrize(
    ("document", "body"),
    [
        (f"{LIB}/@v/list", b"<html>"),
        (f"{LIB}/@v/list", b"{}"),
        (f"{LIB}/@v/v1.0.0.info", b'{"Version": "v1.0.1"}'),
        (f"{LIB}/@v/v1.0.0.info", b'{"Version": ""}'),
        (f"{LIB}/@v/v1.0.0.info", b'{"Time": "2023-09-01T12:00:00Z"}'),
        (f"{LIB}/@v/master.info", b'{"Version": 1}'),
        (f"{LIB}/@latest", b"[]"),
        (f"sumdb/{SUMS}/latest", b"1"),
        (f"sumdb/{SUMS}/lookup/x.y@v1.0.0", b"1\nx.y v1.0.1 h1:YQ==\n\n"),
        (f"sumdb/{SUMS}/lookup/x.y@v1.0.0", b"1\nx.y v1.0.0 h1:YQ==\n\n"),
        (f"sumdb/{SUMS}/lookup/x.y@v1.0.0", b"1\n\nx.y v1.0.0 h1:" + b"A" * 43 + b"=\n"),
        (f"sumdb/{SUMS}/tile/8/0/000", b"x" * 32),
        (f"sumdb/{SUMS}/tile/8/0/000.p/2", b"x" * 63),
    ],
)
def test_what_is_no_document(document: str, body: bytes) -> None:
    """What does not say what was asked is the upstream's trouble, never an answer."""
    with pytest.raises(BadDocument):
        REGISTRY.facts(document, Source(body=body, content_type="text/plain", url=UPSTREAM))


@pytest.mark.parametrize(
    ("document", "body"),
    [
        (f"{LIB}/@v/list", b""),
        (f"{LIB}/@v/list", b"v1.0.0 2023-09-01T12:00:00Z\nv1.1.0\n"),
        (f"{LIB}/@v/master.info", b'{"Version": "v1.0.1-0.20230901120000-abcdefabcdef"}'),
        (f"{LIB}/@v/v2.0.0.info", b'{"Version": "v2.0.0+incompatible"}'),
        (f"{LIB}/@v/v1.0.0-!r!c1.info", b'{"Version": "v1.0.0-RC1", "Origin": {}}'),
        (f"sumdb/{SUMS}/supported", b"ok"),
        (f"sumdb/{SUMS}/tile/8/data/000.p/2", b"<x"),
    ],
)
def test_what_is_a_document(document: str, body: bytes) -> None:
    """What upstreams really send is taken as it is."""
    source = Source(body=body, content_type="text/plain", url=UPSTREAM)
    assert REGISTRY.facts(document, source) == {}
    assert REGISTRY.represent(document, source, "as-is", "") == body


def test_the_sums_of_a_record() -> None:
    """A record names the zip and the go.mod of its version, by their escaped paths; the tree behind it is no part."""
    found = Database(SUMS, modules()).pages()["lookup/go.example/!fx/!app@v0.3.0"]
    source = Source(body=found, content_type="text/plain", url=UPSTREAM)
    facts = REGISTRY.facts(f"sumdb/{SUMS}/lookup/go.example/!fx/!app@v0.3.0", source)
    base = "go.example/!fx/!app/@v/v0.3.0"
    assert {key: fact.url for key, fact in facts.items()} == {
        f"{base}.zip": f"{UPSTREAM}{base}.zip",
        f"{base}.mod": f"{UPSTREAM}{base}.mod",
    }
    wanted = mod_h1(io.BytesIO(modules()[1].mod))
    assert facts[f"{base}.mod"].digests == (Digest("mod_h1", wanted),)


# The cache in front of a proxy.


def kit(**extra: str) -> Kit:
    """A cache in front of the modules, with their checksum database unless the options say otherwise."""
    options = {"sumdb": SUMS, **extra}
    made = make_cache(make(RegistryOptions(name="go", type="go", url=UPSTREAM, extra=options)))
    pages = proxied(Database(SUMS, modules()))
    made.upstream.pages.update({UPSTREAM + path: Page(body=body) for path, body in pages.items()})
    return made


ZIP = f"{LIB}/@v/v1.0.0.zip"
LOOKUP = f"sumdb/{SUMS}/lookup/{LIB}@v1.0.0"


def test_what_the_cache_asked_for_itself_is_there_for_the_client() -> None:
    """One question to the database serves the zip, the go.mod and the client."""
    cache = kit()
    for path in (ZIP, ZIP.replace(".zip", ".mod"), LOOKUP):
        cache.get(f"/{path}")
    assert cache.upstream.urls().count(UPSTREAM + LOOKUP) == 1
    entry = cache.store.entries[f"go/{ZIP}"]
    assert entry.verified
    assert "zip_h1" in {digest.algorithm for digest in entry.digests}


def test_a_probe_is_asked_once_and_its_text_is_kept() -> None:
    """That there is no module at a parent path is remembered with what was said, until the negative lifetime ends."""
    cache = kit()
    url = f"{UPSTREAM}go.example/@v/list"
    text = b"not found: module go.example:\n\tno matching <versions> in {it}\n"
    cache.upstream.pages[url] = Page(status=410, body=text, headers={"content-type": "text/plain; charset=UTF-8"})
    for _ in range(2):
        with pytest.raises(NotFound, match=r"not found: module go.example: no matching <versions> in \{it\}"):
            cache.get("/go.example/@v/list")
    assert cache.upstream.urls().count(url) == 1
    cache.advance(61)
    with pytest.raises(NotFound):
        cache.get("/go.example/@v/list")
    assert cache.upstream.urls().count(url) == 2


def test_a_refusal_is_no_absence() -> None:
    """What the upstream forbids is an error with its text, so that the go command does not go on elsewhere."""
    cache = kit()
    page = Page(status=403, body=gzip.compress(b"blocked by policy 7\n"), headers={"content-encoding": "gzip"})
    cache.upstream.pages[f"{UPSTREAM}{LIB}/@v/list"] = page
    with pytest.raises(UpstreamStatus, match="blocked by policy 7"):
        cache.get(f"/{LIB}/@v/list")


def test_what_never_changes_is_asked_for_twice() -> None:
    """A document that may not change is confirmed once, without conditions, and never asked for again."""
    cache, url = kit(), f"{UPSTREAM}{LIB}/@v/v1.0.0.info"
    cache.upstream.pages[url] = evolve(cache.upstream.pages[url], headers={"etag": '"1"'})
    for _ in range(5):
        assert cache.get(f"/{LIB}/@v/v1.0.0.info")[1] == modules()[0].info
        cache.advance(100_000)
    asked = [headers for _, there, headers in cache.upstream.asked if there == url]
    assert len(asked) == 2
    assert not any("if-none-match" in headers for headers in asked)
    for _ in range(3):
        cache.get(f"/{LIB}/@latest")
        cache.advance(100_000)
    assert cache.upstream.urls().count(f"{UPSTREAM}{LIB}/@latest") == 3


def test_a_wrong_tile_does_not_stay() -> None:
    """A tile that came wrong is replaced when it is confirmed, and confirmed again then."""
    cache, path = kit(), f"sumdb/{SUMS}/tile/8/0/000.p/3"
    good = cache.upstream.pages[UPSTREAM + path]
    cache.upstream.pages[UPSTREAM + path] = Page(body=bytes(96))
    assert cache.get(f"/{path}")[1] == bytes(96)
    cache.upstream.pages[UPSTREAM + path] = good
    for _ in range(4):
        cache.advance(1000)
        assert cache.get(f"/{path}")[1] == good.body
    assert cache.upstream.urls().count(UPSTREAM + path) == 3


def test_a_full_tile_serves_for_what_it_was() -> None:
    """A part of a tile is taken from the full one, also with the upstream gone."""
    cache, path = kit(), f"sumdb/{SUMS}/tile/8/0/000"
    full = random.Random(2).randbytes(256 * 32)
    cache.upstream.pages[UPSTREAM + path] = Page(body=full)
    cache.get(f"/{path}")
    assert cache.get(f"/{path}.p/7")[1] == full[: 7 * 32]
    cache.upstream.down = True
    cache.advance(100_000)
    assert cache.get(f"/{path}.p/9")[1] == full[: 9 * 32]
    cache.upstream.down = False
    cache.advance(100_000)
    cache.get(f"/{path}")
    cache.advance(100_000)
    cache.upstream.asked.clear()
    assert cache.get(f"/{path}.p/7")[1] == full[: 7 * 32]
    assert cache.upstream.asked == []


def test_another_module_in_its_place() -> None:
    """A sound zip of other files is refused, and what comes next is taken."""
    cache, url = kit(), UPSTREAM + ZIP
    good = cache.upstream.pages[url]
    cache.upstream.pages[url] = Page(body=Module(LIB, "v1.0.0", {**modules()[0].files, "more.go": b""}).zip)
    with pytest.raises(DigestMismatch, match="zip_h1"):
        cache.get(f"/{ZIP}")
    assert f"go/{ZIP}" not in cache.store.entries
    cache.upstream.pages[url] = good
    assert cache.get(f"/{ZIP}")[1] == good.body


@pytest.mark.parametrize("right", [True, False])
def test_a_sum_that_comes_later(right: bool) -> None:
    """A zip that was stored while the database was away is proven, or dropped, when the database speaks."""
    cache = kit()
    good = cache.upstream.pages[UPSTREAM + LOOKUP]
    cache.upstream.pages[UPSTREAM + LOOKUP] = Page(status=503)
    other = Module(LIB, "v1.0.0", {"go.mod": b"module x\n"}).zip
    if not right:
        cache.upstream.pages[UPSTREAM + ZIP] = Page(body=other)
    cache.get(f"/{ZIP}")
    assert not cache.store.entries[f"go/{ZIP}"].verified
    cache.upstream.pages[UPSTREAM + LOOKUP] = good
    cache.advance(60)
    cache.get(f"/{LOOKUP}")
    entry = cache.store.entries.get(f"go/{ZIP}")
    assert (entry is not None and entry.verified) == right


def test_nobody_vouches() -> None:
    """Without a database a zip must at least be sound; nobody is asked about it."""
    cache, url = kit(sumdb="off"), UPSTREAM + ZIP
    body = cache.upstream.pages[url].body
    for bad in (body[:-30], body[:9000] + b"x" + body[9001:], b"plain text"):
        cache.upstream.pages[url] = Page(body=bad, unannounced=True)
        with pytest.raises(UpstreamError, match="zip"):
            cache.get(f"/{ZIP}")
    cache.upstream.pages[url] = Page(body=body)
    assert cache.get(f"/{ZIP}")[1] == body
    assert cache.upstream.urls() == [url] * 4
    assert not cache.store.entries[f"go/{ZIP}"].verified


def test_what_cannot_be_stored_is_passed_on() -> None:
    """A zip that the disk does not take still reaches the client, which checks it."""
    cache = kit()
    cache.store.refuses = True
    assert cache.get(f"/{ZIP}")[1] == cache.upstream.pages[UPSTREAM + ZIP].body


def test_what_a_client_is_told() -> None:
    """Errors are text, which the go command shows."""
    assert REGISTRY.error(404, "not found: x") == ("text/plain; charset=utf-8", b"not found: x\n")
    assert REGISTRY.client_lines("http://here.example/go/") == ["go env -w GOPROXY=http://here.example/go"]
