"""Python package indexes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import InvalidName, canonicalize_name
from zope.interface.verify import verifyObject

from regcache.errors import (
    BadDocument,
    BadRequest,
    ConfigError,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
)
from regcache.http.messages import Digest, Headers, RequestHead
from regcache.interfaces import IRegistry
from regcache.registries import make
from regcache.registries.pynames import normal
from regcache.registries.pypi import PyPI
from regcache.routes import Artifact, Document, Fact, Local, Moved, RegistryOptions, Route, Source
from regcache.testing import BASE, Ask, Page, RegistryContract, Sample

INDEX, FILES = "https://index.example/simple/", "https://files.example/"
PAGE = f"{INDEX}demo/"
JSON, HTML = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html"
SHA, OTHER_SHA = "a" * 64, "b" * 64
MOUNT = "http://cache.example/pypi/"
BLAKE = hashlib.blake2b(b"demo", digest_size=32).hexdigest()
BLAKE_PATH = f"packages/{BLAKE[:2]}/{BLAKE[2:4]}/{BLAKE[4:]}"


@cache
def registry(*hosts: str, url: str = INDEX, files: str = FILES) -> PyPI:
    """The registry, for an index and a files host of its own."""
    options = RegistryOptions(name="pypi", type="pypi", url=url, artifact_hosts=hosts, extra={"files": files})
    made = make(options)
    assert isinstance(made, PyPI)
    return made


def route(path: str, query: str = "", method: str = "GET", **fields: str) -> Route:
    """What a request means."""
    headers = Headers.of(fields)
    return registry("cdn.example", "[::1]:8443").route(
        RequestHead(method=method, path=path, query=query, headers=headers)
    )


def document(path: str, **fields: str) -> Document:
    """The document that a request means."""
    found = route(path, **fields)
    assert isinstance(found, Document)
    return found


def artifact(path: str) -> Artifact:
    """The artifact that a request means."""
    found = route(path)
    assert isinstance(found, Artifact)
    return found


def page(*files: Any, url: str = PAGE, **more: Any) -> Source:
    """A project's page as JSON."""
    found = {"meta": {"api-version": "1.4"}, "name": "demo", "files": files, **more}
    return Source(body=json.dumps(found).encode(), content_type=JSON, url=url)


def file(url: str, **more: Any) -> dict[str, Any]:
    """One file of a page."""
    return {"filename": url.partition("?")[0].rpartition("/")[2], "url": url, "hashes": {"sha256": SHA}, **more}


def html(text: str, url: str = PAGE, kind: str = "text/html; charset=UTF-8") -> Source:
    """A page as HTML."""
    return Source(body=text.encode(), content_type=kind, url=url)


def as_json(source: Source, *hosts: str, name: str = "simple/demo") -> Any:
    """The JSON form of a page."""
    return json.loads(registry(*hosts).represent(name, source, "json", MOUNT))


def as_html(source: Source, *hosts: str, name: str = "simple/demo") -> str:
    """The HTML form of a page."""
    return registry(*hosts).represent(name, source, "html", MOUNT).decode()


class Anchors(HTMLParser):
    """The attributes of every anchor, and the contents of every meta element, by name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.meta: list[tuple[str | None, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))
        elif tag == "meta":
            self.meta.append((dict(attrs).get("name"), dict(attrs).get("content")))


# Addresses.


def test_provides_the_interface() -> None:
    """The module does what a registry must."""
    assert verifyObject(IRegistry, registry())


@pytest.mark.parametrize(
    ("path", "key", "url"),
    [
        ("/simple/", "simple", INDEX),
        ("/simple/demo/", "simple/demo", f"{INDEX}demo/"),
        ("/simple//demo/", "simple/demo", f"{INDEX}demo/"),
        ("/pypi/demo/json", "json/demo", "https://index.example/pypi/demo/json"),
        ("/demo/json", "json/demo", "https://index.example/pypi/demo/json"),
        ("/pypi/Demo_X/json", "json/demo-x", "https://index.example/pypi/demo-x/json"),
        ("/pypi/demo/1.0%2Blocal/json", "json/demo/1.0%2Blocal", "https://index.example/pypi/demo/1.0%2Blocal/json"),
        (
            "/integrity/demo/1.0/demo-1.0.tar.gz/provenance",
            "integrity/demo/1.0/demo-1.0.tar.gz/provenance",
            "https://index.example/integrity/demo/1.0/demo-1.0.tar.gz/provenance",
        ),
    ],
)
def test_documents(path: str, key: str, url: str) -> None:
    """Each document has one key, and is asked for where the index keeps it."""
    found = document(path)
    assert (found.key, found.url) == (key, url)


#: Links as an index gives them, and the path below the mount that each becomes: a contract, since lock files
#: record it. It may grow; no line of it may ever change.
CONTRACT = [
    (f"{FILES}{BLAKE_PATH}/demo-1.0.tar.gz", f"{BLAKE_PATH}/demo-1.0.tar.gz"),
    (f"{FILES}packages/source/d/demo/demo-1.0.tar.gz", "packages/source/d/demo/demo-1.0.tar.gz"),
    (f"{FILES}packages/d/demo-1.0%2Bcpu-py3-none-any.whl", "packages/d/demo-1.0%2Bcpu-py3-none-any.whl"),
    (f"{FILES}packages/d/demo-1.0+cpu-py3-none-any.whl", "packages/d/demo-1.0%2Bcpu-py3-none-any.whl"),
    (f"{FILES}packages/d/demo-1%211.0~x.tar.gz", "packages/d/demo-1!1.0~x.tar.gz"),
    (f"{FILES}packages/d/Demo-1.0.tar.gz", "packages/d/Demo-1.0.tar.gz"),
    (f"{FILES}packages//d/demo-1.0.tar.gz", "packages/d/demo-1.0.tar.gz"),
    (f"{FILES}other/demo-1.0.tar.gz", "files/https/files.example/other/demo-1.0.tar.gz"),
    ("https://index.example/x/demo-1.0.tar.gz", "files/https/index.example/x/demo-1.0.tar.gz"),
    ("https://cdn.example/whl/demo-1.0.whl", "files/https/cdn.example/whl/demo-1.0.whl"),
    ("https://CDN.example:443/whl/demo-1.0.whl", "files/https/cdn.example/whl/demo-1.0.whl"),
    ("https://cdn.example/whl/demo-1.0.whl?sig=1", "files/https/cdn.example/whl/demo-1.0.whl"),
    ("https://cdn.example/g%2Fp/demo-1.0.whl", "files/https/cdn.example/g%2Fp/demo-1.0.whl"),
    ("https://cdn.example/packages/demo-1.0.whl", "files/https/cdn.example/packages/demo-1.0.whl"),
    ("https://[::1]:8443/whl/demo-1.0.whl", "files/https/%5B::1%5D:8443/whl/demo-1.0.whl"),
    ("//cdn.example/whl/demo-1.0.whl", "files/https/cdn.example/whl/demo-1.0.whl"),
    ("/whl/demo-1.0.whl", "files/https/index.example/whl/demo-1.0.whl"),
    ("../../packages/demo-1.0.whl", "files/https/index.example/packages/demo-1.0.whl"),
    ("demo-1.0.whl", "files/https/index.example/simple/demo/demo-1.0.whl"),
    ("https://cdn.example/a b/démo-1.0.whl", "files/https/cdn.example/a%20b/d%C3%A9mo-1.0.whl"),
]


@pytest.mark.parametrize(("link", "path"), CONTRACT)
def test_links(link: str, path: str) -> None:
    """Every link to a file leads to its own path below the mount, in both forms, and that path finds the file again."""
    hosts = ("cdn.example", "[::1]:8443")
    source = page(file(link))
    assert as_json(source, *hosts)["files"][0]["url"] == f"../../{path}"
    assert Anchors(as_html(source, *hosts)).found[0]["href"] == f"../../{path}#sha256={SHA}"
    asked = artifact(urljoin("/simple/demo/", f"../../{path}"))
    assert asked.key == path
    facts = registry(*hosts).facts("simple/demo", source)
    assert set(facts) == {path}
    assert facts[path].digests == (Digest("sha256", SHA),)
    assert not facts.foreign
    without_query = facts[path].url.partition("?")[0]
    assert registry(*hosts)._key(asked.url) == registry(*hosts)._key(without_query) == path


def test_the_query_of_a_link_is_kept_for_asking() -> None:
    """A query is no part of a file's path here, but the file is asked for with it."""
    facts = registry("cdn.example").facts("simple/demo", page(file("https://cdn.example/demo-1.0.whl?sig=a%20b#x=y")))
    assert facts["files/https/cdn.example/demo-1.0.whl"].url == "https://cdn.example/demo-1.0.whl?sig=a%20b"


@pytest.mark.parametrize(
    ("path", "key", "url"),
    [
        ("/packages/a%2Bb.whl", "packages/a%2Bb.whl", f"{FILES}packages/a%2Bb.whl"),
        ("/packages/a+b.whl", "packages/a%2Bb.whl", f"{FILES}packages/a%2Bb.whl"),
        ("/packages/%61.whl", "packages/a.whl", f"{FILES}packages/a.whl"),
        ("/packages//a.whl", "packages/a.whl", f"{FILES}packages/a.whl"),
        ("/files/https/files.example/packages/a.whl", "packages/a.whl", f"{FILES}packages/a.whl"),
        ("/files/https/CDN.example:443/a.whl", "files/https/cdn.example/a.whl", "https://cdn.example/a.whl"),
        ("/files/https/[::1]:8443/a.whl", "files/https/%5B::1%5D:8443/a.whl", "https://[::1]:8443/a.whl"),
    ],
)
def test_one_file_one_key(path: str, key: str, url: str) -> None:
    """However the path of a file is spelled, the file is one and its key is one."""
    found = artifact(path)
    assert (found.key, found.url) == (key, url)
    assert not found.mutable


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/simple/demo/x",
        "/simple/a%20b/",
        "/simple/a%3Fb/",
        "/simple/demo-/",
        "/simple/d%C3%A9mo/",
        "/simple/%E2%84%AA/",
        "/simple/<script>/",
        "/pypi/a%3Fb/json",
        "/packages",
        "/files/https/cdn.example",
        "/files/ftp/cdn.example/a.whl",
        "/files/http/cdn.example/a.whl",
        "/files/https/evil.example/a.whl",
        "/files/https/cdn.example:8443/a.whl",
        "/files/https/cdn.example.evil.example/a.whl",
        "/files/https/user@cdn.example/a.whl",
        "/files/https/cdn.example%40evil.example/a.whl",
        "/files/https/cdn.example%3Fx/a.whl",
        "/files/https/cdn.example%23x/a.whl",
        "/files/https/cdn.example%2Fx/a.whl",
        "/files/https/evil.example%2F@cdn.example/a.whl",
        "/files/https/127.0.0.1/a.whl",
        "/integrity/demo",
        "/integrity/demo/1.0/demo-1.0.whl/other",
    ],
)
def test_nothing_there(path: str) -> None:
    """What is no address of an index, and every host that was not named, is not found, and nobody is asked."""
    with pytest.raises(NotFound):
        route(path)


@pytest.mark.parametrize("path", ["/demo/", "/pypi/simple/demo/", "/simple/demo/x"])
def test_an_address_beside_the_index_says_where_it_is(path: str) -> None:
    """Whoever left out ``simple/``, or has it at the wrong place, reads the address to put in."""
    with pytest.raises(NotFound, match=r"its pages are at http://localhost/simple/"):
        route(path)


@pytest.mark.parametrize(
    "path",
    [
        "/packages/../../etc/passwd",
        "/packages/%2e%2e/x",
        "/packages/a%2fb",
        "/packages/a%5cb",
        "/simple/demo%2f..%2fx/",
        "/simple/a%00/",
        "/files/https/cdn.example/..%2fx.whl",
        "/files/https/cdn.example/..;/x.whl",
    ],
)
def test_hostile_paths(path: str) -> None:
    """A path that climbs or hides something is refused."""
    with pytest.raises(BadRequest):
        route(path)


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_path(path: str) -> None:
    """Whatever is asked for, it is a route, malformed, or not found, and only allowed hosts are asked."""
    for start in ("/", "/simple/", "/packages/", "/files/", "/files/https/", "/files/https/cdn.example", "/pypi/"):
        try:
            found = route(start + path)
        except (BadRequest, NotFound):
            continue
        if isinstance(found, (Document, Artifact)):
            assert registry("cdn.example", "[::1]:8443").allows(found.url)
            assert found.key.isascii()
            assert ".." not in found.key.split("/")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/simple", "/simple/"),
        ("/simple/demo", "/simple/demo/"),
        ("/simple/Demo/", "/simple/demo/"),
        ("/simple/demo_x/", "/simple/demo-x/"),
        ("/simple/De.Mo_x--y/", "/simple/de-mo-x-y/"),
        ("/simple/%64emo/", "/simple/demo/"),
        ("/simple///demo/", "/simple/demo/"),
    ],
)
def test_redirects(path: str, location: str) -> None:
    """Any other spelling of a project, and a missing slash, lead to the one address, with the query kept (PEP 503)."""
    assert route(path) == Moved(location)
    assert route(path, query="a=b") == Moved(f"{location}?a=b")
    assert route(path, method="HEAD") == Moved(location)
    assert isinstance(route(location), Document)


@given(st.from_regex(r"\A[A-Za-z0-9]([A-Za-z0-9._-]{0,12}[A-Za-z0-9])?\Z"))
def test_one_redirect_is_enough(name: str) -> None:
    """Any name of a project leads to its page in at most one step."""
    found = route(f"/simple/{name}/")
    if isinstance(found, Moved):
        found = route(found.location)
    assert isinstance(found, Document)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        (f"{JSON}, {HTML}; q=0.1, text/html; q=0.01", JSON),
        (f"{JSON}, {HTML};q=0.2, text/html;q=0.01", JSON),
        (f"{JSON}, */*;q=0.1", JSON),
        (f"{JSON}, */*", JSON),
        (f"text/html, {HTML}, {JSON}", JSON),
        (f"{HTML}, text/html", HTML),
        (HTML, HTML),
        (f"{JSON};q=0.1, {HTML}", HTML),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("application/vnd.pypi.simple.latest+html", HTML),
        (f"{JSON};q=0, */*", HTML),
        (f"{JSON};q=0.1, {HTML};q=0.2, */*;q=0.9", "text/html; charset=utf-8"),
    ],
)
def test_negotiation(accept: str, kind: str) -> None:
    """A client gets the form it asks for, under the very type it asked for, and HTML if it says nothing (PEP 691)."""
    for path in ("/simple/", "/simple/demo/"):
        found = document(path, accept=accept)
        assert found.content_type == kind
        assert found.representation == ("json" if kind == JSON else "html")
        assert found.vary == ("Accept",)
        assert found.key == document(path).key


def test_a_listing_of_directories() -> None:
    """What a plain file server shows for its root, and for a directory of files, is an index."""
    root = html('<title>Directory listing for /</title><a href="../">../</a><a href="de_mo/">de_mo/</a>', url=INDEX)
    assert as_json(root, name="simple")["projects"] == [{"name": "de_mo"}]
    files = html('<a href="/">up</a><a href="Demo-1.0.ZIP">Demo-1.0.ZIP</a><a href="readme.txt">readme.txt</a>')
    assert [one["filename"] for one in as_json(files)["files"]] == ["Demo-1.0.ZIP"]
    assert as_json(html('<h1>Links for demo</h1><a href="https://demo.example/">Home</a>'))["files"] == []


def test_html_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For facts and all forms of a document; another is parsed anew, and what was made of one stays as it is."""
    parsed = []
    feed = HTMLParser.feed

    def counted(self: HTMLParser, data: str) -> None:
        parsed.append(data)
        feed(self, data)

    source = html('<a href="demo-1.0.whl">demo-1.0.whl</a>')
    with monkeypatch.context() as patched:
        patched.setattr(HTMLParser, "feed", counted)
        assert list(registry().facts("simple/demo", source)) == ["files/https/index.example/simple/demo/demo-1.0.whl"]
        assert as_json(source) == as_json(source)
        assert "demo-1.0.whl" in as_html(source)
        assert len(parsed) == 1
    assert as_json(html('<a href="demo-2.0.whl">demo-2.0.whl</a>'))["files"][0]["filename"] == "demo-2.0.whl"


def test_not_acceptable() -> None:
    """A client that takes neither form is told which there are."""
    for accept in ("application/vnd.pypi.simple.v2+json", "image/png", "application/json"):
        with pytest.raises(NotAcceptable, match=r"vnd\.pypi\.simple\.v1"):
            document("/simple/demo/", accept=accept)


def test_other_methods() -> None:
    """Uploading is refused, and the search that is no more says so as it always did."""
    for method in ("PUT", "DELETE", "POST", "OPTIONS", "PATCH"):
        with pytest.raises(MethodNotAllowed):
            route("/legacy/", method=method)
    for path in ("/", "/pypi", "/pypi/"):
        found = route(path, method="POST")
        assert isinstance(found, Local)
        assert (found.status, found.content_type) == (200, "text/xml")
        assert b"no longer supports 'pip search'" in found.body


# Proof.


def test_digests_of_an_address() -> None:
    """A file kept under its BLAKE2b digest is proven by its address; what lies beside it, or elsewhere, is not."""
    name = "demo-1.0-py3-none-any.whl"
    assert artifact(f"/{BLAKE_PATH}/{name}").digests == (Digest("blake2b_256", BLAKE),)
    assert artifact(f"/files/https/files.example/{BLAKE_PATH}/{name}").digests == (Digest("blake2b_256", BLAKE),)
    for path in (
        f"{BLAKE_PATH}/{name}.metadata",
        f"{BLAKE_PATH}/{name}.provenance",
        f"{BLAKE_PATH}/{name}.asc",
        f"{BLAKE_PATH}/x/{name}",
        f"{BLAKE_PATH.upper().replace('PACKAGES', 'packages')}/{name}",
        f"packages/zz/zz/{'z' * 60}/{name}",
        f"files/https/cdn.example/{BLAKE_PATH}/{name}",
        "packages/source/d/demo/demo-1.0.tar.gz",
    ):
        assert artifact(f"/{path}").digests == ()


@pytest.mark.parametrize(
    ("name", "project"),
    [
        ("demo-1.0-py3-none-any.whl", "demo"),
        ("De_mo.x-1.0-1-py3-none-any.whl.metadata", "de-mo-x"),
        ("demo-1.0%2Bcpu-py3-none-any.whl.provenance", "demo"),
        ("demo-x-1.0.tar.gz", "demo-x"),
        ("demo-x-1.0.zip.asc", "demo-x"),
        ("demo_x-1.0.tar.bz2", "demo-x"),
        ("demo-1.0-py2.7.egg", "demo"),
        ("demo-1.0.win32-py2.7.exe", "demo"),
        ("demo.txt", ""),
        ("demo.whl.sig", ""),
        (".whl", ""),
        ("a%3Fb-1.0.tar.gz", ""),
        ("a%20b-1.0.whl", ""),
        ("..%2B-1.tar.gz", ""),
    ],
)
def test_the_index_of_a_file(name: str, project: str) -> None:
    """A file's name says which project's page names it; a name that says nothing has no index."""
    indexes = artifact(f"/packages/d/{name}").indexes
    assert [index.key for index in indexes] == ([f"simple/{project}"] if project else [])
    assert [index.url for index in indexes] == ([f"{INDEX}{project}/"] if project else [])


@pytest.mark.parametrize(
    ("name", "projects"),
    [
        ("demo-1.0-beta.tar.gz", ["demo-1-0", "demo"]),
        ("python-3parclient-4.0.tar.gz", ["python-3parclient", "python"]),
        ("demo-1.0.linux-x86_64.tar.gz", ["demo-1-0-linux", "demo"]),
        ("Demo-1.0.ZIP", ["demo"]),
    ],
)
def test_a_file_whose_name_is_read_in_two_ways(name: str, projects: list[str]) -> None:
    """Both indexes are looked at, the likelier first."""
    assert [index.key for index in artifact(f"/packages/d/{name}").indexes] == [f"simple/{one}" for one in projects]


def test_a_link_that_only_its_query_tells_from_another() -> None:
    """It is left as it is: the path alone does not lead to the file."""
    links = [f"{FILES}dl?id={number}" for number in (1, 2)] + [f"{FILES}packages/demo-1.0.whl?sig=3"]
    source = page(*(file(link, filename=f"demo-{number}.whl") for number, link in enumerate(links)))
    assert [one["url"] for one in as_json(source)["files"]] == [*links[:2], "../../packages/demo-1.0.whl"]
    facts = registry().facts("simple/demo", source)
    assert facts == {"packages/demo-1.0.whl": Fact(url=links[2], digests=(Digest("sha256", SHA),))}
    assert facts.foreign == {"files.example": (2, links[0])}


def test_facts() -> None:
    """A page says where each file is, its digests and its size, and the same of its metadata."""
    url = f"{FILES}packages/d/demo-1.0-py3-none-any.whl"
    one = file(url, size=10, **{"core-metadata": {"sha256": OTHER_SHA}})
    one["hashes"] = {"sha256": SHA.upper(), "md5": "short", "crc32": "00000000", "blake2b_256": BLAKE}
    facts = registry().facts("simple/demo", page(one))
    digests = (Digest("sha256", SHA), Digest("blake2b_256", BLAKE))
    assert dict(facts) == {
        "packages/d/demo-1.0-py3-none-any.whl": Fact(url=url, digests=digests, size=10),
        "packages/d/demo-1.0-py3-none-any.whl.metadata": Fact(
            url=f"{url}.metadata", digests=(Digest("sha256", OTHER_SHA),)
        ),
    }


@pytest.mark.parametrize(
    ("told", "there", "digests"),
    [
        ({"core-metadata": True}, True, ()),
        ({"core-metadata": {"sha256": OTHER_SHA}}, True, (Digest("sha256", OTHER_SHA),)),
        ({"dist-info-metadata": {"sha256": OTHER_SHA}}, True, (Digest("sha256", OTHER_SHA),)),
        ({"data-dist-info-metadata": True}, True, ()),
        ({"core-metadata": False, "dist-info-metadata": True}, False, ()),
        ({"core-metadata": None}, False, ()),
        ({}, False, ()),
    ],
)
def test_metadata_facts(told: dict[str, Any], there: bool, digests: tuple[Digest, ...]) -> None:
    """The metadata lies beside its file, before any query, with a digest of its own, if the page says so (PEP 658)."""
    facts = registry("cdn.example").facts("simple/demo", page(file("https://cdn.example/demo-1.0.whl?sig=1", **told)))
    found = facts.get("files/https/cdn.example/demo-1.0.whl.metadata")
    assert (found is not None) is there
    if found is not None:
        assert found == Fact(url="https://cdn.example/demo-1.0.whl.metadata?sig=1", digests=digests)


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/demo-1.0.whl",
        "http://cdn.example/demo-1.0.whl",
        "https://cdn.example:444/demo-1.0.whl",
        "https://user:token@cdn.example/demo-1.0.whl",
        "https://cdn.example@evil.example/demo-1.0.whl",
        "//evil.example/demo-1.0.whl",
        "https://cdn.example/%2e%2e/demo-1.0.whl",
        "https://cdn.example/a%5cb/demo-1.0.whl",
        "https://cdn.example/%zz/demo-1.0.whl",
        "ftp://cdn.example/demo-1.0.whl",
    ],
)
def test_other_hosts_are_left_alone(link: str) -> None:
    """A link that may not be fetched from, or not asked for here, is left as it is, known as no fact, and counted."""
    source = page(file(link), file("https://cdn.example/demo-2.0.whl"))
    absolute = urljoin(PAGE, link)
    assert as_json(source, "cdn.example")["files"][0]["url"] == absolute
    assert Anchors(as_html(source, "cdn.example")).found[0]["href"] == f"{absolute}#sha256={SHA}"
    facts = registry("cdn.example").facts("simple/demo", source)
    assert list(facts) == ["files/https/cdn.example/demo-2.0.whl"]
    assert [number for number, _ in facts.foreign.values()] == [1]
    assert not any("token" in host or "@" in host for host in facts.foreign)


def test_links_are_counted_by_host() -> None:
    """How many links lead elsewhere, and the first of them, is known by host."""
    links = [f"https://{host}.example/demo-{number}.whl" for number, host in enumerate(("one", "two", "one"))]
    found = registry().facts("simple/demo", page(*map(file, links))).foreign
    assert found == {"one.example": (2, links[0]), "two.example": (1, links[1])}


@pytest.mark.parametrize("kind", ["text/html", "Text/HTML ; charset=UTF-8", HTML])
def test_types_of_html(kind: str) -> None:
    """A page is HTML by whichever type says so, in any case, with parameters or without."""
    found = as_json(html('<a href="demo-1.0.whl">x</a>', kind=kind))
    assert (found["meta"]["api-version"], len(found["files"])) == ("1.0", 1)


def test_a_host_that_was_not_named_is_told() -> None:
    """Whoever asks for a file of a host that was not named is told which, and which option names hosts."""
    with pytest.raises(NotFound, match=r"https/evil\.example is not among the artifact-hosts of pypi"):
        route("/files/https/evil.example/a/b.whl")


def test_final_url_and_base() -> None:
    """Relative links are relative to the page after redirects, or to its base element, not to what was asked for."""
    source = html('<base href="/whl/"><a href="demo-1.0.whl">demo</a>', url="https://cdn.example/deep/er/demo/")
    assert as_json(source, "cdn.example")["files"][0]["url"] == "../../files/https/cdn.example/whl/demo-1.0.whl"
    source = html('<a href="demo-1.0.whl">demo</a>', url="https://cdn.example/deep/er/demo/")
    wanted = "../../files/https/cdn.example/deep/er/demo/demo-1.0.whl"
    assert as_json(source, "cdn.example")["files"][0]["url"] == wanted
    source = html('<base href="//cdn.example/x/"><base href="/y/"><a href="demo-1.0.whl">demo</a>')
    assert as_json(source, "cdn.example")["files"][0]["url"] == "../../files/https/cdn.example/x/demo-1.0.whl"


# Forms.


def test_json_keeps_everything() -> None:
    """From JSON to JSON only links change: every key, known or not, stays as it was, and the version with it."""
    url = f"{FILES}packages/d/demo-1.0.whl"
    provenance = "https://index.example/integrity/demo/1.0/demo-1.0.whl/provenance"
    one = file(url, size=7, yanked="why <not>", provenance=provenance, unheard={"of": [1]})
    one |= {"upload-time": "2024-01-01T00:00:00.5Z", "requires-python": ">=3.9", "gpg-sig": True}
    one |= {"core-metadata": {"sha256": OTHER_SHA}, "data-dist-info-metadata": {"sha256": OTHER_SHA}}
    more: dict[str, Any] = {
        "meta": {"api-version": "1.4", "_last-serial": 7, "tracks": ["https://other.example/simple/demo/"]},
        "versions": ["1.0"],
        "alternate-locations": ["https://other.example/simple/demo/"],
        "project-status": {"status": "archived", "reason": "done"},
        "_private": None,
    }
    found = as_json(page(one, **more))
    changed = {"url": "../../packages/d/demo-1.0.whl"}
    changed["provenance"] = f"{MOUNT}integrity/demo/1.0/demo-1.0.whl/provenance"
    assert found == {**more, "name": "demo", "files": [{**one, **changed}]}


def test_html_tells_everything() -> None:
    """From JSON to HTML nothing that HTML can say is lost, and what must be escaped is."""
    one = file(f"{FILES}packages/d/demo-1.0.whl", yanked='<b> "why" &', **{"requires-python": ">=3.9, <4"})
    one |= {"core-metadata": {"sha256": OTHER_SHA}, "gpg-sig": False, "provenance": "https://cdn.example/p.json"}
    one["hashes"] = {"md5": "c" * 32, "sha256": SHA, "blake2b_256": BLAKE}
    tracks = ["https://other.example/a/", "https://other.example/b/"]
    more: dict[str, Any] = {"project-status": {"status": "quarantined", "reason": "<bad>"}}
    more |= {"alternate-locations": ["https://a.example/"], "meta": {"api-version": "1.4", "tracks": tracks}}
    source = page(one, **more)
    text = as_html(source)
    anchors = Anchors(text)
    assert anchors.found == [
        {
            "href": f"../../packages/d/demo-1.0.whl#sha256={SHA}",
            "data-requires-python": ">=3.9, <4",
            "data-yanked": '<b> "why" &',
            "data-core-metadata": f"sha256={OTHER_SHA}",
            "data-dist-info-metadata": f"sha256={OTHER_SHA}",
            "data-gpg-sig": "false",
            "data-provenance": "https://cdn.example/p.json",
        }
    ]
    assert 'data-requires-python="&gt;=3.9, &lt;4"' in text
    assert "<b>" not in text
    assert "<bad>" not in text
    assert anchors.meta == [
        ("pypi:repository-version", "1.4"),
        ("pypi:tracks", tracks[0]),
        ("pypi:tracks", tracks[1]),
        ("pypi:alternate-locations", "https://a.example/"),
        ("pypi:project-status", "quarantined"),
        ("pypi:project-status-reason", "<bad>"),
    ]


@pytest.mark.parametrize(
    ("told", "attribute"), [(True, ""), ("", None), (False, None), (None, None), ("why", "why"), ("0", "0")]
)
def test_yanked(told: Any, attribute: str | None) -> None:
    """A file is yanked in HTML if and only if it is in JSON, with its reason (PEP 592, PEP 691)."""
    anchor = Anchors(as_html(page(file(f"{FILES}packages/demo-1.0.whl", yanked=told)))).found[0]
    assert anchor.get("data-yanked") == attribute
    assert ("data-yanked" in anchor) is bool(told)


@pytest.mark.parametrize(
    ("attribute", "told"),
    [("", ...), ("data-yanked", True), ('data-yanked=""', True), ('data-yanked="&lt;x&gt;"', "<x>")],
)
def test_yanked_in_html(attribute: str, told: Any) -> None:
    """A file that an HTML page says is yanked is, whether it gives a reason or not."""
    found = as_json(html(f'<a href="demo-1.0.whl" {attribute}>demo-1.0.whl</a>'))["files"][0]
    assert found.get("yanked", ...) == told


@pytest.mark.parametrize(
    ("fragment", "hashes"),
    [
        ("", {}),
        (f"#sha256={SHA}", {"sha256": SHA}),
        (f"#sha256={SHA.upper()}", {"sha256": SHA}),
        (f"#sha256={SHA}&amp;egg=demo-1.0", {"sha256": SHA}),
        (f"#egg=demo-1.0&amp;sha256={SHA}", {"sha256": SHA}),
        (f"#egg=demo-1.0&amp;sha256={SHA}&amp;subdirectory=x", {"sha256": SHA}),
        (f"#md5={'c' * 32}", {"md5": "c" * 32}),
        (f"#sha224={'d' * 56}", {"sha224": "d" * 56}),
        ("#egg=demo", {}),
        ("#xsha256=00", {}),
    ],
)
def test_fragments(fragment: str, hashes: dict[str, str]) -> None:
    """A hash is found wherever in the fragment it stands, told in both forms, once, and never sent upstream."""
    source = html(f'<a href="{FILES}packages/demo-1.0.whl{fragment}">demo-1.0.whl</a>')
    assert as_json(source)["files"] == [
        {"filename": "demo-1.0.whl", "url": "../../packages/demo-1.0.whl", "hashes": hashes}
    ]
    wanted = "".join(f"#{name}={value}" for name, value in hashes.items())
    assert Anchors(as_html(source)).found[0]["href"] == f"../../packages/demo-1.0.whl{wanted}"
    assert registry().facts("simple/demo", source)["packages/demo-1.0.whl"].url == f"{FILES}packages/demo-1.0.whl"


def test_fragments_in_json() -> None:
    """A fragment in a JSON link is not doubled in HTML, and tells a hash that the entry does not."""
    link = f"{FILES}packages/demo-1.0.whl#sha256={OTHER_SHA}"
    told, silent = file(link, filename="demo-1.0.whl"), {"filename": "demo-1.0.whl", "url": link}
    assert [one["href"] for one in Anchors(as_html(page(told, silent))).found] == [
        f"../../packages/demo-1.0.whl#sha256={SHA}",
        f"../../packages/demo-1.0.whl#sha256={OTHER_SHA}",
    ]


def test_hashes_are_always_there() -> None:
    """Every file of a JSON page has hashes, be there none (PEP 691)."""
    url = f"{FILES}packages/demo-1.0.whl"
    found = as_json(page({"filename": "demo-1.0.whl", "url": url}, file(url, hashes=None), file(url, hashes="x")))
    assert [one["hashes"] for one in found["files"]] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ("", None),
        ('data-dist-info-metadata="true"', True),
        ('data-core-metadata="true"', True),
        ("data-core-metadata", True),
        ('data-core-metadata="false"', False),
        (f'data-core-metadata="sha256={SHA}"', {"sha256": SHA}),
        (f'data-core-metadata="sha256={SHA}" data-dist-info-metadata="sha256={OTHER_SHA}"', {"sha256": SHA}),
    ],
)
def test_metadata_from_html(attribute: str, told: Any) -> None:
    """What HTML says of metadata is said in JSON under the one name that breaks no client (PEP 714)."""
    source = html(f'<a href="{FILES}packages/demo-1.0.whl" {attribute}>demo-1.0.whl</a>')
    found = as_json(source)["files"][0]
    assert found.get("core-metadata") == told
    assert "dist-info-metadata" not in found
    anchor = Anchors(as_html(source)).found[0]
    assert anchor.get("data-core-metadata") == anchor.get("data-dist-info-metadata")
    assert ("data-core-metadata" in anchor) is bool(told)


@pytest.mark.parametrize("told", [{}, {"sha512": "d" * 128}, {"sha3_256": "e" * 64}])
def test_metadata_without_a_usual_hash(told: dict[str, str]) -> None:
    """It is there all the same, and HTML says so."""
    source = page(file(f"{FILES}packages/demo-1.0.whl", **{"core-metadata": told}))
    value = f"sha512={told['sha512']}" if "sha512" in told else "true"
    assert Anchors(as_html(source)).found[0]["data-core-metadata"] == value
    assert "packages/demo-1.0.whl.metadata" in registry().facts("simple/demo", source)


def test_html_to_json_is_honest() -> None:
    """A JSON page made from HTML promises no more than HTML tells; an HTML page made from it keeps the version."""
    text = (
        '<meta name="pypi:repository-version" content="1.3"><meta name="pypi:tracks" content="https://a.example/">'
        '<meta name="PyPI:project-status" content="archived"><meta name="pypi:project-status-reason" content="x">'
        '<meta name="pypi:alternate-locations" content="https://b.example/">'
        f'<a href="{FILES}packages/demo-1.0.tar.gz" data-requires-python="&gt;=3.6" data-gpg-sig="true"'
        ' data-provenance="https://cdn.example/p">demo-1.0.tar.gz</a>'
    )
    found = as_json(html(text), "cdn.example")
    assert found == {
        "meta": {"api-version": "1.0", "tracks": ["https://a.example/"]},
        "name": "demo",
        "alternate-locations": ["https://b.example/"],
        "project-status": {"status": "archived", "reason": "x"},
        "files": [
            {
                "filename": "demo-1.0.tar.gz",
                "url": "../../packages/demo-1.0.tar.gz",
                "hashes": {},
                "requires-python": ">=3.6",
                "gpg-sig": True,
                "provenance": f"{MOUNT}files/https/cdn.example/p",
            }
        ],
    }
    anchors = Anchors(as_html(html(text), "cdn.example"))
    assert ("pypi:repository-version", "1.3") in anchors.meta
    assert ("pypi:tracks", "https://a.example/") in anchors.meta
    assert ("pypi:project-status", "archived") in anchors.meta


def test_both_forms_say_the_same() -> None:
    """A page made HTML and read again is the page it was."""
    one = file(f"{FILES}packages/demo-1.0.whl", yanked="why", **{"requires-python": "<4", "gpg-sig": True})
    one |= {"core-metadata": {"sha256": OTHER_SHA}}
    source = page(one, file(f"{FILES}packages/demo-2.0.tar.gz"), meta={"api-version": "1.0"})
    again = html(as_html(source), url="https://cache.example/simple/demo/")
    downstream = registry(url="https://cache.example/simple/", files="https://cache.example/")
    assert json.loads(downstream.represent("simple/demo", again, "json", "")) == as_json(source)


def test_rewriting_is_idempotent() -> None:
    """A page rewritten once is not changed by being rewritten again, in either form, and no input is changed."""
    mount = "https://cache.example/pypi/"
    downstream = registry(url=f"{mount}simple/", files=mount)
    source = page(file(f"{FILES}packages/demo-1.0.whl", yanked="why"), file("https://evil.example/demo-1.0.whl"))
    for form, kind in (("json", JSON), ("html", "text/html")):
        once = registry().represent("simple/demo", source, form, "")
        assert registry().represent("simple/demo", source, form, "") == once
        again = Source(body=once, content_type=kind, url=f"{mount}simple/demo/")
        assert downstream.represent("simple/demo", again, form, "") == once


def test_provenance() -> None:
    """Provenance has a full URL, as PEP 740 asks, through the proxy where it may be fetched; it is never dropped."""
    own = "https://index.example/integrity/demo/1.0/demo-1.0.whl/provenance"
    links: list[Any] = [own, "/integrity/demo/1.0/demo-1.0.whl/provenance", f"{FILES}packages/demo-1.0.whl.provenance"]
    links += ["https://evil.example/p", "https://[bad", None]
    files = [file(f"{FILES}packages/demo-1.0.whl", provenance=link) for link in links]
    assert [one["provenance"] for one in as_json(page(*files))["files"]] == [
        f"{MOUNT}integrity/demo/1.0/demo-1.0.whl/provenance",
        f"{MOUNT}integrity/demo/1.0/demo-1.0.whl/provenance",
        f"{MOUNT}packages/demo-1.0.whl.provenance",
        "https://evil.example/p",
        "https://[bad",
        None,
    ]
    key = "integrity/demo/1.0/demo-1.0.whl/provenance"
    found = Source(body=b'{"version": 1}', content_type="application/json", url=own)
    assert registry().represent(key, found, "as-is", "") == found.body
    assert registry().facts(key, found) == {}
    with pytest.raises(BadDocument):
        registry().facts(key, html("<p>log in</p>"))


@pytest.mark.parametrize("version", ["2.0", "3", "10.1"])
def test_unknown_major(version: str) -> None:
    """A version that cannot be read is served as it came, or as nothing under that version; no file of it is known."""
    body = json.dumps({"meta": {"api-version": version}, "stuff": [f"{FILES}packages/demo.whl"]}).encode()
    source = Source(body=body, content_type=JSON, url=PAGE)
    text = f'<meta name="pypi:repository-version" content="{version}"><a href="{FILES}packages/demo-1.whl">x</a>'
    for name in ("simple/demo", "simple"):
        assert registry().represent(name, source, "json", "") == body
        anchors = Anchors(as_html(source, name=name))
        assert (anchors.meta, anchors.found) == ([("pypi:repository-version", version)], [])
        assert as_html(html(text), name=name) == text
        found = as_json(html(text), name=name)
        assert found["meta"] == {"api-version": version}
        assert not found["files"]
        assert registry().facts(name, source) == registry().facts(name, html(text)) == {}


def test_unknown_minor() -> None:
    """A later minor version is read as usual, and says what it is."""
    found = as_json(page(file(f"{FILES}packages/demo-1.0.whl"), meta={"api-version": "1.99"}))
    assert found["meta"] == {"api-version": "1.99"}
    assert found["files"][0]["url"] == "../../packages/demo-1.0.whl"


def test_malformed_entries() -> None:
    """What is no entry of an index is left out; the rest is served."""
    good = file(f"{FILES}packages/demo-1.0.whl")
    bad: list[Any] = [None, 1, "x", [], {}, {"url": 1, "filename": "x"}, {"url": "https://[bad/x.whl", "filename": "x"}]
    found = page(*bad, good, {"filename": "y", "hashes": {}})
    assert [one["filename"] for one in as_json(found)["files"]] == ["demo-1.0.whl"]
    assert len(Anchors(as_html(found)).found) == 1
    assert list(registry().facts("simple/demo", found)) == ["packages/demo-1.0.whl"]


def test_projects() -> None:
    """The list of projects comes in both forms, from both, with links relative to it and names that cannot escape."""
    names = ["Demo_X", "alpha", '"><script>', "a b"]
    projects: list[Any] = [{"name": name} for name in names]
    body = json.dumps({"meta": {"api-version": "1.1", "_last-serial": 3}, "projects": [*projects, 1, {}]}).encode()
    source = Source(body=body, content_type=JSON, url=INDEX)
    assert as_json(source, name="simple") == {
        "meta": {"api-version": "1.1", "_last-serial": 3},
        "projects": projects,
    }
    text = as_html(source, name="simple")
    assert [one["href"] for one in Anchors(text).found] == ["demo-x/", "alpha/"]
    assert "<script>" not in text
    for upstream in (
        text,
        '<a href="/simple/demo-x/">Demo_X</a><a href="alpha">alpha</a> (3 files)<a href="/">home</a>',
    ):
        again = html(upstream, url=INDEX)
        assert as_json(again, name="simple")["projects"] == [{"name": "Demo_X"}, {"name": "alpha"}]
        assert registry().facts("simple", again) == {}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b"{}"),
        (JSON, b"\xff"),
        (JSON, b'{"meta": {}, "name": "demo"}'),
        (JSON, b'{"meta": {}, "name": "demo", "files": {}}'),
        (JSON, b'{"meta": {}, "files": []}'),
        (JSON, b'{"name": "demo", "files": []}'),
        (JSON, b'{"meta": [], "name": "demo", "files": []}'),
        ("application/json", b'{"error": "log in"}'),
        ("text/plain", b"gone"),
        ("", b""),
        ("application/octet-stream", b'{"meta": {}, "name": "demo", "files": []}'),
        ("text/html", b""),
        ("text/html", b"<html><body>Please <a href='/login'>log in</a></body></html>"),
        ("text/html", b"<form><input type=password></form><a href='demo-1.0.whl'>x</a>"),
        ("text/html", b"<a href='/terms.html'>Terms</a> <a href='/x.pdf'>x</a>"),
        ("text/html", b"<title>Blocked</title><meta name=viewport content=x>"),
    ],
)
def test_no_index(kind: str, body: bytes) -> None:
    """What is no index, such as the page of a portal or of a login, is refused, whatever is wanted of it."""
    source = Source(body=body, content_type=kind, url=PAGE)
    for name in ("simple/demo", "simple"):
        with pytest.raises(BadDocument, match=r"index\.example"):
            registry().facts(name, source)
        for form in ("json", "html"):
            with pytest.raises(BadDocument):
                registry().represent(name, source, form, "")


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE html><meta name="pypi:repository-version" content="1.0"><title>Links for demo</title>',
        "<title>Links for demo</title><h1>Links for demo</h1>",
    ],
)
def test_empty_index(text: str) -> None:
    """A project without files is an index all the same."""
    assert as_json(html(text))["files"] == []


def test_index_with_a_button() -> None:
    """A form on a page that lists files, as some index servers show one, does not make it a login."""
    text = '<form action="/refresh"><input type="submit"></form><a href="demo-1.0.whl">demo-1.0.whl</a>'
    assert len(as_json(html(text))["files"]) == 1


@given(st.text(max_size=200), st.sampled_from([JSON, "text/html", HTML, "text/plain"]))
def test_any_document(text: str, kind: str) -> None:
    """Whatever an upstream sends, it is an index or a BadDocument."""
    source = Source(body=text.encode("utf-8", "replace"), content_type=kind, url=PAGE)
    for name in ("simple", "simple/demo", "json/demo"):
        try:
            registry().facts(name, source)
            registry().represent(name, source, "api" if name == "json/demo" else "html", "http://cache/")
        except BadDocument:
            continue


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.sampled_from(["https://[", "../x.whl"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FILE_KEYS = ["url", "filename", "hashes", "yanked", "core-metadata", "provenance", "size", "requires-python", "gpg-sig"]
PAGE_KEYS = ["name", "alternate-locations", "project-status", "versions"]


@given(
    st.lists(st.dictionaries(st.sampled_from(FILE_KEYS), JSONS), max_size=3),
    st.dictionaries(st.sampled_from(PAGE_KEYS), JSONS),
    st.dictionaries(st.sampled_from(["api-version", "tracks"]), JSONS),
)
def test_any_page(files: list[Any], more: dict[str, Any], meta: dict[str, Any]) -> None:
    """A page whose values are of any type whatever is served or refused, in both forms; nothing else happens."""
    source = page(*files, **{**more, "meta": meta})
    for form in ("json", "html"):
        try:
            registry().facts("simple/demo", source)
            registry().represent("simple/demo", source, form, "")
        except BadDocument:
            continue


# The JSON API.


def test_json_api() -> None:
    """The older JSON API's file links lead through this mount, absolute; its other links and digests are untouched."""
    link = f"{FILES}packages/demo-1.0.whl"
    entry = {"url": link, "digests": {"sha256": SHA}, "filename": "demo-1.0.whl"}
    info = {"name": "demo", "home_page": "https://files.example/packages/x", "project_url": f"{INDEX}demo/"}
    other = {**entry, "url": "https://evil.example/demo.whl"}
    body = {"info": info, "urls": [entry, other, 1], "releases": {"1.0": [entry], "0.9": None}, "last_serial": 1}
    source = Source(body=json.dumps(body).encode(), content_type="application/json", url="https://index.example/x")
    for base in ("http://one:8650/pypi/", "https://two.example/a/b/"):
        found = json.loads(registry().represent("json/demo", source, "api", base))
        mine = {**entry, "url": f"{base}packages/demo-1.0.whl"}
        assert found == {**body, "urls": [mine, other, 1], "releases": {"1.0": [mine], "0.9": None}}
    assert registry().facts("json/demo", source) == {}
    assert document("/pypi/demo/json").linked
    for bad in (b"{}", b"[]", b'{"message": "Not Found"}', b"<html>"):
        with pytest.raises(BadDocument):
            registry().facts("json/demo", Source(body=bad, content_type="application/json", url=PAGE))


# Configuration.


def test_defaults() -> None:
    """Without options it serves the public index, whose files are on another host under packages/."""
    public = make(RegistryOptions(name="pypi", type="pypi"))
    assert public.options.url == PyPI.default_url
    found = public.route(RequestHead(method="GET", path=f"/{BLAKE_PATH}/demo-1.0.whl"))
    assert isinstance(found, Artifact)
    assert public.allows(found.url)
    facts = public.facts("simple/demo", page(file(found.url), url=f"{PyPI.default_url}demo/"))
    assert list(facts) == [found.key] == [f"{BLAKE_PATH}/demo-1.0.whl"]


def test_files_below_a_path() -> None:
    """A files host of one's own may keep its packages below a path."""
    own = registry(files="https://files.example/mirror/x")
    found = own.route(RequestHead(method="GET", path="/packages/demo-1.0.whl"))
    assert isinstance(found, Artifact)
    assert (found.key, found.url) == ("packages/demo-1.0.whl", "https://files.example/mirror/x/packages/demo-1.0.whl")
    elsewhere = own.facts("simple/demo", page(file("https://files.example/packages/demo-1.0.whl")))
    assert list(elsewhere) == ["files/https/files.example/packages/demo-1.0.whl"]


@pytest.mark.parametrize("files", ["nonsense", "ftp://files.example/", "https://user:secret@files.example/"])
def test_bad_files_host(files: str) -> None:
    """A files host that is no URL is refused without repeating a password."""
    with pytest.raises(ConfigError) as caught:
        registry(files=files)
    assert "secret" not in caught.value.detail


def test_errors_and_client_lines() -> None:
    """Errors are plain text, as pip shows them, and every client line names the mount."""
    assert registry().error(404, "There is nothing.") == ("text/plain; charset=utf-8", b"There is nothing.\n")
    lines = registry().client_lines("http://127.0.0.1:8650/pypi/")
    assert all("http://127.0.0.1:8650/pypi/simple/" in line for line in lines)
    assert any("pip " in line for line in lines)


@given(st.text("aZ09._-é٣ \n", max_size=6))
def test_names_are_normalised_as_everywhere(name: str) -> None:
    """Also those in which there is nothing to replace, which are found out sooner."""
    try:
        expected = canonicalize_name(name, validate=True) if name.isascii() else ""
    except InvalidName:
        expected = ""
    assert normal(name) == expected


class TestContract(RegistryContract):
    """What every registry must do."""

    type = "pypi"

    def behind(self, sample: Sample) -> IRegistry:
        return self.registry(evolve(sample, options={"extra": {"files": BASE}}), f"{BASE}simple/")

    def sample(self) -> Sample:
        wheel, metadata = b"a wheel", b"Metadata-Version: 2.1\n"
        blake = hashlib.blake2b(wheel, digest_size=32).hexdigest()
        there = f"{FILES}packages/{blake[:2]}/{blake[2:4]}/{blake[4:]}/demo-1.0-py3-none-any.whl"
        hashes = {"sha256": hashlib.sha256(wheel).hexdigest()}
        listed = file(there, hashes=hashes, **{"core-metadata": {"sha256": hashlib.sha256(metadata).hexdigest()}})
        projects = {"meta": {"api-version": "1.4"}, "projects": [{"name": "demo"}]}
        told = {"info": {"name": "demo"}, "urls": [], "releases": {}}
        forms = [(("accept", JSON),), (("accept", HTML),), (("accept", "text/html"),)]
        below = there.removeprefix(FILES)
        return Sample(
            url=INDEX,
            pages={
                INDEX: Page(body=json.dumps(projects).encode(), headers={"content-type": JSON}),
                PAGE: Page(body=page(listed).body, headers={"content-type": JSON}),
                "https://index.example/pypi/demo/json": Page(
                    body=json.dumps(told).encode(), headers={"content-type": "application/json"}
                ),
                there: Page(body=wheel),
                f"{there}.metadata": Page(body=metadata),
            },
            documents=(
                *(Ask(path, form) for path in ("/simple/", "/simple/demo/") for form in forms),
                Ask("/pypi/demo/json"),
            ),
            artifacts={Ask(f"/{below}"): there},
            hosts=frozenset({"files.example"}),
            nameless=frozenset(Ask("/simple/", form) for form in forms),
            options={"extra": {"files": FILES}},
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        if ask.path != "/simple/demo/":
            return []
        if ask.fields == (("accept", JSON),):
            return [one["url"] for one in json.loads(body)["files"]]
        return [anchor["href"] or "" for anchor in Anchors(body.decode()).found]
