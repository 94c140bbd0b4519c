"""A cache that follows its upstream, through real sockets on both sides: one service for all of these."""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from typing import Any

import pytest
from attrs import frozen

from tests.scripted import CLOSE, Scripted, answer
from tests.service import Running

FRESH, STALE = "Cache-Control: max-age=600", "Cache-Control: max-age=0"
_NUMBERS = itertools.count()


@frozen
class Got:
    """One response: its fields and body, and the heads that came before it."""

    status: int
    fields: Message
    body: bytes
    interim: tuple[tuple[int, Message], ...] = ()

    @property
    def how(self) -> str:
        """The value of ``X-Cache``."""
        return str(self.fields["X-Cache"])


@frozen
class Line:
    """A registry of its own that follows the script, and a connection to it."""

    script: Scripted
    port: int

    def path(self) -> str:
        """A path that nobody has asked for."""
        return f"/p{next(_NUMBERS)}"

    def get(self, path: str, *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> Got:
        """What a request is answered with."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            return ask(connection, path, *fields, method=method, body=body, version=version)

    def settled(self, path: str, *fields: str) -> Got:
        """What is answered once what came before is stored."""
        for _ in range(20_000):
            found = self.get(path, *fields)
            if "collapsed" not in found.fields["Cache-Status"]:
                return found
        raise AssertionError("it is never stored")


def ask(
    connection: socket.socket, path: str, *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1"
) -> Got:
    """Put a request on a connection, and read what comes."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *fields]
    lines += [f"Content-Length: {len(body)}"] if body else []
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    reading = connection.makefile("rb")
    interim: list[tuple[int, Message]] = []
    while True:
        status = int(reading.readline().split(b" ")[1])
        head = b""
        while (line := reading.readline()) != b"\r\n":
            head += line
        found = BytesParser().parsebytes(head)
        if status >= 200:
            return Got(status, found, _body(reading, found, method, status), tuple(interim))
        interim.append((status, found))


def _body(reading: Any, fields: Message, method: str, status: int) -> bytes:
    if method == "HEAD" or status in (204, 304):
        return b""
    if fields["Transfer-Encoding"] == "chunked":
        pieces = []
        while size := int(reading.readline(), 16):
            pieces.append(reading.read(size))
            reading.readline()
        reading.readline()
        return b"".join(pieces)
    if fields["Content-Length"] is None:
        return bytes(reading.read())
    return bytes(reading.read(int(fields["Content-Length"])))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """The service, the script behind it, and how it is reached."""
    script = Scripted()
    table = {
        "type": '"generic"',
        "url": f'"{script.url}"',
        "freshness": '"upstream"',
        "methods": '["PUT", "POST", "DELETE"]',
        "forward-authorization": "true",
    }
    lines = "\n".join(f"{key} = {value}" for key, value in table.items())
    running = Running(
        tmp_path_factory.mktemp("wire"),
        None,
        *("--listen", "t@tcp:0:interface=127.0.0.1"),
        tables=f"[registries.t]\n{lines}\n",
    )
    found = re.search(r":(\d+)/", running.url)
    assert found, running.said
    yield Line(script, int(found[1]))
    running.stop()
    script.close()


def test_a_hit(line: Line) -> None:
    """RFC 9111 section 4: the second request is answered from the store, with an Age and the origin's Date."""
    path = line.path()
    line.script.says(path, answer(FRESH, "Date: Tue, 14 Nov 2023 22:13:20 GMT", "Age: 100", "Server: x", body=b"one"))
    first = line.get(path)
    again = line.settled(path)
    assert (first.body, again.body, again.how, len(line.script.heard[path])) == (b"one", b"one", "MISS", 2)
    path = line.path()
    line.script.says(path, answer(FRESH, "Age: 100", "Server: x", body=b"one"))
    first, again = line.get(path), line.settled(path)
    assert (again.body, again.how, len(line.script.heard[path])) == (b"one", "HIT", 1)
    assert (again.fields["Server"], again.fields["Date"]) == ("x", first.fields["Date"])
    assert int(again.fields["Age"]) >= 100
    assert again.fields["Cache-Status"].startswith("regcache; hit; ttl=")


@pytest.mark.parametrize(
    ("named", "value"),
    [
        *(("Connection", "x-a, close"), ("Keep-Alive", "timeout=5"), ("Proxy-Authenticate", "x")),
        *(("Proxy-Authentication-Info", "x"), ("Proxy-Connection", "keep-alive"), ("TE", "x"), ("Upgrade", "x")),
        ("Trailer", "x"),
    ],
)
def test_fields_of_one_connection(line: Line, named: str, value: str) -> None:
    """RFC 9110 section 7.6.1: they are not passed on, nor stored; nor are those that Connection names."""
    path = line.path()
    line.script.says(path, answer(FRESH, f"{named}: {value}", "X-A: 1", "X-B: 2", body=b"one"))
    for found in (line.get(path), line.settled(path)):
        assert found.fields[named] != value
        assert found.fields["X-B"] == "2"
        assert found.fields["X-A"] == (None if named == "Connection" else "1")


@pytest.mark.parametrize("status", [200, 203, 204, 299, 301, 302, 307, 308, 400, 404, 410, 499, 500, 503, 599])
def test_every_status(line: Line, status: int) -> None:
    """RFC 9111 section 3: kept as long as it says, with its fields; a 204 has no length (RFC 9110 section 8.6)."""
    path, body = line.path(), b"" if status == 204 else b"one"
    line.script.says(path, answer(FRESH, "X-A: 1", body=body, status=f"{status} x", length=status != 204))
    for found in (line.get(path), line.settled(path)):
        assert (found.status, found.body, found.fields["X-A"]) == (status, body, "1")
        assert (found.fields["Content-Length"] is None) is (status == 204)
    assert len(line.script.heard[path]) == 1


def test_all_fields_are_kept(line: Line) -> None:
    """RFC 9111 section 3.1: every line of every field, in its order, unknown ones and cookies too."""
    path = line.path()
    fields = ("X-A: 1", "X-A: 2", "Set-Cookie: a=b", "Set-Cookie: c=d", "Content-Encoding: odd", "X-B: \xe9")
    line.script.says(path, answer(FRESH, *fields, "Content-Security-Policy: default-src 'self'", body=b"one"))
    for found in (line.get(path), line.settled(path)):
        assert found.fields.get_all("X-A") == ["1", "2"]
        assert found.fields.get_all("Set-Cookie") == ["a=b", "c=d"]
        assert found.fields["Content-Encoding"] == "odd"
        assert found.fields.get_all("Content-Security-Policy") == ["default-src 'self'"]


def test_other_caches(line: Line) -> None:
    """RFC 9211 section 2 and RFC 9110 section 7.6.3: what caches nearer to the origin say comes before our word."""
    path = line.path()
    line.script.says(path, answer(FRESH, "Cache-Status: near; hit", "Via: 1.1 near", body=b"one"))
    for found in (line.get(path), line.settled(path)):
        told = found.fields.get_all("Cache-Status") or []
        assert (told[0], told[1].startswith("regcache; "), len(told)) == ("near; hit", True, 2)
        assert [via.partition("-")[0] for via in found.fields.get_all("Via") or []] == ["1.1 near", "1.1 regcache"]


def test_what_clients_send(line: Line) -> None:
    """RFC 9110 section 7.6: it goes upstream, less what says who they are; Via is added (section 7.6.3)."""
    path = line.path()
    line.script.says(path, answer("Cache-Control: no-store", body=b"one"))
    said = ("X-A: 1", "Accept-Encoding: br", "User-Agent: me", "Authorization: A", "Via: 1.1 other", "Max-Forwards: 3")
    line.get(path, *said, "Cookie: a=b", "Forwarded: for=x", "X-Forwarded-For: x", "Connection: x-b, x-c", "X-B: 1")
    fields = line.script.heard[path][0].fields
    for one in said:
        name, _, value = one.partition(": ")
        assert fields[name.lower()][0].startswith(value)
    assert fields["via"][0].startswith("1.1 other, 1.1 regcache-")
    assert not {"cookie", "forwarded", "x-forwarded-for", "x-b", "connection"} & fields.keys()


def test_interim_responses(line: Line) -> None:
    """RFC 9110 section 15.2: passed on as they come, and no part of what is stored."""
    path = line.path()
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-A: 1\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    line.script.says(path, early + answer(FRESH, body=b"one"))
    found = line.get(path)
    assert [status for status, _ in found.interim] == [103, 102]
    assert (found.interim[0][1]["Link"], found.status, found.fields["X-A"]) == ("</a>", 200, None)
    again = line.settled(path)
    assert (again.interim, again.fields["Link"], again.how) == ((), None, "HIT")
    path = line.path()
    line.script.says(path, early + answer(FRESH, body=b"one"))
    assert line.get(path, version="1.0").interim == (), "HTTP/1.0 knows none"


@pytest.mark.parametrize(
    ("said", "body", "rest"),
    [
        (("Content-Length: 3",), b"one", b"surplus"),
        (("Content-Length: 3",), b"one", b"HTTP/1.1 200 OK\r\n\r\n"),
        (("Transfer-Encoding: chunked",), b"3\r\none\r\n0\r\nX-T: 1\r\n\r\n", b""),
        (("Transfer-Encoding: unheard-of",), b"one", b""),
        ((), b"one", b""),
    ],
)
def test_framing(line: Line, said: tuple[str, ...], body: bytes, rest: bytes) -> None:
    """RFC 9112 section 6.3: by length, whatever comes behind it; in chunks, whose trailer is dropped; by the end."""
    path = line.path()
    closing = () if said and "chunked" in said[0] else ("Connection: close",)
    line.script.says(path, answer(FRESH, *said, *closing, body=body + rest, length=False))
    for found in (line.get(path), line.settled(path)):
        assert (found.status, found.body, found.fields["X-T"]) == (200, b"one", None)
    assert len(line.script.heard[path]) == 1


def test_transfer_codings_that_nobody_asked_for(line: Line) -> None:
    """RFC 9112 section 7: what is coded in a way that cannot be undone here is no answer."""
    path = line.path()
    line.script.says(path, answer(FRESH, "Transfer-Encoding: gzip", "Connection: close", body=b"one", length=False))
    assert line.get(path).status == 502


def test_old_upstreams_and_clients(line: Line) -> None:
    """RFC 9112 section 9.3: HTTP/1.0 is spoken to both sides."""
    path = line.path()
    line.script.says(path, answer(FRESH, body=b"one", length=False).replace(b"HTTP/1.1", b"HTTP/1.0"))
    for version in ("1.0", "1.1", "1.0"):
        assert line.get(path, version=version).body == b"one"
    assert len(line.script.heard[path]) == 1


@pytest.mark.parametrize("cut", [0, 2])
def test_cut_answers(line: Line, cut: int) -> None:
    """RFC 9112 section 8: an incomplete answer never looks whole, and is not stored."""
    path = line.path()
    line.script.says(path, answer(FRESH, "Connection: close", body=b"one")[: -3 + cut], answer(FRESH, body=b"two"))
    with pytest.raises((ConnectionError, ValueError, IndexError, AssertionError)):
        assert line.get(path).body == b"one"
    assert line.get(path).body == b"two"


@pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=0"])
@pytest.mark.parametrize("trouble", [CLOSE, answer(status="503 x")])
def test_stale_is_forbidden(line: Line, said: str, trouble: bytes) -> None:
    """RFC 9111 section 4.2.4: an error instead, after which the connection can be used as before."""
    path = line.path()
    line.script.says(path, answer(f"Cache-Control: max-age=0, {said}", body=b"one"), trouble)
    line.get(path)
    other = line.path()
    line.script.says(other, answer(FRESH, body=b"two"))
    with socket.create_connection(("127.0.0.1", line.port), timeout=20) as connection:
        assert ask(connection, path).status in (502, 503, 504)
        assert ask(connection, other).body == b"two"


@pytest.mark.parametrize("trouble", [CLOSE, *(answer(status=f"{status} x") for status in (500, 502, 503, 504))])
def test_stale_in_trouble(line: Line, trouble: bytes) -> None:
    """RFC 9111 section 4.2.4: the stale copy, marked as that."""
    path = line.path()
    line.script.says(path, answer(STALE, "X-A: 1", body=b"one"), trouble)
    line.get(path)
    found = line.get(path)
    assert (found.status, found.body, found.how, found.fields["X-A"]) == (200, b"one", "STALE", "1")


def test_validation(line: Line) -> None:
    """RFC 9111 section 4.3: the 304 goes no further, and a client that has it gets one of its own."""
    path = line.path()
    changed = answer("Cache-Control: max-age=600", 'ETag: "a"', "X-A: 2", status="304 x", length=False)
    line.script.says(path, answer(STALE, 'ETag: "a"', "X-A: 1", body=b"one"), changed)
    line.get(path)
    found = line.get(path)
    assert (found.status, found.body, found.how, found.fields["X-A"]) == (200, b"one", "REVALIDATED", "2")
    assert line.script.heard[path][1].fields["if-none-match"] == ['"a"']
    found = line.get(path, 'If-None-Match: "a"')
    assert (found.status, found.body, found.fields["ETag"]) == (304, b"", '"a"')


def test_methods(line: Line) -> None:
    """RFC 9111 section 4.4: what a method changes is asked for again; bodies travel, of whatever framing."""
    path = line.path()
    line.script.says(path, answer(FRESH, body=b"one"), answer(status="204 x", length=False), answer(FRESH, body=b"two"))
    line.get(path)
    line.settled(path)
    assert line.get(path, method="PUT", body=b"x" * 200_000).status == 204
    assert line.script.heard[path][1].body == b"x" * 200_000
    assert line.get(path).body == b"two"
    assert line.get(path, method="PATCH", body=b"x").status == 405
    line.script.says(path, answer(body=b"posted"))
    assert line.get(path, method="POST").body == b"posted"
    assert line.script.heard[path][-1].fields["content-length"] == ["0"]


def test_bodies_that_nobody_takes(line: Line) -> None:
    """RFC 9110 section 9.2: an upstream that leaves in the middle of one is told of, and the client stays."""
    path = line.path()
    line.script.says(path, CLOSE)
    with socket.create_connection(("127.0.0.1", line.port), timeout=20) as connection:
        assert ask(connection, path, method="PUT", body=b"x" * 7_000_000).status == 502
        line.script.says(path, answer(FRESH, body=b"one"))
        assert ask(connection, path).body == b"one"


def test_ranges(line: Line) -> None:
    """RFC 9110 section 14: of what is stored, in one answer; the length is the part's."""
    path = line.path()
    line.script.says(path, answer(FRESH, 'ETag: "a"', body=b"0123456789"))
    line.get(path)
    found = line.settled(path, "Range: bytes=2-4", 'If-Range: "a"')
    assert (found.status, found.body, found.fields["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert line.get(path, "Range: bytes=20-").status == 416
    assert len(line.script.heard[path]) == 1


def test_many_variants(line: Line) -> None:
    """RFC 9111 section 4.1: each client gets its own, also after a restart of none of them."""
    path = line.path()
    line.script.says(path, *(answer(FRESH, "Vary: X-A", body=body) for body in (b"one", b"two")))
    for value, body in (("1", b"one"), ("2", b"two"), ("1", b"one"), ("2", b"two")):
        assert line.get(path, f"X-A: {value}").body == body
    assert len(line.script.heard[path]) == 2


def test_large_bodies_pass_through(line: Line) -> None:
    """RFC 9111 section 3: what is not stored is not held either: it passes as it comes."""
    path, body = line.path(), b"0123456789abcdef" * (1 << 17)
    line.script.says(path, answer("Cache-Control: no-store", body=body))
    assert line.get(path).body == body
    path = line.path()
    line.script.says(path, answer(FRESH, body=body))
    for _ in range(2):
        assert line.get(path).body == body


def test_the_root_is_the_upstreams(line: Line) -> None:
    """RFC 9110 section 7.1: at a port of its own, every path is what the upstream makes of it; our own live beside."""
    line.script.says("/", answer(FRESH, "Content-Type: text/html", body=b"home"))
    assert line.get("/").body == b"home"
    assert line.get("/-/health/live").body == b"ok\n"
