"""Names that belong to one upstream alone."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regcache.config import load
from regcache.errors import BadRequest, NotFound, UpstreamError
from regcache.http.messages import Headers, RequestHead
from regcache.ownership import matches
from regcache.registries import factory, make
from regcache.registries.audits import searched
from regcache.routes import RegistryOptions, Relay
from regcache.testing import Kit, Page, make_cache

ELSEWHERE = ("@corp/*", "corp-*")


def public(kind: str) -> Kit:
    """A cache in front of the public registry of a type, from which our names are kept."""
    return make_cache(make(RegistryOptions(name=kind, type=kind, url=f"http://{kind}.test/", elsewhere=ELSEWHERE)))


@pytest.mark.parametrize(
    ("pattern", "name", "is_one"),
    [
        ("corp-*", "corp-tool", True),
        ("corp-*", "Corp_Tool", True),
        ("corp.*", "corp--tool", True),
        ("corp-*", "corporate", False),
        ("corp-*", "corp", False),
        ("@corp/*", "@corp/tool", True),
        ("@corp/*", "@corp/a/b", True),
        ("@corp/*", "@corporate/tool", False),
        ("@corp/*", "corp/tool", False),
        ("exact", "EXACT", True),
        ("exact", "exactly", False),
    ],
)
def test_patterns(pattern: str, name: str, is_one: bool) -> None:
    """As in file names; capitals and separators make no difference."""
    assert matches(pattern, name) is is_one


#: What would tell a public registry a name of ours, by type.
TELLING = {
    "npm": [
        *("/@corp/tool", "/@corp%2ftool", "/@corp%2Ftool/1.0.0", "/@corp/tool/latest", "/corp-tool", "/CORP_Tool"),
        *("/@corp/tool/-/tool-1.0.0.tgz", "/corp-tool/-/corp-tool-1.0.0.tgz", "/corp-tool?write=true"),
        *("/-/package/@corp%2ftool/dist-tags", "/-/npm/v1/attestations/@corp%2ftool@1.0.0"),
        *("/-/v1/search?text=corp-tool", "/-/v1/search?text=x%20scope:corp", "/-/v1/search?text=@corp"),
    ],
    "pypi": [
        *("/simple/corp-tool/", "/pypi/corp-tool/json", "/pypi/Corp_Tool/1.0/json"),
        *("/packages/ab/corp_tool-1.0-py3-none-any.whl", "/packages/ab/corp-tool-1.0.tar.gz"),
        *("/packages/ab/corp_tool-1.0-py3-none-any.whl.metadata", "/integrity/corp-tool/1.0/x.whl/provenance"),
    ],
    "maven": [
        *(f"/corp/tool/lib/1.0/lib-1.0.{end}" for end in ("jar", "pom", "jar.asc", "jar.sha1", "jar.asc.md5")),
        *("/corp/tool/maven-metadata.xml", "/corp/tool/lib/maven-metadata.xml.sha1", "/corp/tool/lib/x.xml"),
        *("/corp/tool/lib/1-SNAPSHOT/maven-metadata.xml", "/corp/tool/lib/1-SNAPSHOT/lib-1-20240101.000000-1.jar"),
    ],
    "cargo": [
        *("/co/rp/corp-tool", "/co/rp/corp_tool", f"/dl/{'ab' * 32}/http/cargo.test/corp-tool/corp-tool-1.0.crate"),
        *(f"/dl/{'ab' * 32}/http/cargo.test/x/corp-tool-1.0.0.crate", "/api/http/cargo.test/api/v1/crates?q=corp-tool"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "target"), [(kind, target) for kind, targets in TELLING.items() for target in targets]
)
def test_the_public_registry_is_never_told(kind: str, target: str) -> None:
    """Whatever is asked for, and by which method: it is answered 404 with the reason, and nobody is asked."""
    kit = public(kind)
    path, _, query = target.partition("?")
    for method in ("GET", "HEAD"):
        with pytest.raises(NotFound) as caught:
            kit.get_head(RequestHead(method=method, path=path, query=query))
        if method == "GET":
            assert "names" in caught.value.detail
    assert kit.upstream.asked == []


@pytest.mark.parametrize(
    ("kind", "target"),
    [("npm", "/corporate"), ("npm", "/@corporate/x"), ("npm", "/-/v1/search?text=left"), ("pypi", "/simple/other/")],
)
def test_other_names_are_asked_for(kind: str, target: str) -> None:
    """What only looks like one of ours is the public registry's."""
    kit = public(kind)
    path, _, query = target.partition("?")
    with pytest.raises(NotFound):
        kit.get_head(RequestHead(method="GET", path=path, query=query))
    assert len(kit.upstream.asked) == 1


AUDITS: dict[str, tuple[Any, Any]] = {
    "bulk": ({"left": ["1.0.0"], "@corp/tool": ["1.0.0"], "corp-x": ["2.0.0"]}, {"left": ["1.0.0"]}),
    "quick": (
        {
            "name": "corp-app",
            "requires": {"left": "^1.0.0", "@corp/tool": "^1"},
            "dependencies": {
                "left": {"version": "1.0.0", "requires": {"corp-x": "1"}},
                "@corp/tool": {"version": "1.0.0", "dependencies": {}},
                "alias": {"version": "npm:corp-x@2.0.0", "resolved": "https://c.test/@corp/tool/-/tool-1.tgz"},
            },
            "packages": {
                "node_modules/left": {},
                "node_modules/@corp/tool": {},
                "node_modules/a/node_modules/corp-x": {},
            },
        },
        {
            "name": "",
            "requires": {"left": "^1.0.0"},
            "dependencies": {"left": {"version": "1.0.0", "requires": {}}, "alias": {"version": "", "resolved": ""}},
            "packages": {"node_modules/left": {}},
        },
    ),
}


@pytest.mark.parametrize("form", AUDITS)
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_audits_do_not_name_them(form: str, coding: str) -> None:
    """Whatever form the audit has, and whether it is packed: what goes upstream holds none of our names."""
    told, left = AUDITS[form]
    body = json.dumps(told).encode()
    registry = public("npm").registry
    head = RequestHead(
        method="POST",
        path="/-/npm/v1/security/advisories/bulk" if form == "bulk" else "/-/npm/v1/security/audits/quick",
        headers=Headers.of({"content-encoding": coding}) if coding else Headers(),
        body=gzip.compress(body) if coding else body,
    )
    found = registry.route(head)
    assert isinstance(found, Relay)
    assert json.loads(found.body or b"") == left


@pytest.mark.parametrize("body", [b"", b"not JSON", b'{"corp-x"', b"\xff", b"[" * 100_000])
def test_an_audit_that_nobody_can_read_is_not_passed_on(body: bytes) -> None:
    """It might name anything."""
    head = RequestHead(method="POST", path="/-/npm/v1/security/advisories/bulk", body=body)
    with pytest.raises(BadRequest):
        public("npm").registry.route(head)


def test_a_packed_audit_is_sent_plain() -> None:
    """The upstream is told that what it gets is not packed."""
    kit = public("npm")
    kit.upstream.pages["http://npm.test/-/npm/v1/security/advisories/bulk"] = Page(body=b"{}")
    fields = Headers.of({"content-encoding": "gzip", "content-type": "application/json"})
    body = gzip.compress(b'{"left": ["1.0.0"]}')
    kit.get_head(RequestHead(method="POST", path="/-/npm/v1/security/advisories/bulk", headers=fields, body=body))
    ((_, _, sent),) = kit.upstream.asked
    assert "content-encoding" not in sent


def test_an_audit_is_untouched_where_nothing_is_ours() -> None:
    """Without such names the audit goes on as it came."""
    registry = make(RegistryOptions(name="npm", type="npm"))
    found = registry.route(RequestHead(method="POST", path="/-/npm/v1/security/advisories/bulk", body=b"odd"))
    assert isinstance(found, Relay)
    assert found.body is None


@given(st.text())
def test_searches_can_be_anything(text: str) -> None:
    """No text is too odd to look for names in it."""
    assert isinstance(searched(text), tuple)


def test_names_of_one_are_kept_from_its_like(tmp_path: Any) -> None:
    """The key of one table counts for all others of the same type, and not for itself."""
    file = tmp_path / "c.toml"
    file.write_text(
        '[registries.corp]\ntype = "npm"\nurl = "http://corp.test/"\nnames = ["@corp/*", "corp-*"]\n'
        '[registries.npm]\n[registries.second]\ntype = "npm"\nnames = ["second"]\n[registries.pypi]\n'
    )
    config = load({"config": str(file)}, {"HOME": "/"}, lambda kind: factory(kind).option_names)
    found = {one.name: (one.names, one.elsewhere) for one in config.registries}
    assert found == {
        "corp": (("@corp/*", "corp-*"), ("second",)),
        "npm": ((), ("@corp/*", "corp-*", "second")),
        "second": (("second",), ("@corp/*", "corp-*")),
        "pypi": ((), ()),
    }


@pytest.fixture
def both() -> Kit:
    """A cache in front of our own registry and the public one, as one; our names are the first one's."""
    options = RegistryOptions(name="npm", type="npm", url="http://corp.test/", names=ELSEWHERE)
    return make_cache(make(options.followed_by("http://npm.test/")))


def test_of_several_upstreams_the_first_has_the_names(both: Kit) -> None:
    """A name of ours that the first has not is not there, and while it is in trouble nobody else is asked."""
    both.upstream.pages["http://npm.test/@corp%2Ftool"] = packument("@corp/tool")
    with pytest.raises(NotFound):
        both.get("/@corp/tool")
    both.advance(61)
    both.upstream.pages["http://corp.test/@corp%2Ftool"] = Page(status=500)
    with pytest.raises(UpstreamError):
        both.get("/@corp/tool")
    assert {url.partition("@")[0] for url in both.upstream.urls()} == {"http://corp.test/"}


def test_what_was_stored_of_the_public_one_is_not_ours(both: Kit) -> None:
    """Names that become ours are asked for at our own registry, whatever is stored from before."""
    both.upstream.pages["http://npm.test/corp-tool"] = packument("corp-tool", "2.0.0")
    both.upstream.pages["http://corp.test/corp-tool"] = packument("corp-tool", "1.0.0")
    options = RegistryOptions(name="npm", type="npm", url="http://corp.test/").followed_by("http://npm.test/")
    before = make_cache(make(options))
    before.upstream.pages["http://npm.test/corp-tool"] = both.upstream.pages["http://npm.test/corp-tool"]
    assert b"2.0.0" in before.get("/corp-tool")[1]
    both.store.entries, both.store.blobs = before.store.entries, before.store.blobs
    assert b"1.0.0" in both.get("/corp-tool")[1]


def test_audits_go_to_the_first_that_takes_them(both: Kit) -> None:
    """Our own registry is told all; the public one, if that does no audits, all but our names."""
    there = "-/npm/v1/security/advisories/bulk"
    head = RequestHead(method="POST", path=f"/{there}", body=b'{"left": ["1.0.0"], "@corp/tool": ["1.0.0"]}')
    both.upstream.pages[f"http://npm.test/{there}"] = Page(body=b'{"left": []}')
    assert both.get_head(head)[1] == b'{"left": []}'
    assert both.upstream.urls() == [f"http://corp.test/{there}", f"http://npm.test/{there}"]
    assert [json.loads(body) for body in both.upstream.bodies] == [
        {"left": ["1.0.0"], "@corp/tool": ["1.0.0"]},
        {"left": ["1.0.0"]},
    ]
    both.upstream.pages[f"http://corp.test/{there}"] = Page(body=b"{}")
    assert both.get_head(head)[1] == b"{}"
    assert len(both.upstream.asked) == 3


def packument(name: str, version: str = "1.0.0") -> Page:
    """A package of one version."""
    listed = {version: {"name": name, "version": version, "dist": {}}}
    return Page(body=json.dumps({"name": name, "dist-tags": {"latest": version}, "versions": listed}).encode())
