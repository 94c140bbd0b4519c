"""The doors of a running service: web pages, names, passwords and tokens, and what is told to whom."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bcrypt
import pytest
from twisted.web.http_headers import Headers as WireHeaders

from regcache.flow.reply import How, Reply, Unknown
from regcache.http.fields import format_date
from regcache.http.messages import Headers
from regcache.options import Options
from regcache.stamps import stamp, stamped, stamped_lines
from tests import clients
from tests.origin import Origin
from tests.service import Running, free_port
from tests.test_promises import wait_for
from tests.test_web import get, send

PASSWORD = "w0nder-Land"
TOKEN = "t0ken-of-a-machine"
ALICE = "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
ALONE = free_port()


def readers(path: Path) -> Path:
    """A file with alice's password and the token of ci."""
    kept = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")
    path.write_text(f"alice:{kept}\nci:sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    path.chmod(0o640)
    return path


@pytest.fixture(scope="module")
def registry() -> Iterator[Origin]:
    """One registry for all the tests here."""
    made = Origin()
    made.add_wheel("alpha", "1.0")
    made.add_tarball("left", "1.0.0")
    made.add("/page.html", b"<script>alert(1)</script>", "text/html")
    yield made
    made.close()


@pytest.fixture(scope="module")
def guarded(registry: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that asks who asks, with a registry for alice alone, a shared one, and a port of npm's own."""
    place = tmp_path_factory.mktemp("guarded")
    tables = f"""
auth = "{readers(place / "readers")}"
access-log = "{place}/access.log"
access-log-hits = true
[registries.pypi]
url = "{registry.url}simple/"
files = "{registry.url}"
[registries.npm]
url = "{registry.url}"
[registries.corp]
type = "npm"
url = "{registry.url}"
readers = "alice"
[registries.open]
type = "generic"
url = "{registry.url}"
shared = true
"""
    listen = ("--listen", "tcp:0:interface=127.0.0.1", "--listen", f"npm@tcp:{ALONE}:interface=127.0.0.1")
    running = Running(place, registry, *listen, tables=tables)
    yield running
    said = running.said + running.stop() + (place / "access.log").read_text()
    for secret in (PASSWORD, TOKEN, ALICE.removeprefix("Basic "), "$2y$"):
        assert secret not in said
    for head in registry.heads:
        assert "authorization" not in {name.lower() for name in head}, "it went upstream"
    for stored in (place / "cache").rglob("*"):
        assert not stored.is_file() or TOKEN.encode() not in stored.read_bytes()


@pytest.fixture(scope="module")
def service(registry: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service as it is when nothing is said."""
    running = Running(tmp_path_factory.mktemp("service"), registry)
    yield running
    running.stop()


# Who asks.

PAGES = ["/", "/-/health", "/-/health/ready", "/-/clients/npm", "/npm/", "/npm/left", "/npm/left/-/left-1.0.0.tgz"]
PAGES += ["/-/metrics", "/pypi/simple/alpha/", "/corp/left", "/none/such", "/npm/-/v1/search?text=x", "/npm/%2e%2e/x"]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("told", [(), ("Authorization: Bearer wrong",)], ids=["nothing", "wrong"])
def test_every_page_asks(guarded: Running, registry: Origin, path: str, told: tuple[str, ...]) -> None:
    """Without credentials, or with wrong ones, nothing is told and nobody is asked."""
    registry.asked.clear()
    status, fields, body = send(guarded, get(path, *told))
    assert status == 401
    assert fields["www-authenticate"].startswith(("Basic realm=", "Bearer realm="))
    assert fields["cache-control"] == "no-store"
    assert b"regcache.toml" not in body
    assert b"corp" not in body
    assert registry.asked == []


def test_a_body_from_nobody_is_not_waited_for(guarded: Running) -> None:
    """A wrong token is told so, also with a body."""
    raw = get("/npm/-/npm/v1/security/audits", "Content-Length: 2", "Authorization: Bearer x", method="POST")
    assert send(guarded, raw + b"{}")[0] == 401


@pytest.mark.usefixtures("guarded")
def test_the_port_of_one_registry() -> None:
    """It asks as well."""
    there = Running.__new__(Running)
    there.url = f"http://127.0.0.1:{ALONE}/"
    assert send(there, get("/left"))[0] == 401
    assert send(there, get("/-/health/live", "Host: anything.example"))[2] == b"ok\n"
    assert send(there, get("/left", f"Authorization: Bearer {TOKEN}"))[0] == 200


@pytest.mark.parametrize("told", [ALICE, f"Bearer {TOKEN}", TOKEN])
def test_who_is_known_is_let_in(guarded: Running, told: str) -> None:
    """By a password, by a token, and by a token alone; and nobody between keeps what they get for others."""
    for path in ("/npm/left", "/npm/left/-/left-1.0.0.tgz", "/-/health"):
        status, fields, _ = send(guarded, get(path, f"Authorization: {told}"))
        assert status == 200
        assert "public" not in fields.get("cache-control", "")
    tarball = get("/npm/left/-/left-1.0.0.tgz", f"Authorization: {told}")
    wait_for(lambda: "immutable" in send(guarded, tarball)[1].get("cache-control", ""))
    assert send(guarded, tarball)[1]["cache-control"].startswith("private, ")


def test_rights(guarded: Running) -> None:
    """A registry of alice's is not for ci, who is not told of it."""
    assert send(guarded, get("/corp/left", f"Authorization: {ALICE}"))[0] == 200
    status, _, body = send(guarded, get("/corp/left", f"Authorization: Bearer {TOKEN}"))
    assert (status, json.loads(body)["error"]) == (
        403,
        "This client may not use the cache. ci is not among the readers of corp.",
    )
    for path in ("/", "/-/clients/none", "/none/such"):
        assert b"corp" in send(guarded, get(path, f"Authorization: {ALICE}"))[2]
        assert b"corp" not in send(guarded, get(path, f"Authorization: Bearer {TOKEN}"))[2]


def test_what_is_shared(guarded: Running) -> None:
    """A shared registry asks nobody, and takes no notice of what is said."""
    for told in ((), ("Authorization: Bearer wrong",)):
        status, fields, _ = send(guarded, get("/open/page.html", *told))
        assert status == 200
        assert "sandbox" in fields["content-security-policy"]


def install(command: list[str], place: Path, **variables: str) -> None:
    """Run a client, which must succeed."""
    ended = clients.run(command, place, **variables)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def with_user(service: Running, user: str) -> str:
    """The package index's URL, with credentials in it."""
    return f"http://{user}@127.0.0.1:{urlsplit(service.url).port}/pypi/simple/"


@pytest.mark.e2e
@pytest.mark.parametrize("tool", [clients.pip_install, clients.uv_install])
@pytest.mark.parametrize("user", [f"alice:{PASSWORD}", f"ci:{TOKEN}"], ids=["password", "token"])
def test_pip_and_uv(guarded: Running, tmp_path: Path, tool: object, user: str) -> None:
    """A name and a password, or a token, in the URL of the index."""
    assert callable(tool)
    install(tool(with_user(guarded, user), tmp_path, "alpha"), tmp_path)
    assert (tmp_path / "installed" / "alpha" / "__init__.py").exists()


@pytest.mark.e2e
def test_pip_is_refused(guarded: Running, tmp_path: Path) -> None:
    """A wrong password installs nothing."""
    command = [*clients.pip_install(with_user(guarded, "alice:wrong"), tmp_path, "alpha"), "--no-input"]
    ended = clients.run(command, tmp_path)
    assert ended.returncode
    assert not (tmp_path / "installed").exists()


@pytest.mark.e2e
@pytest.mark.parametrize(
    "line", [f"_authToken={TOKEN}", f"_auth={ALICE.removeprefix('Basic ')}"], ids=["token", "auth"]
)
def test_npm(guarded: Running, tmp_path: Path, line: str) -> None:
    """npm's own ways to say who one is, for packuments and tarballs alike."""
    url = guarded.url.replace("127.0.0.1", "localhost") + "npm/"
    npmrc = tmp_path / "npmrc"
    npmrc.write_text(f"{url.partition(':')[2]}:{line}\n")
    install(clients.npm_install(url, tmp_path, "left"), tmp_path, NPM_CONFIG_USERCONFIG=str(npmrc))
    assert (tmp_path / "node_modules" / "left" / "index.js").exists()


def test_a_name_taken_out_of_the_file(tmp_path: Path, registry: Origin) -> None:
    """It is not let in any more, and the service was not restarted."""
    file = readers(tmp_path / "readers")
    service = Running(tmp_path, registry, "--auth", str(file))
    try:
        assert send(service, get("/npm/left", f"Authorization: {ALICE}"))[0] == 200
        file.write_text(file.read_text().replace("alice:", "carol:"))
        wait_for(lambda: send(service, get("/npm/left", f"Authorization: {ALICE}"))[0] == 401)
        service.stop()
    finally:
        service.kill()


# Web pages.

FOREIGN = {
    "a script's request": ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"),
    "an old browser's": ("Origin: http://evil.example",),
    "a sandbox's": ("Origin: null",),
    "a page's on another port": ("Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"),
    "a picture": ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"),
    "a frame": ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"),
}


@pytest.mark.parametrize("path", ["/-/metrics", "/-/health/ready"])
def test_numbers_are_told_of_what_one_may_read(guarded: Running, path: str) -> None:
    """The registry of alice alone is no concern of the token's."""
    assert send(guarded, get("/corp/left", f"Authorization: {ALICE}"))[0] == 200
    for who, sees in ((ALICE, True), (f"Bearer {TOKEN}", False)):
        status, _, body = send(guarded, get(path, f"Authorization: {who}"))
        assert (status, b"npm" in body, b"corp" in body) == (200, True, sees)


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_pages_are_refused(service: Running, registry: Origin, case: str) -> None:
    """What a browser says it asks for another site's page is refused, and nothing goes upstream."""
    registry.asked.clear()
    for path in ("/", "/-/health", "/-/metrics", "/npm/left", "/pypi/simple/alpha/"):
        status, fields, body = send(service, get(path, *FOREIGN[case]))
        assert status == 403
        assert b"web page" in body
        assert "access-control-allow-origin" not in fields
    audit = get("/npm/-/npm/v1/security/audits", "Content-Length: 2", *FOREIGN[case], method="POST")
    assert send(service, audit + b"{}")[0] == 403
    assert send(service, get("/npm/left", *FOREIGN[case], method="OPTIONS"))[0] == 403
    assert registry.asked == []


def test_links_from_elsewhere(service: Running, registry: Origin) -> None:
    """A person may come by a link to the cache's own pages, but not make it fetch something by one."""
    link = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1")
    registry.asked.clear()
    for path in ("/", "/-/health", "/-/clients/npm", "/npm/"):
        assert send(service, get(path, *link))[0] == 200
    assert send(service, get("/npm/left", *link))[0] == 403
    assert registry.asked == []


def test_own_pages_and_persons(service: Running) -> None:
    """What is typed, and what leads from a page of the cache to another, is answered; so are clients with fetch."""
    port = urlsplit(service.url).port
    for fields in (
        ("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"),
        ("Sec-Fetch-Site: same-origin", f"Origin: http://localhost:{port}"),
        ("Sec-Fetch-Mode: cors",),
    ):
        assert send(service, get("/npm/left", f"Host: localhost:{port}", *fields))[0] == 200


def test_what_comes_runs_nowhere(service: Running) -> None:
    """No page runs scripts as the cache's, is taken for another type, or is part of others' pages."""
    for path in ("/", "/npm/left", "/pypi/simple/alpha/", "/none"):
        fields = send(service, get(path))[1]
        assert fields["x-content-type-options"] == "nosniff"
        assert fields["cross-origin-resource-policy"] == "same-origin"
        assert fields["content-security-policy"] == "sandbox allow-same-origin; frame-ancestors 'none'"


@pytest.mark.parametrize("kind", ["text/plain, text/html", "text/plainly", "text/html", ""])
def test_what_may_run_is_kept_from_it(kind: str) -> None:
    """Whatever policy its upstream gives it: of several types a browser takes the last."""
    said = Headers.of({"content-type": kind, "content-security-policy": "default-src *"})
    fields = WireHeaders()
    stamp(Reply(status=200, headers=said, relayed=True), fields, "t", 0.0, alone=False)
    policies = fields.getRawHeaders(b"content-security-policy", [])
    assert policies[0] == b"default-src *"
    assert policies[-1].startswith(b"sandbox")


@pytest.mark.parametrize("own", [False, True])
def test_what_is_ours_to_say_is_said_once(own: bool) -> None:
    """Whatever a registry's answer says of it; a page of the service may say otherwise to browsers alone."""
    said = {"via": "a", "server": "b", "date": "c", "x-cache": "d", "content-length": "1", "x-request-id": "e"}
    policy = {"content-security-policy": "default-src *"}
    reply = Reply(status=200, headers=Headers.of({**said, **policy, "x-own": "f\r\ng"}), body=b"four")
    found = [(name.lower(), value) for name, value in stamped(reply, "t", 0.0, alone=False, own=own)]
    fields = dict(found)
    assert len(fields) == len(found)
    assert (fields[b"via"], fields[b"server"], fields[b"x-cache"]) == (b"1.1 t", b"regcache", b"BYPASS")
    assert (fields[b"date"], fields[b"content-length"]) == (b"Thu, 01 Jan 1970 00:00:00 GMT", b"4")
    assert b"x-request-id" not in fields
    assert fields[b"x-own"] == b"fg"
    assert (fields[b"content-security-policy"] == b"default-src *") is own
    assert fields[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize("status", [200, 206, 304, 404])
@pytest.mark.parametrize("kind", [{}, {"relayed": True}, {"stop": None, "body": Unknown()}, {"detail": "ttl=3"}])
@pytest.mark.parametrize(
    "said", [{}, {"etag": '"a"', "via": "b"}, {"x-own": "f\r\ng: h"}, {"x": "\xe4\u20ac", "age": "7"}]
)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_the_lines_of_a_head_say_the_same(
    status: int, kind: dict[str, Any], said: dict[str, str], own: bool, last: bool
) -> None:
    """Whichever way they are put together; the Date of each second is its own."""
    headers = Headers.of({"content-type": "text/html", "content-security-policy": "default-src *", **said})
    reply = Reply(**{"status": status, "headers": headers, "body": b"four", "how": How.MISS, **kind})
    for now in (3.9, 4.0, 1.5):
        fields = stamped(reply, "t", now, alone=False, own=own, last=last)
        lines = stamped_lines(reply, "t", now, alone=False, own=own, last=last)
        assert lines == b"".join([b"%b: %b\r\n" % one for one in fields])
        assert format_date(now).encode() in lines
        assert (b"Connection: close\r\n" in lines) is last


def test_a_name_that_was_pointed_here(service: Running, registry: Origin) -> None:
    """Whoever came by another's name is told which option, on every page, and nothing is fetched or linked."""
    registry.asked.clear()
    for path in ("/", "/-/health", "/-/clients/npm", "/npm/left", "/npm/", "/none"):
        status, _, body = send(service, get(path, "Host: rebound.example"))
        assert status == 421
        assert b"--hosts" in body
    assert registry.asked == []


@pytest.mark.parametrize("host", ["localhost", "rebound.example", "10.1.2.3:80"])
def test_a_probe(service: Running, host: str) -> None:
    """It may use any name, and learns nothing but that the service lives."""
    status, _, body = send(service, get("/-/health/live", f"Host: {host}"))
    assert (status, body) == (200, b"ok\n")
    assert send(service, get("/-/health/live", f"Host: {host}", method="DELETE"))[0] == 405


def test_a_registry_with_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that would be open to every user of the machine does not start, and the line says what to do."""
    config = tmp_path / "regcache.toml"
    config.write_text('[registries.corp]\ntype = "npm"\nurl = "https://host.example/"\nreaders = "alice"\n')

    def complaint(*more: str) -> str:
        with pytest.raises(SystemExit) as ended:
            Options().parseOptions(["--check-config", "--config", str(config), "--cache-dir", "/x", *more])
        told = capsys.readouterr().err
        assert (ended.value.code, told.count("\n")) == (2, 1)
        return told

    assert "--auth" in complaint()
    config.write_text('[registries.corp]\ntype = "npm"\nurl = "https://host.example/"\nauth = "bearer hunter2"\n')
    config.chmod(0o600)
    told = complaint()
    assert "shared = true" in told
    assert "hunter2" not in told
    file = tmp_path / "readers"
    file.write_text("alice:hunter2\n")
    told = complaint("--auth", str(file))
    assert "htpasswd -B" in told
    assert "hunter2" not in told
