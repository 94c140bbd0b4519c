"""What a hostile or clumsy client gets: a clear answer, and nothing of anybody else's."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.origin import Origin
from tests.service import Running


def send(service: Running, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body of what comes back for these very bytes."""
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as client:
        with contextlib.suppress(ConnectionError):  # refused before it was read to its end
            client.sendall(raw)
        response = http.client.HTTPResponse(client)
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def get(target: str, *lines: str, method: str = "GET") -> bytes:
    """A request."""
    fields = lines if any(line.lower().startswith("host:") for line in lines) else ("Host: localhost", *lines)
    return "\r\n".join([f"{method} {target} HTTP/1.1", *fields, "", ""]).encode("latin-1")


REFUSED = {
    "an address that climbs": (get("/pypi/files/../../etc/passwd"), {400, 404}),
    "an encoded climb": (get("/pypi/%2e%2e/%2e%2e/etc/passwd"), {400, 404}),
    "a NUL": (get("/pypi/simple/al%00pha/"), {400, 404}),
    "a file of a foreign host": (get("/pypi/files/http/169.254.169.254/latest"), {403, 404}),
    "a file of another port": (get("/pypi/files/http/127.0.0.1:22/x"), {403, 404}),
    "a forward proxy's request": (get("http://other.test/pypi/simple/alpha/", "Host: other.test"), {400, 421}),
    "a tunnel": (get("other.test:443", method="CONNECT"), {400, 405}),
    "a name that is not ours": (get("/pypi/simple/alpha/", "Host: evil.test"), {421}),
    "two names": (get("/pypi/simple/alpha/", "Host: localhost", "Host: evil.test"), {400}),
    "a long target": (get("/pypi/simple/" + "a" * 9000 + "/"), {414}),
    "a long field": (get("/pypi/simple/alpha/", "X-Long: " + "a" * 40_000), {400, 431}),
    "many fields": (get("/pypi/simple/alpha/", *(f"X-{number}: a" for number in range(2000))), {400, 431}),
    "a large body": (get("/npm/-/npm/v1/security/audits", "Content-Length: 99999999", method="POST"), {413}),
    "two framings": (
        get("/npm/x", "Content-Length: 3", "Transfer-Encoding: chunked", method="POST") + b"0\r\n\r\n",
        {400},
    ),
    "a broken chunk": (get("/npm/x", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n\r\n", {400}),
    "a publication": (get("/npm/left", "Content-Length: 2", method="PUT") + b"{}", {405}),
    "an upload": (get("/pypi/legacy/", "Content-Length: 0", method="POST"), {405}),
    "an unknown registry": (get("/maven2/x"), {404}),
    "no request at all": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", {400}),
    "a foreign name in the target": (get("http://evil.test/pypi/simple/alpha/"), {421}),
    "no path": (get("*", method="OPTIONS"), {400}),
    "a length of many digits": (get("/npm/x", "Content-Length: " + "9" * 5000, method="POST"), {400}),
    "a large publication": (get("/npm/left", "Content-Length: 99999999", method="PUT"), {405}),
    "a body from nowhere": (get("/npm/x", "Host: evil.test", "Content-Length: 9", method="POST"), {421}),
    "a NUL in a field": (get("/npm/x", "X: a\x00b"), {400}),
    "a query that is none": (get("/pypi/simple/alpha/?a|\\"), {400}),
    "a port with zeros of a foreign host": (get("/pypi/files/http/127.0.0.1:022/x"), {403, 404}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(service: Running, registry: Origin, case: str) -> None:
    """A 4xx, and nothing went upstream."""
    raw, statuses = REFUSED[case]
    registry.asked.clear()
    status, fields, body = send(service, raw)
    assert status in statuses
    assert fields["x-cache"] in ("BYPASS", "MISS")
    assert len(body) > 20, "nobody can tell what is wrong"
    assert registry.asked == []


def test_a_body_that_turns_out_too_large(service: Running, registry: Origin) -> None:
    """It is refused once, whatever still comes, and no part of it goes anywhere."""
    registry.asked.clear()
    head = get("/npm/-/npm/v1/security/audits", "Transfer-Encoding: chunked", method="POST")
    chunks = b"800000\r\n" + b"x" * 0x800000 + b"\r\n" + b"1\r\ny\r\n" * 2000 + b"0\r\n\r\n"
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as client:
        client.sendall(head + chunks + get("/npm/left"))
        received = b""
        while piece := client.recv(1 << 16):
            received += piece
    assert received.count(b"HTTP/1.1 ") == received.count(b"HTTP/1.1 413 ") == 1
    assert registry.asked == []


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range"])
def test_conditions_that_are_nonsense(service: Running, name: str) -> None:
    """They are passed over, and leave nothing open."""
    send(service, get("/npm/left/-/left-1.0.0.tgz"))
    fds = Path(f"/proc/{service.process.pid}/fd")
    before = len(list(fds.iterdir())) if fds.exists() else 0
    for value in ("Mon, 01 Jan 2024 00:00:00 +" + "9" * 400, "Fri, 31 Dec 9999 23:59:59 -9999", "bytes=0-", "\xff"):
        raw = get("/npm/left/-/left-1.0.0.tgz", f"{name}: {value}", "Range: bytes=0-1", "Connection: close")
        assert send(service, raw)[0] in (200, 206, 304, 412)
    assert not before or len(list(fds.iterdir())) <= before + 1


def test_errors_are_for_people(service: Running) -> None:
    """Plain text for pip, JSON for npm; what happened and what to do."""
    status, fields, body = send(service, get("/pypi/simple/none-such/"))
    assert (status, fields["content-type"].partition(";")[0]) == (404, "text/plain")
    assert body.strip()
    status, fields, body = send(service, get("/npm/none-such"))
    assert (status, fields["content-type"]) == (404, "application/json")
    assert "error" in json.loads(body)
    status, fields, _ = send(service, get("/npm/left", "Content-Length: 2", method="PUT") + b"{}")
    assert (status, fields["allow"]) == (405, "GET, HEAD")


def test_the_front_page_says_what_to_do(service: Running) -> None:
    """The root and each registry's root give the line to copy, at the address by which this client came."""
    for path in ("/", "/pypi/"):
        status, fields, body = send(service, get(path, "Host: localhost:8650"))
        assert status == 200
        assert fields["content-type"].startswith("text/plain")
        assert b"http://localhost:8650/pypi/simple/" in body
        assert b"allowed: 127.0.0.0/8" in body


def test_every_response_says_how_it_came_about(service: Running) -> None:
    """Cache-Status, X-Cache, Via and Date on hits, misses and errors alike."""
    for path in ("/pypi/simple/alpha/", "/pypi/simple/alpha/", "/pypi/simple/none-such/", "/-/health", "/"):
        _, fields, _ = send(service, get(path))
        assert fields["cache-status"].startswith("regcache;")
        assert fields["x-cache"] in ("HIT", "MISS", "STALE", "REVALIDATED", "BYPASS")
        assert fields["via"].startswith("1.1 regcache")
        assert "date" in fields
        assert "set-cookie" not in fields


def test_health_says_what_a_probe_needs(service: Running) -> None:
    """The state, how full the cache is, and how the upstreams are."""
    found = json.loads(send(service, get("/-/health"))[2])
    assert found["status"] == "ok"
    assert found["upstreams"] == {"npm": "ok", "pypi": "ok"}


def test_the_lines_for_clients(service: Running) -> None:
    """The lines of one registry, by the name that was asked; of one that is not served, which ones are."""
    status, fields, body = send(service, get("/-/clients/npm", "Host: localhost:1234"))
    assert (status, fields["content-type"]) == (200, "text/plain; charset=utf-8")
    assert b"npm config set registry http://localhost:1234/npm/   # npm\n" in body
    status, _, body = send(service, get("/-/clients/maven"))
    assert status == 404
    assert b"npm, pypi" in body or b"pypi, npm" in body


def test_links_lead_back_by_the_name_that_was_asked(service: Running) -> None:
    """Two clients that reach it by different names each get links that they can follow."""
    for host in ("localhost:1234", "127.0.0.1:99"):
        found = json.loads(send(service, get("/npm/left", f"Host: {host}"))[2])
        assert found["versions"]["1.0.0"]["dist"]["tarball"] == f"http://{host}/npm/left/-/left-1.0.0.tgz"


def test_addresses_that_are_not_allowed(tmp_path: Path, registry: Origin) -> None:
    """The refusal names the address and the option."""
    service = Running(tmp_path, registry, "--allow", "10.0.0.0/8")
    status, _, body = send(service, get("/pypi/simple/alpha/"))
    assert status == 403
    assert b"127.0.0.1" in body
    assert b"--allow" in body
    service.stop()


def test_pipelined_requests_are_answered_in_order(service: Running) -> None:
    """Whatever a client sends ahead is answered once each, in the order it was asked."""
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as client:
        client.sendall(get("/npm/left") + get("/-/health") + get("/pypi/simple/alpha/", "Connection: close"))
        received = b""
        while piece := client.recv(1 << 16):
            received += piece
    assert received.count(b"HTTP/1.1 200") == 3
    assert received.index(b"dist-tags") < received.index(b'"upstreams"') < received.index(b"alpha-1.0")


def test_the_access_log_tells_of_all_but_hits(tmp_path: Path, registry: Origin) -> None:
    """Client, request, package, outcome; hits are counted, not written; secrets never."""
    log = tmp_path / "access.log"
    service = Running(tmp_path, registry, "--access-log", str(log))
    for _ in range(3):
        _, fields, _ = send(service, get("/pypi/simple/alpha/?token=hidden", "X-Request-Id: another"))
        assert fields["x-request-id"] != "another"
    service.stop()
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["127.0.0.1"]
    assert ' "GET /pypi/simple/alpha/?token=... HTTP/1.1" 200 ' in lines[0]
    assert ' "pypi" "alpha" "miss" ' in lines[0]
