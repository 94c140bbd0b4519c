"""The npm registry."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from regcache.errors import BadDocument, BadRequest, MethodNotAllowed, NotFound
from regcache.http.messages import Digest, Headers, RequestHead
from regcache.interfaces import IRegistry
from regcache.registries import make
from regcache.registries.npm import Npm
from regcache.routes import Artifact, Document, Fact, Local, RegistryOptions, Relay, Route, Source
from regcache.testing import Ask, Page, RegistryContract, Sample

UPSTREAM, MOUNT = "https://npm.example/", "http://cache.example:8650/npm/"
FULL, ABBREVIATED = "application/json", "application/vnd.npm.install-v1+json"
SHA1 = hashlib.sha1(b"x").hexdigest()
SHA512 = hashlib.sha512(b"x")
INTEGRITY = "sha512-" + base64.b64encode(SHA512.digest()).decode()
DIGESTS = (Digest("sha512", SHA512.hexdigest()), Digest("sha1", SHA1))


@cache
def registry(*hosts: str, url: str = UPSTREAM) -> Npm:
    """The registry, for an upstream of its own."""
    made = make(RegistryOptions(name="npm", type="npm", url=url, artifact_hosts=hosts))
    assert isinstance(made, Npm)
    return made


def route(path: str, query: str = "", method: str = "GET", **fields: str) -> Route:
    """What a request means."""
    headers = Headers.of(fields)
    return registry("cdn.example").route(RequestHead(method=method, path=path, query=query, headers=headers))


def document(path: str, query: str = "", **fields: str) -> Document:
    """The document that a request means."""
    found = route(path, query, **fields)
    assert isinstance(found, Document)
    return found


def artifact(path: str) -> Artifact:
    """The tarball that a request means."""
    found = route(path)
    assert isinstance(found, Artifact)
    return found


def version(name: str, number: str, tarball: str | None = None, **more: Any) -> dict[str, Any]:
    """One version of a package."""
    base = name.rpartition("/")[2]
    link = tarball or f"{UPSTREAM}{name}/-/{base}-{number}.tgz"
    return {"name": name, "version": number, "dist": {"tarball": link, "shasum": SHA1, "integrity": INTEGRITY}, **more}


def packument(name: str, *versions: dict[str, Any], **more: Any) -> Source:
    """A package's document."""
    listed = {each["version"]: each for each in versions}
    found = {"name": name, "dist-tags": {"latest": [*listed][-1]} if listed else {}, "versions": listed, **more}
    return source(found, f"{UPSTREAM}{name}")


def source(found: Any, url: str = UPSTREAM) -> Source:
    """A document as the upstream sent it."""
    return Source(body=json.dumps(found).encode(), content_type=FULL, url=url)


def represent(found: Source, form: str = "full", base: str = MOUNT, *hosts: str, key: str = "packument/left") -> Any:
    """A document as a client gets it."""
    return json.loads(registry(*hosts).represent(key, found, form, base))


# Addresses.


def test_provides_the_interface() -> None:
    """The module does what a registry must."""
    assert verifyObject(IRegistry, registry())


@pytest.mark.parametrize("path", ["/@s%2fn", "/@s%2Fn", "/@s/n", "/%40s%2fn", "/%40s/n", "//@s//n", "/@s/n/"])
def test_scoped_names(path: str) -> None:
    """However a scoped name is spelled, it is one package, asked for with its slash encoded."""
    found = document(path)
    assert (found.key, found.url) == ("packument/@s/n", f"{UPSTREAM}@s%2Fn")


@pytest.mark.parametrize(
    ("path", "key", "url"),
    [
        ("/left", "packument/left", "left"),
        ("/JSONStream", "packument/JSONStream", "JSONStream"),
        ("/jsonstream", "packument/jsonstream", "jsonstream"),
        ("/a.b_c-d~e", "packument/a.b_c-d~e", "a.b_c-d~e"),
        ("/left/1.0.0", "manifest/left/1.0.0", "left/1.0.0"),
        ("/left/latest", "manifest/left/latest", "left/latest"),
        ("/@s/n/1.0.0", "manifest/@s/n/1.0.0", "@s%2Fn/1.0.0"),
        ("/@s%2fn/latest", "manifest/@s/n/latest", "@s%2Fn/latest"),
        ("/left/1.0.0+build", "manifest/left/1.0.0+build", "left/1.0.0%2Bbuild"),
        ("/@s/_n", "packument/@s/_n", "@s%2F_n"),
        ("/-/npm/v1/keys", "-/npm/v1/keys", "-/npm/v1/keys"),
        ("/-/package/left/dist-tags", "-/package/left/dist-tags", "-/package/left/dist-tags"),
        ("/-/package/@s%2fn/dist-tags", "-/package/@s/n/dist-tags", "-/package/@s%2Fn/dist-tags"),
        ("/-/package/@s/n/dist-tags", "-/package/@s/n/dist-tags", "-/package/@s%2Fn/dist-tags"),
        (
            "/-/npm/v1/attestations/@s%2fn@1.0.0",
            "-/npm/v1/attestations/@s/n@1.0.0",
            "-/npm/v1/attestations/@s%2Fn@1.0.0",
        ),
        ("/-/npm/v1/attestations/left@1.0.0", "-/npm/v1/attestations/left@1.0.0", "-/npm/v1/attestations/left@1.0.0"),
    ],
)
def test_documents(path: str, key: str, url: str) -> None:
    """Each document has one key, names in upper case are names of their own, and ``-`` is never a package."""
    found = document(path)
    assert (found.key, found.url) == (key, UPSTREAM + url)


@pytest.mark.parametrize(
    ("path", "key", "url"),
    [
        ("/left/-/left-1.0.0.tgz", "left/-/left-1.0.0.tgz", "left/-/left-1.0.0.tgz"),
        ("/@s/n/-/n-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz"),
        ("/@s%2fn/-/n-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz"),
        ("/@s%2Fn/-/n-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz"),
        ("/@s/n/-/@s/n-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz"),
        ("/@s/n/-/@s%2fn-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz", "@s/n/-/n-1.0.0.tgz"),
        ("/a-b/-/a-b-1.0.0-beta.1.tgz", "a-b/-/a-b-1.0.0-beta.1.tgz", "a-b/-/a-b-1.0.0-beta.1.tgz"),
        ("/left/-/left-1.0.0+x.tgz", "left/-/left-1.0.0+x.tgz", "left/-/left-1.0.0%2Bx.tgz"),
        ("/left/-/left-1.0.0%2Bx.tgz", "left/-/left-1.0.0+x.tgz", "left/-/left-1.0.0%2Bx.tgz"),
    ],
)
def test_tarballs(path: str, key: str, url: str) -> None:
    """Each tarball has one key, however its name is spelled, and is asked for where registries keep it."""
    found = artifact(path)
    assert (found.key, found.url) == (key, UPSTREAM + url)
    assert found.content_type == "application/octet-stream"
    assert not found.mutable


@pytest.mark.parametrize(
    ("path", "proof"),
    [
        ("/left/-/left-1.0.0.tgz", "manifest/left/1.0.0"),
        ("/@s/n/-/n-1.0.0.tgz", "manifest/@s/n/1.0.0"),
        ("/a-b/-/a-b-1.0.0-beta.1.tgz", "manifest/a-b/1.0.0-beta.1"),
        ("/left/-/other.tgz", None),
        ("/left/-/left-1.0.0.zip", None),
    ],
)
def test_proof(path: str, proof: str | None) -> None:
    """A tarball is proven by its version's small manifest, where its name tells the version, or by either packument."""
    found = artifact(path)
    assert (found.proof.key if found.proof else None) == proof
    name = path[1:].partition("/-/")[0]
    assert {index.key for index in found.indexes} == {f"packument/{name}", f"abbreviated/{name}"}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/@s",
        "/@s%2f",
        "/@/n",
        "/@s%2fn%2fx",
        "/foo%2Fbar",
        "/_utils",
        "/.npmrc",
        "/a%20b",
        "/a%3Fb",
        "/a%23b",
        "/d%C3%A9mo",
        "/left/-",
        "/left/-/",
        "/left/1.0.0/x",
        "/left/a%2fb",
        "/-",
        "/-/all",
        "/-/whoami",
        "/-/npm/v1/user",
        "/-/npm/v1/tokens",
        "/-/npm/v1/keysx",
        "/-/user/org.couchdb.user:x",
        "/-/package/left/collaborators",
        "/-/package/a%3Fb/dist-tags",
        "/-/npm/v1/attestations/left",
        "/-/npm/v1/security/advisories/bulk",
    ],
)
def test_nothing_there(path: str) -> None:
    """What is no address of a registry is not found, and nobody is asked."""
    with pytest.raises(NotFound):
        route(path)


@pytest.mark.parametrize("path", ["/../x", "/@s%2f..", "/left/-/..%2fx.tgz", "/left/%2e%2e", "/a%5cb", "/a%00"])
def test_hostile_paths(path: str) -> None:
    """A path that climbs or hides something is refused."""
    with pytest.raises(BadRequest):
        route(path)


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_any_path(path: str) -> None:
    """Whatever is asked for, it is a route, malformed, or not found, and only the upstream is asked."""
    for start in ("/", "/@", "/@s/", "/@s%2f", "/left/-/", "/-/", "/-/package/", "/-/npm/v1/attestations/"):
        try:
            found = route(start + path)
        except (BadRequest, NotFound):
            continue
        assert isinstance(found, (Document, Artifact, Local))
        if not isinstance(found, Local):
            assert found.url.startswith(UPSTREAM)
            assert ".." not in found.key.split("/")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "full"),
        ("*/*", "full"),
        (FULL, "full"),
        (f"{FULL}; q=1.0, */*", "full"),
        (ABBREVIATED, "abbreviated"),
        (f"{ABBREVIATED}; q=1.0, {FULL}; q=0.8, */*", "abbreviated"),
        (f"{ABBREVIATED}, */*", "abbreviated"),
        ("text/html", "full"),
    ],
)
def test_forms(accept: str, form: str) -> None:
    """Accept decides the form; what names neither gets the full one."""
    found = document("/left", accept=accept)
    assert found.representation == form
    assert found.content_type == (ABBREVIATED if form == "abbreviated" else FULL)
    assert found.vary == ("Accept",)
    assert found.linked


def test_the_two_forms_are_two_documents() -> None:
    """Each has a key; a fresh full one serves for an abbreviated one, and either for the other in need."""
    full, abbreviated = document("/left"), document("/left", accept=ABBREVIATED)
    assert (full.key, abbreviated.key) == ("packument/left", "abbreviated/left")
    assert full.family == abbreviated.family
    assert full.instead is None
    assert abbreviated.instead is not None
    assert (abbreviated.instead.key, abbreviated.instead.representation) == (full.key, "abbreviated")
    assert [(one.key, one.representation) for one in full.spares] == [(abbreviated.key, "full")]
    assert [(one.key, one.representation) for one in abbreviated.spares] == [(full.key, "abbreviated")]


def test_search() -> None:
    """Searches that ask the same in another order are one, and are not kept for long."""
    found = document("/-/v1/search", "text=a%20b&size=20&from=0&quality=")
    again = document("/-/v1/search", "size=20&quality=&from=0&text=a+b")
    assert found == again
    assert found.url == f"{UPSTREAM}-/v1/search?from=0&quality=&size=20&text=a+b"
    assert found.ttl == 60
    assert document("/-/v1/search").url == f"{UPSTREAM}-/v1/search"


def test_ping() -> None:
    """A ping is answered here."""
    for method in ("GET", "HEAD"):
        assert route("/-/ping", "write=true", method) == Local(status=200, content_type=FULL, body=b"{}")


@pytest.mark.parametrize("path", ["advisories/bulk", "audits", "audits/quick"])
def test_audits(path: str) -> None:
    """Audits are passed on."""
    assert route(f"/-/npm/v1/security/{path}", method="POST") == Relay(url=f"{UPSTREAM}-/npm/v1/security/{path}")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/left"),
        ("PUT", "/@s%2fn"),
        ("PUT", "/left/-rev/1"),
        ("DELETE", "/left/-/left-1.0.0.tgz/-rev/1"),
        ("POST", "/left"),
        ("PATCH", "/"),
        ("PUT", "/-/user/org.couchdb.user:x"),
        ("DELETE", "/-/user/token/x"),
        ("POST", "/-/v1/login"),
        ("PUT", "/-/package/left/dist-tags/x"),
        ("POST", "/-/npm/v1/security/other"),
        ("POST", "/-/npm/v1/tokens"),
        ("POST", "/-/ping"),
    ],
)
def test_writing(method: str, path: str) -> None:
    """Publishing and logging in are refused as a method, saying where they belong and what is allowed."""
    with pytest.raises(MethodNotAllowed, match="registry itself") as caught:
        route(path, method=method)
    assert caught.value.status == 405
    assert caught.value.allow == "GET, HEAD"


def test_about_to_write() -> None:
    """A reader that is about to write gets the package as it is upstream; other queries change nothing."""
    assert route("/@s%2fn", "write=true") == Relay(url=f"{UPSTREAM}@s%2Fn?write=true", packages=("@s/n",))
    assert route("/left", "a=b&write=true") == Relay(url=f"{UPSTREAM}left?a=b&write=true", packages=("left",))
    for query in ("overwrite=true", "write=false", "meta", "t=123", ""):
        assert document("/left", query) == document("/left")
    with pytest.raises(NotFound):
        route("/", "write=true")


def test_errors_are_json() -> None:
    """An error is JSON with its text, as npm shows it."""
    kind, body = registry().error(404, 'There is no "x".')
    assert kind == FULL
    assert json.loads(body) == {"error": 'There is no "x".'}


# Documents.


def test_links() -> None:
    """Every tarball leads to its conventional file below the mount the client reached, in every form."""
    left = packument("left", version("left", "1.0.0"), version("left", "1.1.0-beta.1"))
    for base in (MOUNT, "https://other.example/", "http://[::1]:8650/a/b/npm/"):
        for form in ("full", "abbreviated"):
            found = represent(left, form, base)["versions"]
            links = [each["dist"]["tarball"] for each in found.values()]
            assert links == [f"{base}left/-/left-1.0.0.tgz", f"{base}left/-/left-1.1.0-beta.1.tgz"]
    scoped = packument("@s/n", version("@s/n", "1.0.0+x"))
    found = represent(scoped, key="packument/@s/n")["versions"]["1.0.0+x"]
    assert found["dist"]["tarball"] == f"{MOUNT}@s/n/-/n-1.0.0%2Bx.tgz"


@pytest.mark.parametrize(
    ("name", "link", "url"),
    [
        ("left", f"{UPSTREAM}left/-/left-1.0.0.tgz", None),
        ("left", f"{UPSTREAM}left/-/left-1.0.0.tgz#abc", f"{UPSTREAM}left/-/left-1.0.0.tgz"),
        ("left", "http://npm.example/left/-/left-1.0.0.tgz", f"{UPSTREAM}left/-/left-1.0.0.tgz"),
        ("left", "http://npm.example:80/left/-/left-1.0.0.tgz", f"{UPSTREAM}left/-/left-1.0.0.tgz"),
        ("left", "https://cdn.example/x/y?sig=1", None),
        ("left", "http://cdn.example/x/y", "https://cdn.example/x/y"),
        ("@s/n", "https://cdn.example/download/@s/n/1.0.0/0123abcd", None),
        ("@s/n", f"{UPSTREAM}@s/n/-/@s/n-1.0.0.tgz", None),
        ("@s/n", f"{UPSTREAM}@s%2fn/-/n-1.0.0.tgz", None),
    ],
)
def test_foreign_paths(name: str, link: str, url: str | None) -> None:
    """Wherever an upstream keeps a tarball, its path here is the conventional one, and the facts lead back."""
    found = packument(name, version(name, "1.0.0", link))
    key = f"{name}/-/{name.rpartition('/')[2]}-1.0.0.tgz"
    tarball = represent(found, "full", MOUNT, "cdn.example", key=f"packument/{name}")["versions"]["1.0.0"]["dist"]
    assert tarball["tarball"] == MOUNT + key
    facts = registry("cdn.example").facts(f"packument/{name}", found)
    assert facts[key] == Fact(url=url or link, digests=DIGESTS)
    assert artifact(f"/{key}").key == key
    assert not facts.foreign


def test_files_by_their_name_upstream() -> None:
    """A file that is called otherwise upstream is found by that name as well, and the conventional name wins."""
    odd = version("left", "1.0.0", f"{UPSTREAM}left/-/left-1.0.0-fixed.tgz")
    clash = version("left", "2.0.0", f"{UPSTREAM}left/-/left-1.0.0.tgz")
    facts = registry().facts("packument/left", packument("left", odd, clash))
    assert {key: fact.url.rpartition("/")[2] for key, fact in facts.items()} == {
        "left/-/left-1.0.0.tgz": "left-1.0.0-fixed.tgz",
        "left/-/left-1.0.0-fixed.tgz": "left-1.0.0-fixed.tgz",
        "left/-/left-2.0.0.tgz": "left-1.0.0.tgz",
    }


def test_same_name_upstream() -> None:
    """Versions whose tarballs are called the same upstream are told apart."""
    links = [f"https://cdn.example/{number}/package.tgz" for number in ("1.0.0", "2.0.0")]
    found = packument("left", version("left", "1.0.0", links[0]), version("left", "2.0.0", links[1]))
    facts = registry("cdn.example").facts("packument/left", found)
    assert {key: fact.url for key, fact in facts.items()} == {
        "left/-/left-1.0.0.tgz": links[0],
        "left/-/left-2.0.0.tgz": links[1],
    }


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/left-1.0.0.tgz",
        "http://evil.example/left-1.0.0.tgz",
        "https://npm.example:444/left-1.0.0.tgz",
        "http://npm.example:8080/left-1.0.0.tgz",
        "https://user:token@npm.example/left-1.0.0.tgz",
        "https://npm.example@evil.example/left-1.0.0.tgz",
        "ftp://npm.example/left-1.0.0.tgz",
        "https://[bad/left-1.0.0.tgz",
        "file:../left",
        "",
    ],
)
def test_other_hosts_are_left_alone(link: str) -> None:
    """A link to any other host is left as it is, known as no fact, and counted."""
    found = packument("left", version("left", "1.0.0", link or " "))
    assert represent(found)["versions"]["1.0.0"]["dist"]["tarball"] == (link or " ")
    facts = registry().facts("packument/left", found)
    assert facts == {}
    assert [number for number, _ in facts.foreign.values()] == [1]
    assert not any("token" in host for host in facts.foreign)


def test_nothing_else_changes() -> None:
    """From the full form to the full form only links change; what is signed stays as it was, in its order."""
    signed = version("left", "1.0.0", readme="# x", scripts={"install": "x"}, _npmUser={"name": "a"})
    signed["dist"] |= {
        "signatures": [{"keyid": "SHA256:x", "sig": "y"}],
        "fileCount": 3,
        "attestations": {"url": f"{UPSTREAM}-/npm/v1/attestations/left@1.0.0", "provenance": {"predicateType": "z"}},
    }
    more = {"time": {"created": "2020", "modified": "2021", "1.0.0": "2020"}, "readme": "# x", "_id": "left", "x": None}
    found = packument("left", version("left", "2.0.0"), signed, **more)
    wanted = json.loads(found.body)
    for number, each in wanted["versions"].items():
        each["dist"]["tarball"] = f"{MOUNT}left/-/left-{number}.tgz"
    wanted["versions"]["1.0.0"]["dist"]["attestations"]["url"] = f"{MOUNT}-/npm/v1/attestations/left@1.0.0"
    made = represent(found)
    assert made == wanted
    assert list(made["versions"]) == ["2.0.0", "1.0.0"]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        (f"{UPSTREAM}-/npm/v1/attestations/@s%2fn@1.0.0", f"{MOUNT}-/npm/v1/attestations/@s%2fn@1.0.0"),
        ("https://evil.example/-/npm/v1/attestations/left@1.0.0", None),
        (f"{UPSTREAM}other/left@1.0.0", None),
        (None, None),
        (7, None),
    ],
)
def test_attestations(url: Any, wanted: str | None) -> None:
    """A link to the upstream's attestations leads through the proxy; any other is left alone."""
    found = version("left", "1.0.0")
    found["dist"]["attestations"] = {"url": url}
    made = represent(packument("left", found))["versions"]["1.0.0"]["dist"]["attestations"]
    assert made == {"url": wanted or url}


def test_attestations_below_a_path() -> None:
    """An upstream below a path keeps its attestations, and its packages, below that path."""
    own = registry(url="https://npm.example/a/b/")
    found = version("left", "1.0.0", "https://npm.example/a/b/left/-/left-1.0.0.tgz")
    found["dist"]["attestations"] = {"url": "https://npm.example/a/b/-/npm/v1/attestations/left@1.0.0"}
    made = json.loads(own.represent("packument/left", packument("left", found), "full", MOUNT))
    dist = made["versions"]["1.0.0"]["dist"]
    assert dist["attestations"]["url"] == f"{MOUNT}-/npm/v1/attestations/left@1.0.0"
    assert dist["tarball"] == f"{MOUNT}left/-/left-1.0.0.tgz"
    asked = own.route(RequestHead(method="GET", path="/left"))
    assert isinstance(asked, Document)
    assert asked.url == "https://npm.example/a/b/left"


def test_rewriting_is_idempotent() -> None:
    """A document rewritten once is not changed by being rewritten again, and the input is not changed."""
    downstream = registry(url=MOUNT)
    found = packument("@s/n", version("@s/n", "1.0.0"), version("@s/n", "2.0.0", "https://evil.example/x.tgz"))
    for form in ("full", "abbreviated"):
        once = registry().represent("packument/@s/n", found, form, MOUNT)
        assert registry().represent("packument/@s/n", found, form, MOUNT) == once
        again = Source(body=once, content_type=FULL, url=f"{MOUNT}@s%2Fn")
        assert downstream.represent("packument/@s/n", again, form, MOUNT) == once


def test_manifest() -> None:
    """One version's manifest is rewritten and known like its packument's entry, whatever it was asked for by."""
    found = source(version("@s/n", "1.0.0"))
    for asked in ("1.0.0", "latest"):
        key = f"manifest/@s/n/{asked}"
        assert represent(found, "manifest", key=key)["dist"]["tarball"] == f"{MOUNT}@s/n/-/n-1.0.0.tgz"
        facts = registry().facts(key, found)
        assert facts == {"@s/n/-/n-1.0.0.tgz": Fact(url=f"{UPSTREAM}@s/n/-/n-1.0.0.tgz", digests=DIGESTS)}


def test_abbreviated() -> None:
    """The abbreviated form keeps what an install needs, tells of install scripts, and is short of the rest."""
    needed = ("dependencies", "optionalDependencies", "devDependencies", "peerDependencies", "acceptDependencies")
    kept: dict[str, Any] = {key: {"a": "1"} for key in needed}
    kept |= {"bundleDependencies": ["a"], "peerDependenciesMeta": {"a": {"optional": True}}, "bin": {"x": "x.js"}}
    kept |= {"directories": {}, "engines": {"node": ">=18"}, "cpu": ["x64"], "os": ["linux"], "libc": ["musl"]}
    kept |= {"deprecated": "use b", "funding": "https://f.example", "_hasShrinkwrap": False}
    one = version("left", "1.0.0", **kept, readme="#", scripts={"postinstall": "x"}, _npmUser={}, maintainers=[])
    two = version("left", "2.0.0", scripts={"test": "x"}, hasInstallScript=True)
    three = version("left", "3.0.0", scripts={"test": "x"})
    times = {"modified": "2021", "1.0.0": "a", "2.0.0": "b", "3.0.0": "c"}
    found = packument("left", one, two, three, time=times, readme="#", _id="left", users={})
    wanted_links = copy.deepcopy(json.loads(found.body)["versions"])
    made = represent(found, "abbreviated")
    assert set(made) == {"name", "dist-tags", "versions", "modified", "time"}
    assert made["modified"] == "2021"
    assert made["time"] == times
    assert made["dist-tags"] == {"latest": "3.0.0"}
    dist = {**wanted_links["1.0.0"]["dist"], "tarball": f"{MOUNT}left/-/left-1.0.0.tgz"}
    first = {"name": "left", "version": "1.0.0", "dist": dist, **kept, "hasInstallScript": True}
    assert made["versions"]["1.0.0"] == first
    assert made["versions"]["2.0.0"]["hasInstallScript"] is True
    assert "hasInstallScript" not in made["versions"]["3.0.0"]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"time": {"modified": "m", "1.0.0": "a"}}, {"modified": "m", "time": {"modified": "m", "1.0.0": "a"}}),
        ({"time": {"modified": "m"}}, {"modified": "m"}),
        ({"time": {"1.0.0": "a"}}, {"time": {"1.0.0": "a"}}),
        ({"modified": "m"}, {"modified": "m"}),
        (
            {"modified": "m", "time": {"1.0.0": "a", "modified": "x"}},
            {"modified": "m", "time": {"1.0.0": "a", "modified": "x"}},
        ),
        ({"time": "x"}, {}),
        ({}, {}),
    ],
)
def test_times(more: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The times of versions are told for all of them or for none, and ``modified`` stays at the top."""
    made = represent(packument("left", version("left", "1.0.0"), **more), "abbreviated")
    assert {key: made[key] for key in ("modified", "time") if key in made} == wanted


def test_times_of_some() -> None:
    """Times that leave out a version are left out."""
    found = packument("left", version("left", "1.0.0"), version("left", "2.0.0"), time={"1.0.0": "a", "modified": "m"})
    assert "time" not in represent(found, "abbreviated")


def test_unpublished() -> None:
    """A package that was unpublished is a package without versions, in both forms."""
    gone = source({"name": "left", "time": {"unpublished": {"time": "x"}, "created": "y"}})
    assert represent(gone)["time"]["unpublished"] == {"time": "x"}
    made = represent(gone, "abbreviated")
    assert made["versions"] == {}
    assert "unpublished" in made["time"]
    assert registry().facts("packument/left", gone) == {}


@pytest.mark.parametrize(
    ("dist", "digests"),
    [
        ({"shasum": SHA1}, (Digest("sha1", SHA1),)),
        ({"shasum": SHA1.upper()}, (Digest("sha1", SHA1),)),
        ({"integrity": f"sha1-AAAA {INTEGRITY}"}, DIGESTS[:1]),
        ({"integrity": f"{INTEGRITY}?x", "shasum": "short"}, DIGESTS[:1]),
        ({"integrity": 7, "shasum": None}, ()),
        ({}, ()),
    ],
)
def test_digests(dist: dict[str, Any], digests: tuple[Digest, ...]) -> None:
    """The digests of a tarball are those of its integrity, and the older one beside it."""
    found = version("left", "1.0.0")
    found["dist"] = {"tarball": found["dist"]["tarball"], **dist}
    facts = registry().facts("packument/left", packument("left", found))
    assert facts["left/-/left-1.0.0.tgz"].digests == digests


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("packument/left", b"<html>log in</html>"),
        ("packument/left", b""),
        ("packument/left", b"[]"),
        ("packument/left", b"\xff"),
        ("packument/left", b'{"error": "not found"}'),
        ("packument/left", b'{"name": "right", "versions": {}}'),
        ("packument/Left", b'{"name": "left", "versions": {}}'),
        ("packument/left", b'{"name": "left"}'),
        ("packument/left", b'{"name": "left", "versions": []}'),
        ("abbreviated/left", b'{"name": "left", "versions": null}'),
        ("manifest/left/1.0.0", b'{"name": "left", "versions": {}}'),
        ("manifest/@s/n/1.0.0", b'{"name": "n", "version": "1.0.0", "dist": {}}'),
        ("manifest/left/1.0.0", b'"Not Found"'),
        ("-/npm/v1/keys", b"<html>log in</html>"),
        ("-/v1/search?text=x", b"[]"),
    ],
)
def test_no_document(key: str, body: bytes) -> None:
    """What is no document of that package, such as the page of a portal, is refused, whatever is wanted of it."""
    found = Source(body=body, content_type=FULL, url=UPSTREAM)
    with pytest.raises(BadDocument, match=r"npm\.example"):
        registry().facts(key, found)
    with pytest.raises(BadDocument):
        registry().represent(key, found, "full", MOUNT)


def test_as_is() -> None:
    """Keys, dist-tags, attestations and what a search found are passed as they are, and name no artifact."""
    found = source({"versions": {"1.0.0": version("left", "1.0.0")}, "keys": []})
    for key in ("-/npm/v1/keys", "-/package/left/dist-tags", "-/npm/v1/attestations/left@1.0.0", "-/v1/search?text=x"):
        assert registry().represent(key, found, "as-is", "") == found.body
        assert registry().facts(key, found) == {}


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.sampled_from(["https://[", "../x.tgz"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
VERSION = st.dictionaries(
    st.sampled_from(["version", "name", "scripts", "dist"]),
    JSONS | st.dictionaries(st.sampled_from(["tarball", "integrity", "shasum", "attestations", "install"]), JSONS),
)


@given(
    st.dictionaries(st.sampled_from(["1.0.0", "../x", ""]), VERSION | JSONS),
    st.dictionaries(st.sampled_from(["time", "modified", "dist-tags", "dist"]), JSONS | VERSION),
)
def test_any_packument(versions: dict[str, Any], more: dict[str, Any]) -> None:
    """A document whose values are of any type whatever is served or refused, in every form; nothing else happens."""
    found = source({"name": "left", "versions": versions, **more})
    for key, form in (("packument/left", "full"), ("packument/left", "abbreviated"), ("manifest/left/x", "manifest")):
        try:
            facts = registry().facts(key, found)
            registry().represent(key, found, form, MOUNT)
        except BadDocument:
            continue
        assert all(registry().allows(fact.url) for fact in facts.values())


# Configuration.


def test_defaults() -> None:
    """Without options it serves the public registry, also where that still lists plain http."""
    public = make(RegistryOptions(name="npm", type="npm"))
    assert public.options.url == Npm.default_url
    plain = Npm.default_url.replace("https:", "http:")
    found = packument("left", version("left", "1.0.0", f"{plain}left/-/left-1.0.0.tgz"))
    facts = public.facts("packument/left", found)
    assert facts["left/-/left-1.0.0.tgz"].url == f"{Npm.default_url}left/-/left-1.0.0.tgz"


def test_the_public_files_are_always_allowed() -> None:
    """A mirror may link to the public registry's tarballs."""
    assert registry().allows(f"{Npm.default_url}left/-/left-1.0.0.tgz")


def test_client_lines() -> None:
    """Every client line names the mount."""
    assert all(MOUNT in line for line in registry().client_lines(MOUNT))


class TestContract(RegistryContract):
    """What every registry must do."""

    type = "npm"

    def sample(self) -> Sample:
        pages, documents, artifacts = {}, [Ask("/-/v1/search?text=x"), Ask("/-/npm/v1/keys")], {}
        for name in ("left", "@scope/right"):
            base = name.rpartition("/")[2]
            body = b"a tarball of " + name.encode()
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(body).digest()).decode()
            found = version(name, "1.0.0", f"{UPSTREAM}{name}/-/{base}-1.0.0.tgz")
            found["dist"] = {**found["dist"], "integrity": integrity, "shasum": hashlib.sha1(body).hexdigest()}
            whole = {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": found}}
            there = UPSTREAM + name.replace("/", "%2F")
            pages[there] = Page(body=json.dumps(whole).encode())
            pages[f"{there}/1.0.0"] = Page(body=json.dumps(found).encode())
            pages[f"{UPSTREAM}{name}/-/{base}-1.0.0.tgz"] = Page(body=body)
            documents += [Ask(f"/{name}"), Ask(f"/{name}", (("accept", ABBREVIATED),)), Ask(f"/{name}/1.0.0")]
            artifacts[Ask(f"/{name}/-/{base}-1.0.0.tgz")] = f"{UPSTREAM}{name}/-/{base}-1.0.0.tgz"
        pages[f"{UPSTREAM}-/v1/search?text=x"] = Page(body=b'{"objects": []}')
        pages[f"{UPSTREAM}-/npm/v1/keys"] = Page(body=b'{"keys": []}')
        return Sample(
            url=UPSTREAM,
            pages=pages,
            documents=tuple(documents),
            artifacts=artifacts,
            nameless=frozenset({Ask("/-/npm/v1/keys")}),
        )

    def links(self, ask: Ask, body: bytes) -> Iterable[str]:
        del ask
        found = json.loads(body)
        versions = [*found.get("versions", {}).values(), found] if isinstance(found, dict) else []
        return [one["dist"]["tarball"] for one in versions if "dist" in one]
