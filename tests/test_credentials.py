"""Credentials and client certificates for upstreams: how they are said, to whom they go, and to whom they do not."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from regcache import registries
from regcache.cautions import warnings
from regcache.config import Config, load
from regcache.credentials import Credentials, held, read
from regcache.errors import ConfigError, ForbiddenOrigin
from regcache.flow.answers import Access, Answer
from regcache.flow.upstream import Ask, Upstream
from regcache.http.messages import Headers
from regcache.http.origins import Origin
from regcache.outward import Outward
from regcache.routes import RegistryOptions
from regcache.tap import build
from regcache.testing.kit import FakeUpstream, Page
from tests.certificates import certificate, server_context
from tests.forward import ForwardProxy
from tests.origin import Origin as Server
from tests.service import Running

SECRET = "hunter2-4711"
CODED = base64.b64encode(f"user:{SECRET}".encode()).decode()
NOT_RIGHT = (
    "is not right; it wants basic USER:PASSWORD, bearer TOKEN or token TOKEN, or in the file env:VARIABLE or netrc."
)


def configured(tmp_path: Path, table: str, mode: int = 0o600, **environ: Any) -> Config:
    """The configuration of one registry with such a table, and a name for it."""
    path = tmp_path / "regcache.toml"
    path.write_text(f'[registries.corp]\ntype = "npm"\n{table}\n')
    path.chmod(mode)
    environ = {"HOME": str(tmp_path), **environ}
    return load({"config": str(path)}, environ, lambda kind: registries.factory(kind).option_names)


def complaint(tmp_path: Path, table: str, **environ: Any) -> str:
    """What is wrong with one: always one line, without the secret."""
    with pytest.raises(ConfigError) as caught:
        outward(configured(tmp_path, table, **environ))
    assert "\n" not in caught.value.detail
    assert SECRET not in caught.value.detail
    assert CODED not in caught.value.detail
    return caught.value.detail


def outward(config: Config) -> Outward:
    """What the service makes of it."""
    return Outward(reactor, config, {one.name: registries.make(one) for one in config.registries})


def sent(config: Config, url: str = "https://packages.example/") -> str:
    """The Authorization field for an upstream."""
    return held("corp", config.credentials["corp"], url).authorization


# How they are said.


@pytest.mark.parametrize(
    ("auth", "field"),
    [
        (f"basic user:{SECRET}", f"Basic {CODED}"),
        (f"  Basic   user:{SECRET} ", f"Basic {CODED}"),
        ("basic us\u00e9r:a:b c", "Basic " + base64.b64encode("us\u00e9r:a:b c".encode()).decode()),
        ("basic user:", "Basic dXNlcjo="),
        (f"bearer {SECRET}", f"Bearer {SECRET}"),
        (f"token {SECRET}", SECRET),
        (f"token Bearer {SECRET}", f"Bearer {SECRET}"),
    ],
)
def test_values(auth: str, field: str, tmp_path: Path) -> None:
    """In the file, or in a variable that it names."""
    assert sent(configured(tmp_path, f"auth = '{auth}'")) == field
    assert sent(configured(tmp_path, 'auth = "env:CORP_AUTH"', CORP_AUTH=auth)) == field


@pytest.mark.parametrize(
    "auth",
    [
        *("", "basic", f"basic {SECRET}", SECRET, f"bearer {SECRET} \u00e9", f"token a\u0007{SECRET}", "bearer"),
        *(f"digest user:{SECRET}", f"basic user:{SECRET}\u0000", f"bearer\t{SECRET}"),
    ],
)
def test_wrong_values(auth: str, tmp_path: Path) -> None:
    """One line that says where, and not what."""
    escaped = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in auth)
    assert complaint(tmp_path, f'auth = "{escaped}"') == f"registries.corp.auth {NOT_RIGHT}"
    if auth and "\0" not in auth:
        told = complaint(tmp_path, 'auth = "env:CORP_AUTH"', CORP_AUTH=auth)
        assert told == f"registries.corp.auth, from CORP_AUTH {NOT_RIGHT}"


def test_other_wrong_values(tmp_path: Path) -> None:
    """A variable that is not set, and what is no text."""
    told = complaint(tmp_path, 'auth = "env:CORP_AUTH"')
    assert told.startswith("registries.corp.auth: the environment variable CORP_AUTH is not set")
    for value in (f'["{SECRET}"]', "5", "true", f'{{ basic = "{SECRET}" }}'):
        assert complaint(tmp_path, f"auth = {value}") == f"registries.corp.auth {NOT_RIGHT}"
    assert "did you mean 'auth'?" in complaint(tmp_path, f'auht = "{SECRET}"')
    told = complaint(tmp_path, f'url = "https://user:{SECRET}@packages.example/"')
    assert "go into its auth" in told


@given(st.text(max_size=40), st.text(max_size=40))
@example("env:X", "basic a:b")
@example("env:\0", "")
def test_any_value(auth: str, other: str) -> None:
    """A field that can be sent, or a complaint."""
    with contextlib.suppress(ConfigError):
        found = read("corp", {"auth": auth}, "/x", {"X": other, "HOME": "/nowhere"})
        assert found is not None
        assert found.authorization.isascii()
        assert found.authorization.isprintable()
        assert found.authorization or found.netrc


def test_netrc(tmp_path: Path) -> None:
    """The entry for the upstream's host, of the usual file or the one that is named."""
    usual, other = tmp_path / ".netrc", tmp_path / "other"
    usual.write_text(f"machine packages.example login user password {SECRET}\n")
    other.write_text("machine a.example login b password c\ndefault login d password e\n")
    config = configured(tmp_path, 'auth = "netrc"')
    assert sent(config, "https://packages.example:8443/x/") == f"Basic {CODED}"
    with pytest.raises(ConfigError, match=f"registries.corp.auth: {usual} has no entry for other.example: machine"):
        sent(config, "https://other.example/")
    config = configured(tmp_path, 'auth = "netrc"', NETRC=str(other))
    assert sent(config, "http://a.example/") == "Basic Yjpj"
    assert sent(config, "http://any.example/") == "Basic ZDpl"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (f"machine x {SECRET}".encode(), "cannot be understood from line 1 on"),
        (f"\n{SECRET}".encode(), "cannot be understood from line 2 on"),
        (b"machine x login \xff password y", "is not text in UTF-8"),
        (f"machine packages.example login a:b password {SECRET}".encode(), "cannot be used; it wants a user"),
        (b"", "has no entry for packages.example"),
    ],
)
def test_wrong_netrc(content: bytes | None, told: str, tmp_path: Path) -> None:
    """One line, in which no password is quoted."""
    if content is not None:
        (tmp_path / ".netrc").write_bytes(content)
    said = complaint(tmp_path, 'auth = "netrc"\nurl = "https://packages.example/"')
    assert said.startswith("registries.corp.auth: ")
    assert told in said


def test_warnings(tmp_path: Path) -> None:
    """Files that others can read, and upstreams without TLS."""
    table = f'auth = "bearer {SECRET}"\nurl = "https://packages.example/"'
    assert warnings(configured(tmp_path, table), {}, ()) == []
    assert warnings(configured(tmp_path, table, mode=0o640), {}, ()) == []
    (line,) = warnings(configured(tmp_path, table, mode=0o644), {}, ())
    assert line.endswith(f"regcache.toml holds credentials, and others can read it: chmod 600 {tmp_path}/regcache.toml")
    (tmp_path / ".netrc").write_text("")
    (tmp_path / ".netrc").chmod(0o640)
    (line,) = warnings(configured(tmp_path, 'auth = "netrc"', mode=0o644), {}, ())
    assert ".netrc holds credentials" in line
    assert warnings(configured(tmp_path, 'auth = "env:X"', mode=0o644, X=f"token {SECRET}"), {}, ()) == []
    pem = certificate(tmp_path / "both.pem")
    pem.chmod(0o644)
    (line,) = warnings(configured(tmp_path, f'client-cert = "{pem}"', mode=0o644), {}, ())
    assert "both.pem holds credentials" in line
    (line,) = warnings(configured(tmp_path, f'url = "http://packages.example/"\nauth = "token {SECRET}"'), {}, ())
    assert line == "registries.corp: its credentials go to http://packages.example/ without encryption."


def test_what_shows_it(tmp_path: Path) -> None:
    """No value that holds it says it, and the options of a registry do not hold it: only that there is something."""
    config = configured(tmp_path, f'auth = "basic user:{SECRET}"\nshared = true')
    made = build(reactor, config)
    registry = made.service.house.registries["corp"]
    access = Access(origin=Origin("https", "a.example", 443), authorization=f"Basic {CODED}", lowest=FakeUpstream())
    for value in (config, config.registries, config.credentials, registry.options, asdict(registry.options), access):
        assert SECRET not in repr(value)
        assert CODED not in repr(value)
    assert CODED not in repr(held("corp", config.credentials["corp"], "https://a.example/"))
    assert registry.options.has_credentials
    assert config.registries[0].has_credentials
    assert not configured(tmp_path, "ttl = 5").registries[0].has_credentials


def test_in_a_program_of_ones_own(tmp_path: Path) -> None:
    """Whoever builds the configuration in Python gives credentials by name; the options follow."""
    config = Config(
        cache_dir=str(tmp_path),
        registries=(RegistryOptions(name="npm", type="npm", shared=True), RegistryOptions(name="pypi", type="pypi")),
        credentials={"npm": Credentials(authorization="Bearer x")},
    )
    made = build(reactor, config).service.house.registries
    assert {name: registry.options.has_credentials for name, registry in made.items()} == {"npm": True, "pypi": False}


# Client certificates.


def test_wrong_certificates(tmp_path: Path) -> None:
    """One line that names the file."""
    good, other = certificate(tmp_path / "a.pem"), certificate(tmp_path / "b.pem")
    locked = certificate(tmp_path / "locked.pem", secret=SECRET.encode())
    (tmp_path / "text").write_text("text")
    for table, told in (
        (f'client-cert = "{tmp_path}/none"', f"registries.corp.client-cert: {tmp_path}/none: No such file"),
        (f'client-cert = "{tmp_path}"', f"{tmp_path}: Is a directory"),
        (f'client-cert = "{tmp_path}/text"', f"{tmp_path}/text: it wants PEM files of a certificate and its key"),
        (f'client-cert = "{locked}"', "without a password"),
        (f'client-cert = "{good}"\nclient-key = "{other}"', f"{good} and {other}: it wants PEM files"),
        (f'client-cert = "{good}"\nclient-key = "{tmp_path}/none"', f"{tmp_path}/none: No such file"),
        ('client-cert = "a\\u0000b"', "it wants a file"),
        (f'client-key = "{good}"', "it is the key of a client-cert, which is not there"),
        (f'client-cert = "{good}"\nurl = "http://packages.example/"', "only an https upstream asks for one"),
    ):
        assert told in complaint(tmp_path, table), table


def test_a_certificate_that_went(tmp_path: Path) -> None:
    """Between the reading of the configuration and its use."""
    good = certificate(tmp_path / "a.pem")
    config = configured(tmp_path, f'client-cert = "{good}"')
    good.unlink()
    with pytest.raises(ConfigError, match="cannot be read any more"):
        outward(config)


# To whom they go.


class World:
    """
    An upstream in which the registry ``corp`` has an access of its own.

    :ivar common: whom everybody asks.
    :ivar own: whom only the registry asks.
    """

    def __init__(self) -> None:
        self.common, self.own = FakeUpstream(), FakeUpstream()
        origin = Origin("https", "corp.example", 443)
        access = Access(origin=origin, authorization="Bearer x", lowest=self.own)
        self.upstream = Upstream(Clock(), self.common, accesses={"corp": access})

    def redirect(self, url: str, target: str) -> None:
        """Lead from one place to another."""
        for one in (self.common, self.own):
            one.pages[url] = Page(status=302, headers={"location": target})

    def ask(self, url: str, registry: str = "corp", **more: Any) -> list[tuple[str, str, bool]]:
        """Ask; each request by whom it was put, its URL, and whether it carried the credentials."""
        asking = Deferred.fromCoroutine(
            self.upstream.ask(Ask(url=url, registry=registry, allows=lambda _: True, **more), 5)
        )
        outcome: list[Answer | Failure] = []
        asking.addBoth(outcome.append)
        (answer,) = outcome
        if isinstance(answer, Failure):
            answer.trap(ForbiddenOrigin)
        found = [("own", url, headers) for _, url, headers in self.own.asked]
        found += [("common", url, headers) for _, url, headers in self.common.asked]
        return [(who, url, headers.get("authorization") == "Bearer x") for who, url, headers in found]


def test_its_own_origin() -> None:
    """Whatever is asked there is asked with them, in place of whatever came along."""
    for more in (
        {},
        {"method": "HEAD"},
        {"method": "POST", "body": b"x"},
        {"headers": Headers.of({"authorization": "y"})},
    ):
        url = "https://corp.example/any/place?x=y"
        assert World().ask(url, **more) == [("own", url, True)]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://files.example/a",
            "https://a.corp.example/",
            "https://corp.example.org/",
            "https://corp.example:444/",
        ),
        *("http://corp.example/", "http://corp.example:443/"),
    ],
)
def test_other_origins(url: str) -> None:
    """Another host, port or scheme gets nothing, whether it is linked to or redirected to."""
    assert World().ask(url) == [("common", url, False)]
    world = World()
    world.redirect("https://corp.example/a", url)
    asked = world.ask("https://corp.example/a")
    assert asked[0] == ("own", "https://corp.example/a", True)
    assert [one for one in asked[1:] if one[2] or one[0] == "own"] == []


def test_other_registries() -> None:
    """One at the same host has none."""
    url = "https://corp.example/other/"
    assert World().ask(url, registry="other") == [("common", url, False)]
    assert World().ask(url, registry="") == [("common", url, False)]


def test_redirects() -> None:
    """Within the origin they go along; once out of it they stay away, also on the way back."""
    world = World()
    world.redirect("https://corp.example/a", "/b")
    assert world.ask("https://corp.example/a") == [
        ("own", "https://corp.example/a", True),
        ("own", "https://corp.example/b", True),
    ]
    world = World()
    world.redirect("https://corp.example/a", "https://other.example/")
    world.redirect("https://other.example/", "https://corp.example/b")
    assert world.ask("https://corp.example/a") == [
        ("own", "https://corp.example/a", True),
        ("common", "https://other.example/", False),
        ("common", "https://corp.example/b", False),
    ]


# The service.


@pytest.fixture
def files() -> Iterator[Server]:
    """Where files lie, elsewhere than their index."""
    made = Server()
    yield made
    made.close()


def stored(directory: Path) -> bytes:
    """Everything that is in the cache's directory."""
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def environments(pid: int) -> list[bytes]:
    """Those of the processes that a process has started, where the system tells."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        return []
    found = [Path(f"/proc/{child}/environ").read_bytes() for child in children.read_text().split()]
    assert any(b"PYTHONPATH=" in one for one in found)
    return found


def test_the_service(origin: Server, files: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upstream is sent them, the host of its files and another registry are not, and nothing shows them."""
    field = f"Basic {CODED}"
    origin.spoil = lambda path, answer: (
        answer if origin.heads[-1].get("authorization") == field else (401, "text/plain", f"{path}?".encode())
    )
    path = files.add_wheel("demo", "1.0")
    page = files.body("/simple/demo/")
    # So large that the helper reads it.
    origin.add("/simple/demo/", page.rstrip(b"}") + b"}" + b" " * 20_000, "application/vnd.pypi.simple.v1+json")
    table = f'type = "pypi"\nurl = "{origin.url}simple/"\nfiles = "{files.url}"\n'
    tables = f'[registries.corp]\n{table}shared = true\nauth = "env:CORP_AUTH"\n[registries.open]\n{table}'
    monkeypatch.setenv("CORP_AUTH", f"basic user:{SECRET}")
    log = tmp_path / "access.log"
    service = Running(tmp_path, origin, "--access-log", str(log), tables=tables)
    try:
        status, _, body = service.get("corp/simple/demo/")
        assert (status, b"demo-1.0" in body) == (200, True)
        assert service.get(f"corp{path}")[2] == files.body(path)
        refused = service.get("open/simple/demo/")
        assert refused[0] in (401, 403, 502)
        quoted = f"user:{SECRET} with {SECRET} as {CODED} is out of date".encode()
        origin.spoil = lambda _path, _answer: (403, "text/plain", quoted)
        missing = service.get("corp/simple/other/")
        assert missing[0] >= 400
        assert b"... with ... as ... is out of date" in missing[2]
        children = environments(service.process.pid)
        said = service.said + service.stop()
    finally:
        service.kill()
    assert [head.get("authorization") for head in files.heads if "authorization" in head] == []
    assert [head.get("authorization") for head in origin.heads if head.get("authorization") not in (field, None)] == []
    told = said.encode() + stored(tmp_path / "cache") + log.read_bytes() + body + refused[2] + missing[2]
    for secret in (SECRET.encode(), CODED.encode()):
        assert secret not in told
        assert secret not in b"".join(children)


@pytest.mark.parametrize("proxied", [False, True], ids=["directly", "through a proxy"])
def test_client_certificates(
    proxied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: Callable[[Any], Any]
) -> None:
    """Shown to the upstream, which asks for it; not to the host of its files, nor for another registry."""
    ours, ca = certificate(tmp_path / "ours.pem", "us"), certificate(tmp_path / "ca.pem")
    corp = closing(Server(server_context(ca, ours)))
    elsewhere = closing(Server(server_context(ca, ours)))
    path = corp.add_wheel("demo", "1.0")
    away = elsewhere.add_wheel("away", "1.0")
    corp.add("/simple/away/", elsewhere.body("/simple/away/"), "application/vnd.pypi.simple.v1+json")
    host = elsewhere.url.split("/")[2]
    table = f'type = "pypi"\nurl = "{corp.url}simple/"\nfiles = "{corp.url}"\nartifact-hosts = ["{host}"]\n'
    tables = f'[registries.corp]\n{table}shared = true\nclient-cert = "{ours}"\n[registries.open]\n{table}'
    proxy = closing(ForwardProxy())
    if proxied:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    service = Running(tmp_path, corp, "--upstream-ca", str(ca), tables=tables)
    try:
        assert service.get("corp/simple/demo/")[0] == 200
        assert service.get(f"corp{path}")[2] == corp.body(path)
        asked = list(corp.asked)
        for refused in ("open/simple/demo/", f"open{path}", f"corp/files/https/{host}{away}"):
            status, _, body = service.get(refused)
            assert (status, b"TLS with localhost" in body or b"closed the connection" in body) == (502, True), body
        assert (corp.asked, elsewhere.asked) == ([*asked, "/simple/away/"], [])
        assert bool(proxy.asked) is proxied
        service.stop()
    finally:
        service.kill()


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Closes at the end what it was given."""
    with contextlib.ExitStack() as stack:
        yield lambda made: stack.enter_context(contextlib.closing(made))


def test_the_example(tmp_path: Path) -> None:
    """The configuration that the documentation shows does what is said there."""
    text = (Path(__file__).parent.parent / "docs" / "examples" / "networks.toml").read_text("utf-8")
    for name in ("company-ca.pem", "tools.pem", "tools.key"):
        assert f"/etc/regcache/{name}" in text
    for name in ("company-ca.pem", "tools.pem"):
        certificate(tmp_path / name)
    (tmp_path / "readers").write_text("")
    (tmp_path / "tools.key").write_bytes((tmp_path / "tools.pem").read_bytes())
    (tmp_path / "networks.toml").write_text(text.replace("/etc/regcache/", f"{tmp_path}/"))
    environ = {
        "HTTPS_PROXY": "http://user:password@proxy.corp.example:3128",
        "NO_PROXY": ".corp.example",
        "CORP_NPM": f"bearer {SECRET}",
        "HOME": str(tmp_path),
    }
    config = load(
        {"config": str(tmp_path / "networks.toml")}, environ, lambda kind: registries.factory(kind).option_names
    )
    assert outward(config).told() == "npm through the proxy http://proxy.corp.example:3128; corp, tools directly"
    assert sent(config) == f"Bearer {SECRET}"
    assert config.credentials["tools"].certificate == str(tmp_path / "tools.pem")
    assert list(config.credentials) == ["corp", "tools"]
