"""Names that belong to one upstream alone."""

from __future__ import annotations

import contextlib
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import fail

from regcache.config import load
from regcache.errors import BadRequest, CannotRead, NotFound, PayloadTooLarge, TooBusy, UpstreamError
from regcache.http.messages import Headers, RequestHead
from regcache.ownership import matches
from regcache.registries import factory, make
from regcache.registries.audits import searched
from regcache.routes import RegistryOptions, Relay
from regcache.testing import Kit, Page, make_cache

ELSEWHERE = ("@corp/*", "corp-*", "my-2x")


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
        *("/-/v1/search?text=%22my-2x%22", "/-/v1/search?text=keywords:my-2x", "/-/v1/search?q=x+(my-2x)"),
    ],
    "pypi": [
        *("/simple/corp-tool/", "/pypi/corp-tool/json", "/pypi/Corp_Tool/1.0/json"),
        *("/packages/ab/corp_tool-1.0-py3-none-any.whl", "/packages/ab/corp-tool-1.0.tar.gz"),
        *("/packages/ab/corp_tool-1.0-py3-none-any.whl.metadata", "/integrity/corp-tool/1.0/x.whl/provenance"),
    ],
    "maven": [
        *("/corp/tool/lib/1.0/more/deep/x.bin", "/corp/tool/maven-metadata.xml.sha1"),
        *(f"/corp/tool/lib/1.0/lib-1.0.{end}" for end in ("jar", "pom", "jar.asc", "jar.sha1", "jar.asc.md5")),
        *("/corp/tool/maven-metadata.xml", "/corp/tool/lib/maven-metadata.xml.sha1", "/corp/tool/lib/x.xml"),
        *("/corp/tool/lib/1-SNAPSHOT/maven-metadata.xml", "/corp/tool/lib/1-SNAPSHOT/lib-1-20240101.000000-1.jar"),
    ],
    "cargo": [
        *("/co/rp/corp-tool", "/co/rp/corp_tool", f"/dl/{'ab' * 32}/http/cargo.test/corp-tool/corp-tool-1.0.crate"),
        *(f"/dl/{'ab' * 32}/http/cargo.test/x/corp-tool-1.0.0.crate", "/api/http/cargo.test/api/v1/crates?q=corp-tool"),
        *(f"/dl/{'ab' * 32}/http/cargo.test/{end}" for end in ("dl?crate=corp-tool&v=1", "my-2x-1.0.crate", "my-2x@1")),
        *(f"/api/http/cargo.test/api/v1/crates?{end}" for end in ("q=%22my-2x%22", "ids%5B%5D=corp-tool", "corp-tool")),
    ],
    "go": [
        *(
            "/my-2x/@v/list",
            "/my-2x/sub/@v/v1.0.0.zip",
            "/sumdb/sum.golang.org/lookup/my-2x/y@v1.0.0",
            "/my-2x/@latest",
        ),
    ],
    "nuget": [
        *("/query/find.json?q=corp-tool", "/query?q=(my-2x)", "/query?q=my-2x,y", "/query?my-2x", "/query/my-2x/y"),
        *("/v3-flatcontainer/my-2x/index.json", "/v3/catalog0/data/2024/my-2x.1.0.0.json"),
    ],
    "rubygems": [
        *(
            "/info/my-2x",
            "/gems/my-2x-1.0.gem",
            "/gems/my-2x-1.0-x86-linux.gem",
            "/quick/Marshal.4.8/my-2x-1.gemspec.rz",
        ),
        *("/api/v1/versions/my-2x/latest.json", "/api/v2/rubygems/corp-tool/versions/1.0.json"),
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


@pytest.mark.parametrize(
    ("kind", "pattern", "path"),
    [
        ("nuget", "corp", "/v3-flatcontainer/corp.tool/index.json"),
        ("nuget", "corp", "/v3-flatcontainer/corp.2tool/1.0.0/corp.2tool.1.0.0.nupkg"),
        ("maven", "org.fx:*", "/org/fx/sub/lib/1-SNAPSHOT/lib-1-20240101.000000-1.jar"),
        ("npm", "@corp/*", "/-/v1/search?text=corp"),
    ],
)
def test_names_that_only_begin_like_ours(kind: str, pattern: str, path: str) -> None:
    """Where an address tells a name exactly, no other is read into it."""
    kit = make_cache(make(RegistryOptions(name=kind, type=kind, url=f"http://{kind}.test/", elsewhere=(pattern,))))
    path, _, query = path.partition("?")
    with pytest.raises(NotFound, match="answered 404"):
        kit.get_head(RequestHead(method="GET", path=path, query=query))
    assert kit.upstream.asked


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        *(("go", f"{begin}{'a/' * 4000}{end}") for begin, end in [("/", "@v/list"), ("/sumdb/x/lookup/", "a@v1.0.0")]),
        *(("nuget", f"/{begin}{'1.' * 4000}json") for begin in ("x/", "query?q=")),
        *(("cargo", f"/{begin}{'a-1' * 2600}") for begin in (f"dl/{'ab' * 32}/http/cargo.test/", "api/x?q=")),
        *(("maven", f"/{'a/' * 4000}x.jar"), ("rubygems", f"/gems/a{'-1' * 4000}.gem")),
        ("npm", f"/-/v1/search?text={'a-1' * 2600}"),
    ],
)
def test_few_names_are_read_into_a_long_address(kind: str, target: str) -> None:
    """Each takes time of the one thread that serves everybody."""
    path, _, query = target.partition("?")
    names: tuple[str, ...] = ()
    with contextlib.suppress(NotFound):
        names = getattr(public(kind).registry.route(RequestHead(method="GET", path=path, query=query)), "packages", ())
    assert sum(map(len, names)) < 1 << 18


def test_our_names_are_not_told_to_the_public_checksum_database() -> None:
    """Not by way of their own upstream either, which may pass it on."""
    kit = make_cache(make(RegistryOptions(name="go", type="go", url="http://go.test/", names=("corp.example/*",))))
    with pytest.raises(NotFound, match="GONOSUMDB"):
        kit.get("/sumdb/sum.golang.org/lookup/corp.example/x@v1.0.0")
    assert kit.upstream.asked == []
    for lookup in ("sum.golang.org/lookup/go.example/x@v1.0.0", "sums.corp.example/lookup/corp.example/x@v1.0.0"):
        with pytest.raises(NotFound, match="answered 404"):
            kit.get(f"/sumdb/{lookup}")
    assert len(kit.upstream.asked) == 2


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
                "other": {"version": "1.0.0(my-2x@1.0.0)", "resolved": "https://c.test/@corp%2ftool/-/tool-1.tgz"},
                "patch:my-2x@npm%3A1.0": {"version": "my-2x@1"},
                "last": {"version": "https://c.test/-/my-2x-1.0.0.tgz", "resolved": "https://c.test/my-2x.git#main"},
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
            "dependencies": {
                "left": {"version": "1.0.0", "requires": {}},
                **{name: {"version": "", "resolved": ""} for name in ("alias", "other", "last")},
            },
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
    kit, there = public("npm"), "-/npm/v1/security/advisories/bulk"
    kit.upstream.pages[f"http://npm.test/{there}"] = Page(body=b"{}")
    fields = Headers.of({"content-encoding": coding} if coding else {})
    kit.get_head(
        RequestHead(method="POST", path=f"/{there}", headers=fields, body=gzip.compress(body) if coding else body)
    )
    assert list(map(json.loads, kit.upstream.bodies)) == [left]


@pytest.mark.parametrize("body", [b"", b"not JSON", b'{"corp-x"', b"\xff", b"[" * 100_000])
def test_an_audit_that_nobody_can_read_is_not_passed_on(body: bytes) -> None:
    """It might name anything."""
    kit = public("npm")
    for fields in ({}, {"content-encoding": "gzip"}, {"content-encoding": "br"}):
        head = RequestHead(
            method="POST", path="/-/npm/v1/security/advisories/bulk", body=body, headers=Headers.of(fields)
        )
        with pytest.raises(BadRequest):
            kit.get_head(head)
    assert kit.upstream.asked == []


def test_an_audit_that_unpacks_to_too_much() -> None:
    """Reading it takes time, which a few bytes could take a lot of."""
    head = RequestHead(
        method="POST",
        path="/-/npm/v1/security/advisories/bulk",
        headers=Headers.of({"content-encoding": "gzip"}),
        body=gzip.compress(b"[" + b"0," * (4 << 20) + b"0]"),
    )
    with pytest.raises(PayloadTooLarge):
        public("npm").get_head(head)


def test_an_audit_that_cannot_be_read_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no fault of the client's, who is told to come again."""
    kit = public("npm")
    monkeypatch.setattr(kit.cache.context.deriver, "derive", lambda _: fail(CannotRead("")))
    with pytest.raises(TooBusy):
        kit.get_head(RequestHead(method="POST", path="/-/npm/v1/security/advisories/bulk", body=b"{}"))
    assert kit.upstream.asked == []


def test_an_audit_is_read_where_it_delays_nobody() -> None:
    """What it means is known before it has been read, whatever it holds."""
    head = RequestHead(method="POST", path="/-/npm/v1/security/advisories/bulk", body=b"not read")
    assert isinstance(public("npm").registry.route(head), Relay)


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
    assert not found.document


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
