"""The page for people: what it says, to whom, and that no text of others' is more than text on it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Coroutine, Iterable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from msgspec.structs import replace
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.filepath import FilePath
from twisted.web.error import FlattenerError
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.template import XMLFile

from regcache import words
from regcache.auth import Door
from regcache.config import Config
from regcache.counts import Asked
from regcache.errors import CutShort, NotFound, TooBusy, Unneeded, UpstreamError
from regcache.failures import Failures
from regcache.flow.reply import Reply
from regcache.flow.upstream import origins_of
from regcache.http.messages import Kind, Stored
from regcache.page.parts import filled
from regcache.pages import HEALTH, Visit, own_page
from regcache.store.holding import Condition
from regcache.store.index import Index, connect
from regcache.web import RegCacheResource
from tests.wire import Answered, Wire, answers, nothing_logged

NOW = 1_700_000_000.0
HOSTILE = '<script>alert("1")</script>'


class Read(HTMLParser):
    """A page as a browser reads it: the elements with their fields, and the text that a person sees."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(body.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text = f"{self.text.rstrip()} {data.strip()}"

    def of(self, tag: str) -> list[dict[str, str]]:
        """The fields of the elements of that name."""
        return [fields for name, fields in self.elements if name == tag]

    def links(self) -> list[str]:
        """Where something leads, or comes from."""
        named = ("href", "src", "action", "data-figures")
        return [fields[name] for _, fields in self.elements for name in named if name in fields]


def entry(key: str, kind: Kind = Kind.DOCUMENT, **fields: Any) -> Stored:
    """An entry that was stored an hour ago."""
    made = Stored(
        key=key,
        registry=key.partition("/")[0],
        kind=kind,
        url="https://index.example/x",
        digest=hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest(),
        size=2048,
        stored_at=NOW - 3600,
        validated_at=NOW - 3600,
    )
    return replace(made, **fields)


def stored(directory: Path, entries: Iterable[Stored]) -> None:
    """Have an index with these entries, the last of them used last."""
    index = Index(connect(directory / "index.sqlite3"))
    index.begin()
    for number, one in enumerate(entries):
        index.insert([(one, 4096)], NOW - 1000 + number)
    index.commit()
    index.connection.close()


def package(name: str, *versions: str, **fields: Any) -> list[Stored]:
    """What is stored of an npm package."""
    page = f"npm/packument/{name}"
    base = name.rpartition("/")[2]
    files = [entry(f"npm/{name}/-/{base}-{one}.tgz", Kind.ARTIFACT, parent=page) for one in versions]
    return [entry(page, **fields), *files]


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    """A service in memory, whose index is in a directory of the test's."""
    made = Wire(Config(cache_dir=str(tmp_path)))
    assert made.kit.wall == NOW
    return made


def asked(
    wire: Wire, path: str = "/", method: str = "GET", accept: str = "text/html", address: str = "127.0.0.1"
) -> Answered:
    """What is answered there."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost:8650\r\nAccept: {accept}\r\n\r\n"
    with nothing_logged():
        sent = wire.connect(head.encode(), address=address).value()
    (found,) = answers(sent, head=method == "HEAD")
    return found


def seen(wire: Wire, path: str = "/") -> Read:
    """The page, read."""
    found = asked(wire, path)
    assert found.status == 200
    return Read(found.body)


def listed(wire: Wire, query: str) -> list[str]:
    """The packages that a search lists, in order."""
    body = asked(wire, f"/?{query}").body.decode()
    return re.findall(r'<span class="name">([^<]*)</span>', body)


def test_people_get_the_page_and_programs_get_text(wire: Wire) -> None:
    """Browsers ask for HTML before all else; curl and scripts take anything, and get lines."""
    page = asked(wire, accept="text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
    assert dict(page.headers)["content-type"] == "text/html; charset=utf-8"
    assert page.body.startswith(b"<!DOCTYPE html>\n<html")
    for accept in ("*/*", "", "text/plain", "application/json"):
        text = asked(wire, accept=accept)
        assert dict(text.headers)["content-type"] == "text/plain; charset=utf-8"
        assert b"pypi at http://localhost:8650/pypi/" in text.body
        assert (dict(page.headers)["vary"], dict(text.headers)["vary"]) == ("Accept", "Accept")


def test_what_browsers_are_told(wire: Wire) -> None:
    """Nothing runs but our own files, and nothing is kept; registries' pages stay in their sandbox."""
    for path in ("/", "/?q=x"):
        fields = dict(asked(wire, path).headers)
        policy = dict(one.partition(" ")[::2] for one in fields["content-security-policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
            **dict.fromkeys(("style-src", "script-src", "img-src", "connect-src", "form-action"), "'self'"),
        }
        assert fields["cache-control"] == "no-store"
        assert fields["x-content-type-options"] == "nosniff"
        assert fields["referrer-policy"] == "no-referrer"
    assert [name for name, _ in asked(wire).headers].count("content-security-policy") == 1
    text = dict(asked(wire, accept="*/*").headers)
    assert text["content-security-policy"].startswith("sandbox")


def test_what_belongs_to_the_page(wire: Wire) -> None:
    """Every file that it names is there, with its type, and may be kept, since its link changes with it."""
    page = seen(wire)
    kinds = {"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"}
    found = [link for link in page.links() if link.startswith("-/page/") and "?v=" in link]
    assert sorted(link.partition("?")[0].removeprefix("-/page/") for link in found) == sorted(kinds)
    for link in found:
        answer = asked(wire, f"/{link}")
        fields = dict(answer.headers)
        assert answer.status == 200
        assert fields["content-type"].startswith(kinds[link.partition("?")[0].removeprefix("-/page/")])
        assert "immutable" in fields["cache-control"]
        assert hashlib.sha256(answer.body).hexdigest().startswith(link.partition("=")[2])
    assert asked(wire, "/-/page/other.css").status == 404
    # Nothing in the markup that the policy would refuse.
    assert not page.of("style")
    assert [
        fields for _, fields in page.elements if "style" in fields or any(one.startswith("on") for one in fields)
    ] == []


def test_it_works_without_scripts_for_keyboards_and_screen_readers(wire: Wire, tmp_path: Path) -> None:
    """A landmark each, headings in order, a label for each field, heads for tables, no button that does nothing."""
    stored(tmp_path, package("left", "1.0.0", "1.1.0"))
    page = seen(wire)
    assert [len(page.of(tag)) for tag in ("html", "header", "main", "footer", "h1")] == [1] * 5
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("nav")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    names = {fields["id"] for _, fields in page.elements if "id" in fields}
    assert len(names) == len([fields for _, fields in page.elements if "id" in fields])
    assert {fields["for"] for fields in page.of("label")} == {"q", "registry", "stale"} <= names
    assert {link[1:] for link in page.links() if link.startswith("#")} <= names
    assert page.links()[next(at for at, link in enumerate(page.links()) if link.startswith("#"))] == "#main"
    assert len(page.of("caption")) == len(page.of("table")) == 1
    assert {fields["scope"] for fields in page.of("th")} == {"col", "row"}
    # What only a script can do is shown by the script.
    assert all("hidden" in fields for fields in page.of("button") if fields.get("type") == "button")
    assert all(fields.get("aria-hidden") == "true" for fields in page.of("svg"))
    assert [fields["aria-live"] for _, fields in page.elements if "aria-live" in fields] == ["polite"]


@pytest.mark.parametrize("name", [HOSTILE, "a\u202eb", "x' onload='y", "&lt;b&gt;", "a\x00b\x1b[31m"])
def test_names_of_others_are_text(wire: Wire, tmp_path: Path, name: str) -> None:
    """Whatever a package, a version, a failure or a search is called, the page has the same elements as ever."""
    stored(tmp_path, package("plain", "1.0.0"))
    wire.house.cache.context.upstream.counts.failures.note(NOW, "npm/packument/plain", UpstreamError("plain"))
    plain = seen(wire, "/?q=plain")
    Path(tmp_path / "index.sqlite3").unlink()
    stored(tmp_path, package(name, f"1.0.0{name}"))
    wire.house.cache.context.upstream.counts.failures = Failures()
    wire.house.cache.context.upstream.counts.failures.note(NOW, f"npm/packument/{name}", UpstreamError(name))
    page = seen(wire)
    shape = [(tag, sorted(fields)) for tag, fields in page.elements]
    # It is not what was looked for, so there is one link less.
    expected = [(tag, sorted(fields)) for tag, fields in plain.elements if fields.get("class") != "clear"]
    assert shape == expected
    safe = name.encode("unicode_escape").decode() if not name.isprintable() else name
    assert page.text.count(safe.replace("\\\\", "\\")) >= 3
    assert not any(character in page.text for character in "\u202e\x00\x1b")


def test_what_is_looked_for_is_text(wire: Wire) -> None:
    """The words come back in their field, whatever they are, and in nothing else."""
    page = seen(wire, "/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&registry=%3Cb%3E&page=x&stale=2&package=%3Ci%3E&x=y")
    (field,) = [fields for fields in page.of("input") if fields["id"] == "q"]
    assert field["value"] == '"><script>alert(1)</script>'
    assert len(page.of("script")) == 1
    assert "No such package is stored." in page.text
    for query in ("q=%ff%fe", "page=99999999999", "page=-1", "page=%D9%A3", "q=" + "x" * 4000, "&&=;", "q=%25_%5C"):
        assert asked(wire, f"/?{query}").status == 200, query


def test_searches(wire: Wire, tmp_path: Path) -> None:
    """Names are found by a part, in whatever spelling the ecosystem knows, the like of them first."""
    pep = "pypi/packages/aa/bb/" + "c" * 60
    stored(
        tmp_path,
        [
            *package("react", "19.0.0"),
            *package("react-dom", "19.0.0"),
            *package("@types/react", "19.0.0"),
            *package("preact", "10.0.0"),
            entry("pypi/simple/zope-interface"),
            entry(f"{pep}/zope_interface-7.2-py3-none-any.whl", Kind.ARTIFACT, parent="pypi/simple/zope-interface"),
            entry("maven/org/example/tool/1.0/tool-1.0.jar", Kind.ARTIFACT),
            entry("go/example.org/!big/tool/@v/v1.2.3.zip", Kind.ARTIFACT),
            entry("generic/deep/tool.zip", Kind.ARTIFACT),
            entry("npm/packument/react\x00json", Kind.DERIVED, parent="npm/packument/react"),
        ],
    )
    assert listed(wire, "q=react") == ["react", "react-dom", "@types/react", "preact"]
    assert listed(wire, "q=REACT&registry=npm") == ["react", "react-dom", "@types/react", "preact"]
    assert listed(wire, "q=react&registry=pypi") == []
    for query in ("zope.interface", "zope_interface", "Zope-Interface", "interface"):
        assert listed(wire, f"q={query}") == ["zope-interface"], query
    assert listed(wire, "q=org.example:tool") == ["org.example:tool"]
    assert listed(wire, "q=example.org/Big") == ["example.org/Big/tool"]
    assert sorted(listed(wire, "q=tool")) == ["deep/tool.zip", "example.org/Big/tool", "org.example:tool"]
    assert listed(wire, "q=nothing") == []
    assert listed(wire, "q=100%25") == []
    assert listed(wire, "registry=go") == ["example.org/Big/tool"]
    # What was used last comes first where nothing is looked for.
    assert listed(wire, "")[:3] == ["deep/tool.zip", "example.org/Big/tool", "org.example:tool"]


def test_versions_and_their_ages(wire: Wire, tmp_path: Path) -> None:
    """The newest versions first, by number, with what each takes, since when, and whether it was taken back."""
    versions = ["1.9.0", "1.10.0", "1.10.0-rc.1", *(f"0.{number}.0" for number in range(20))]
    found = package("left", *versions)
    found[1] = replace(found[1], withdrawn=410, stored_at=NOW - 3 * 86400)
    stored(tmp_path, found)
    page = asked(wire, "/?q=left").body.decode()
    assert re.findall(r'<th scope="row">([^<]*?) ', page)[:4] == ["1.10.0", "1.10.0-rc.1", "1.9.0", "0.19.0"]
    text = Read(page.encode()).text
    assert "1.9.0 withdrawn 2.0 KiB 3 d ago 0" in text
    assert "1.10.0 2.0 KiB 1 h ago 0" in text
    assert "23 versions" in text
    (link,) = [link for link in Read(page.encode()).links() if "package=" in link]
    assert link == "?q=left&registry=npm&package=left#packages"
    whole = asked(wire, "/" + link.partition("#")[0]).body.decode()
    assert len(re.findall('<th scope="row">', whole)) == 23
    assert listed(wire, "registry=npm&package=lef") == []


def test_all_versions_are_found_where_no_document_names_them(wire: Wire, tmp_path: Path) -> None:
    """By what their keys begin with, however long ago each was used."""
    files = [entry(f"maven/org/example/tool/1.{one}/tool-1.{one}.jar", Kind.ARTIFACT) for one in range(5)]
    others = [entry(f"generic/other-{number}.zip", Kind.ARTIFACT) for number in range(600)]
    beside = entry("maven/org/example/toolbox/1.0/toolbox-1.0.jar", Kind.ARTIFACT)
    stored(tmp_path, [*files[:4], *others, beside, files[4]])
    assert listed(wire, "")[:2] == ["org.example:tool", "org.example:toolbox"]
    page = seen(wire)
    assert "5 versions" in page.text
    assert "At least 500 packages" in page.text


def test_a_package_of_which_only_the_index_page_is_stored(wire: Wire, tmp_path: Path) -> None:
    """There is no table without a row."""
    stored(tmp_path, package("left"))
    page = seen(wire)
    assert "Only its index page is stored" in page.text
    assert not page.of("table")


def test_what_is_stale(wire: Wire, tmp_path: Path) -> None:
    """Packages whose index page is past its lifetime, the oldest first; what was withdrawn is another thing."""
    stored(
        tmp_path,
        [
            *package("fresh"),
            *package("old", validated_at=NOW - 2 * 86400),
            *package("older", validated_at=NOW - 3 * 86400),
            *package("gone", validated_at=NOW - 3 * 86400, withdrawn=410),
            *package("from-the-future", validated_at=NOW + 3600),
        ],
    )
    assert listed(wire, "stale=1") == ["older", "old"]
    assert listed(wire, "stale=1&q=older") == ["older"]
    states = dict(
        zip(listed(wire, ""), re.findall(r'<details data-state="(\w+)"', asked(wire).body.decode()), strict=True)
    )
    assert states == {
        "fresh": "fresh",
        "old": "stale",
        "older": "stale",
        "gone": "withdrawn",
        "from-the-future": "stale",
    }
    assert "checked 2 d ago" in seen(wire).text
    figures = json.loads(asked(wire, "/-/page/figures.json").body)
    assert (figures["npm.entries"], figures["npm.stale"]) == ("5", "2 of 5")


def test_pages_of_packages(wire: Wire, tmp_path: Path) -> None:
    """Twenty at a time, with links to those before and after; beyond the last there are none."""
    stored(tmp_path, [one for number in range(45) for one in package(f"part-{number:02}", "1.0.0")])
    found: list[str] = []
    link: str | None = "?q=part"
    while link is not None:
        page = seen(wire, "/" + link.partition("#")[0])
        found += listed(wire, link.partition("#")[0].removeprefix("?"))
        link = next((fields["href"] for fields in page.of("a") if fields.get("rel") == "next"), None)
    assert found == [f"part-{number:02}" for number in range(45)]
    assert "Page 3 of 3" in page.text
    assert [fields["href"] for fields in page.of("a") if fields.get("rel") == "prev"] == ["?q=part&page=2#packages"]
    assert listed(wire, "q=part&page=4") == []
    assert [fields["href"] for fields in seen(wire, "/?q=part&page=9").of("a") if fields.get("rel") == "prev"]


def test_an_empty_cache_says_what_to_do(wire: Wire, tmp_path: Path) -> None:
    """Nobody has come yet, nothing failed, nothing is stale: each has words of its own."""
    stored(tmp_path, [])
    text = seen(wire).text
    assert "Nothing is cached yet." in text
    assert "None since the start" in text
    assert "Nothing is stale." in seen(wire, "/?stale=1").text


def test_an_index_that_cannot_be_read(wire: Wire, tmp_path: Path) -> None:
    """The rest of the page is there, and says so."""
    (tmp_path / "index.sqlite3").write_bytes(b"no database" * 1000)
    wire.house.condition = lambda: Condition(False, "unreadable", "The disk is full.")
    text = seen(wire).text
    assert "The packages cannot be listed now." in text
    assert "Nothing new can be stored. The disk is full." in text
    assert "The index is not whole." in text


def test_offline_is_said(tmp_path: Path) -> None:
    """Once for all, and of each upstream."""
    wire = Wire(Config(cache_dir=str(tmp_path), offline=True))
    wire.house.cache.context.rules = evolve(wire.house.cache.context.rules, offline=True)
    page = seen(wire, "/?q=six")
    assert "Offline. No registry is asked" in page.text
    assert "not asked: offline" in page.text
    assert [fields["value"] for fields in page.of("input") if fields["id"] == "q"] == ["six"]


def test_only_reading(wire: Wire, tmp_path: Path) -> None:
    """HEAD is the GET without its body; nothing else is understood; no visit changes or asks anything."""
    stored(tmp_path, package("left", "1.0.0"))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in ("/", "/?q=left", "/?purge=left&action=delete", "/-/page/figures.json", "/-/page/style.css"):
        got, head = asked(wire, path), asked(wire, path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        own = {("content-length", "0"), ("content-length", str(len(got.body)))}
        assert {one for one in {*head.headers} ^ {*got.headers} if one[0] != "x-request-id"} == own
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert asked(wire, path, method).status == 405, (method, path)
    assert wire.asked == []
    now = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path: body for path, body in now.items() if path in before} == before


@pytest.mark.parametrize("path", ["/", "/?q=x", "/-/page/figures.json", "/-/page/style.css"])
def test_only_for_those_who_may(wire: Wire, path: str) -> None:
    """Other networks, other names, and pages of other sites get nothing of it."""
    assert asked(wire, path, address="192.0.2.1").status == 403
    head = b"GET %b HTTP/1.1\r\nAccept: text/html\r\n" % path.encode()
    for rest in (
        b"Host: evil.example\r\n",
        b"Host: localhost\r\nSec-Fetch-Site: cross-site\r\nOrigin: http://evil\r\n",
    ):
        (found,) = answers(wire.connect(head + rest + b"\r\n").value())
        assert found.status in (403, 421)


def body(reply: Coroutine[Any, Any, Reply]) -> bytes:
    """Of a reply that is there at once."""
    found: list[Reply] = []
    Deferred.fromCoroutine(reply).addCallback(found.append)
    assert isinstance(found[0].body, bytes)
    return found[0].body


def test_one_is_told_of_the_registries_that_one_may_read(wire: Wire, tmp_path: Path) -> None:
    """Packages, figures, failures and lines of the others are nowhere on the page."""
    stored(tmp_path, [*package("left", "1.0.0"), entry("pypi/simple/secret-tool")])
    failures = wire.house.cache.context.upstream.counts.failures
    failures.note(NOW, "pypi/simple/secret-other", UpstreamError("secret reason"))
    served = {"npm": wire.registries["npm"]}
    page, queries = wire.house.page, ("", "q=secret", "registry=pypi", "registry=pypi&package=secret-tool", "stale=1")
    made = [body(page.shown(query, served, lambda name: f"http://localhost/{name}/")) for query in queries]
    made.append(body(page.beside("figures.json", served)))
    assert len(made) == 6
    assert not [one for one in made if b"pypi" in one or b"secret" in one.replace(b'value="secret"', b"")]
    assert b"left" in made[0]


def test_health_tells_of_them_alone(wire: Wire) -> None:
    """Neither the names of other registries nor the hosts that their pages lead to."""
    wire.house.cache.context.foreign["secret.example"] += 1
    every = wire.house.registries
    for names, hosts in (({"npm"}, {}), (set(every), {"secret.example": 1})):
        served = {name: one for name, one in every.items() if name in names}
        visit = Visit(method="GET", path=HEALTH, query="", last="", accept="", served=served, base=str)
        page: Any = own_page(wire.house, visit)
        told = json.loads(body(page))
        assert (set(told["upstreams"]), told["foreign_links"]) == (names, hosts)


@pytest.mark.parametrize("path", ["/", "/-/page/figures.json", "/-/page/style.css"])
def test_who_may_read_has_to_be_known(wire: Wire, tmp_path: Path, path: str) -> None:
    """Where the operator wants to know who asks, a browser is told to ask for name and password."""
    readers = tmp_path / "readers"
    readers.write_text(f"ci:sha256:{hashlib.sha256(b't0ken').hexdigest()}\n")
    readers.chmod(0o600)
    wire.house.door = Door(str(readers), wire.house.config.registries, wire.kit.clock)
    wire.house.door.open()
    refused = asked(wire, path)
    assert refused.status == 401
    assert ("www-authenticate", 'Basic realm="regcache", charset="UTF-8"') in refused.headers
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n"
    known = base64.b64encode(b"ci:t0ken").decode()
    (found,) = answers(wire.connect(f"{head}Authorization: Basic {known}\r\n\r\n".encode()).value())
    assert found.status == 200


def test_secrets_are_not_shown(wire: Wire) -> None:
    """What a failure quotes may hold what opens a registry."""
    failures = wire.house.cache.context.upstream.counts.failures
    why = UpstreamError(
        "It was 500 for https://me:hunter2@index.example/x?token=hunter3. Authorization: Bearer hunter44"
    )
    failures.note(NOW, "npm/packument/left", why)
    page = asked(wire).body
    assert b"It was 500 for https://...@index.example" in page
    assert b"hunter" not in page


def mounted(wire: Wire, path: str) -> Answered:
    """What a foreign Site answers, in which the cache is mounted deep down."""
    root, deep = Resource(), Resource()
    root.putChild(b"deep", deep)
    deep.putChild(b"our tools", RegCacheResource(wire.house))
    site = Site(root, reactor=wire.kit.clock)
    address = IPv4Address("TCP", "127.0.0.1", 50000)
    channel: Any = site.buildProtocol(address)
    transport: Any = StringTransportWithDisconnection(peerAddress=address, hostAddress=address)
    transport.protocol = channel
    channel.makeConnection(transport)
    channel.dataReceived(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n".encode())
    (found,) = answers(transport.value())
    return found


def test_mounted_in_another_site(wire: Wire) -> None:
    """Its links lead on from wherever it is, and its lines name the address that one came by."""
    moved = mounted(wire, "/deep/our%20tools?q=x")
    assert (moved.status, dict(moved.headers)["location"]) == (308, "./our%20tools/?q=x")
    found = mounted(wire, "/deep/our%20tools/")
    page = Read(found.body)
    assert found.status == 200
    assert not [link for link in page.links() if link.startswith("/") or "://" in link]
    assert "http://localhost/deep/our%20tools/npm/" in page.text
    for link in page.links():
        if link.startswith("-/"):
            assert mounted(wire, f"/deep/our%20tools/{link}").status == 200


def test_without_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library for them is not installed, nothing leads to them."""
    monkeypatch.setattr("regcache.page.page.find_spec", lambda _name: None)
    found = seen(Wire(Config(cache_dir=str(tmp_path))))
    assert [link for link in found.links() if link.startswith("-/")][-2:] == ["-/health", "-/health/ready"]
    assert "Metrics" not in found.text


def test_lines_name_the_public_url(tmp_path: Path) -> None:
    """Where the operator has said how clients reach it, that counts."""
    wire = Wire(Config(cache_dir=str(tmp_path), public_url="https://cache.example/tools/"))
    text = seen(wire).text
    assert "npm config set registry https://cache.example/tools/npm/" in text
    assert "Package cache at cache.example/tools" in text
    assert "localhost" not in text.replace("//localhost", "") or "https://cache.example" in text


def test_live_figures_are_those_of_the_page(wire: Wire, tmp_path: Path) -> None:
    """What the script asks for has a place on the page for each figure, and a figure for each place."""
    stored(tmp_path, package("left", "1.0.0"))
    counts = wire.house.cache.context.upstream.counts
    for outcome, number in (("hit", 6), ("revalidated", 1), ("stale", 1), ("miss", 2), ("bypass", 5), ("error", 3)):
        for _ in range(number):
            counts.answers_of("npm", outcome).add(0.01, 1024)
    answer = asked(wire, "/-/page/figures.json")
    figures = json.loads(answer.body)
    assert dict(answer.headers)["cache-control"] == "no-store"
    assert (figures["share"], figures["requests"], figures["spared"]) == ("80 %", "10 requests", "8.0 KiB")
    assert (figures["npm.share"], figures["npm.bar"], figures["npm.size"]) == ("80 %", "80.0", "4.0 KiB")
    page = seen(wire)
    places = {fields[name] for _, fields in page.elements for name in ("data-live", "data-bar") if name in fields}
    states = {f"{fields['data-live-state']}.state" for _, fields in page.elements if "data-live-state" in fields}
    assert places | states == set(figures)
    assert "80 %" in page.text


def test_the_states_of_upstreams(wire: Wire) -> None:
    """Each in words: nobody has asked, it answers, it is slow, it is in trouble."""
    context = wire.house.cache.context
    (origin,) = origins_of(wire.registries["npm"])

    def state() -> str:
        figures = json.loads(asked(wire, "/-/page/figures.json").body)
        return f"{figures['npm.0.word']}; {figures['npm.0.told']}"

    counted = context.upstream.counts
    counted.upstreams[origin] = Asked()
    assert state() == "not asked yet; "
    counted.upstream(origin).answered(200, 0.1, context.clock.seconds())
    wire.kit.advance(90)
    assert state() == "answering; answered 2 min ago"
    context.breaker.lagged(origin)
    assert state().startswith("slow")
    context.breaker.broke(origin)
    counted.upstream(origin).failed(context.clock.seconds())
    wire.kit.advance(30)
    assert state() == "in trouble; answered 2 min ago, failed 30 s ago, 1 time in all"


def test_searches_are_few_at_a_time(wire: Wire) -> None:
    """Whoever leaves does not make room for the next: what was begun goes on in its thread."""
    waiting: list[Deferred[Any]] = []

    def later(work: Any, *args: Any) -> Deferred[Any]:
        waiting.append(Deferred())
        return waiting[-1].addCallback(lambda _: work(*args))

    wire.house.cache.context.in_thread = later
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"
    clients = [wire.connect(head) for _ in range(4)]
    for client in clients:
        assert client.value() == b""
        client.loseConnection()
    (refused,) = answers(wire.connect(head).value())
    assert (refused.status, dict(refused.headers)["retry-after"]) == (503, "5")
    while waiting:
        waiting.pop().callback(None)
    wire.house.cache.context.in_thread = maybeDeferred
    assert asked(wire).status == 200


def test_what_is_stored_is_counted_seldom(wire: Wire, tmp_path: Path) -> None:
    """Not for every visit: with a million entries it takes a second."""
    stored(tmp_path, package("left", "1.0.0"))

    def entries() -> str:
        return str(json.loads(asked(wire, "/-/page/figures.json").body)["npm.entries"])

    assert entries() == "2"
    stored(tmp_path, package("right", "1.0.0"))
    assert entries() == "2"
    wire.kit.advance(31)
    asked(wire, "/-/page/figures.json")
    assert entries() == "4"


def test_a_count_that_takes_long_holds_nobody_up(wire: Wire) -> None:
    """The page comes without it."""
    wire.house.cache.context.in_thread = lambda *_: Deferred()
    transport = wire.connect(b"GET /-/page/figures.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert transport.value() == b""
    wire.kit.advance(3)
    (found,) = answers(transport.value())
    assert json.loads(found.body)["npm.entries"] == "0"


def test_failures_are_few_and_each_is_told_once() -> None:
    """One that comes again counts; the oldest go; what is no failure of a registry is not among them."""
    failures = Failures()
    for number in range(40):
        failures.note(float(number), f"npm/packument/part-{number}", CutShort("It ended."))
    failures.note(100.0, "npm/packument/part-39", CutShort("It ended."))
    for error in (NotFound("no"), TooBusy("no"), Unneeded("no"), ValueError("no"), None):
        failures.note(200.0, "npm/packument/left", error)
    failures.note(50.0, "pypi/simple/left", UpstreamError("no"))
    found = failures.of(["npm", "pypi", "go"])
    assert len(found) == 26
    assert (found[0].key, found[0].when, found[0].times) == ("npm/packument/part-39", 100.0, 2)
    assert found[1].registry == "pypi"
    assert [one.registry for one in failures.of(["pypi"])] == ["pypi"]


def test_what_could_not_be_fetched_is_a_failure(wire: Wire) -> None:
    """Documents, artifacts and what is passed on alike; the page names the package, not the key."""
    wire.kit.upstream.down = True
    for path in ("/npm/left", "/npm/left/-/left-1.0.0.tgz", "/pypi/simple/demo/"):
        assert asked(wire, path).status >= 500
    wire.connect(b"POST /npm/-/npm/v1/security/audits/quick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
    found = wire.house.cache.context.upstream.counts.failures.of(wire.registries)
    assert {one.key for one in found} >= {
        "npm/packument/left",
        "npm/left/-/left-1.0.0.tgz",
        "pypi/simple/demo",
        "npm/-/npm/v1/security/audits/quick",
    }
    page = asked(wire).body.decode()
    assert '<p class="what">left 1.0.0</p>' in page
    assert '<p class="what">demo</p>' in page


def test_a_template_that_asks_for_what_is_not_there_fails(tmp_path: Path) -> None:
    """It is not left out silently."""
    place = tmp_path / "page.xml"
    place.write_text('<p xmlns:t="http://twistedmatrix.com/ns/twisted.web.template/0.1"><b t:render="name" /></p>')
    loader = XMLFile(FilePath(str(place)))
    assert filled(loader, {"name": "<x>"}) == b"<p><b>&lt;x&gt;</b></p>"
    assert filled(loader, {"name": [{}, {}]}) == b"<p><b></b><b></b></p>"
    with pytest.raises(FlattenerError):
        filled(loader, {})


def test_words() -> None:
    """Numbers as people read them."""
    assert [words.sized(number) for number in (0, 1023, 1024, 10 << 30, 5 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "10.0 GiB",
        "5120.0 TiB",
    ]
    assert [words.ago(age) for age in (None, float("inf"), 0, 60, 7200, 200000)] == [
        "never",
        "never",
        "just now",
        "1 min ago",
        "2 h ago",
        "2 d ago",
    ]
    assert [words.counted(number, "entry", "entries") for number in (0, 1, 1200)] == [
        "0 entries",
        "1 entry",
        "1,200 entries",
    ]
    assert words.stamped(NOW) == "2023-11-14T22:13:20Z"
    assert [words.stamped(when) for when in (float("inf"), float("nan"), 1e300)] == [""] * 3
