"""Requests made to do harm, through the real port: each is answered or cut off, and nothing of theirs gets through."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import Answered, Wire, answers, nothing_logged, sample_of

HOST = b"Host: localhost\r\n"
#: What is asked for behind a request of which the end can be read in two ways.
SMUGGLED = b"GET /generic/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
#: What would become a field of its own if it were let through.
EVIL = (
    b"\r\nX-Evil: 1",
    b"\nX-Evil: 1",
    b"\rX-Evil: 1",
    b"%0d%0aX-Evil:%201",
    b"%0aX-Evil:1",
    b"\xe5\x98\x8a\xe5\x98\x8dX-Evil: 1",
)


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """One service for all; none of this changes it, and at the end it has reported no bug."""
    with nothing_logged():
        yield Wire()


def ends(found: list[Answered]) -> None:
    """Hold responses against what no request may bring about."""
    for one in found:
        assert one.status != 500
        assert not any(name.startswith("x-evil") or "\r" in value or "\n" in value for name, value in one.headers)
        assert {"x-cache", "cache-status", "server"} <= {name for name, _ in one.headers}


AMBIGUOUS = {
    "two framings": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "two framings the other way round": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 5\r\n",
    "one length twice": b"Content-Length: 4\r\nContent-Length: 4\r\n",
    "a list of lengths": b"Content-Length: 4, 4\r\n",
    "a signed length": b"Content-Length: +4\r\n",
    "a negative length": b"Content-Length: -4\r\n",
    "a length in hexadecimal": b"Content-Length: 0x4\r\n",
    "a length with underscores": b"Content-Length: 1_0\r\n",
    "a length in other digits": "Content-Length: \u0664\r\n".encode(),
    "an empty length": b"Content-Length: \r\n",
    "a fraction": b"Content-Length: 4.0\r\n",
    "a blank before the colon": b"Content-Length : 4\r\n",
    "a tab before the colon": b"Transfer-Encoding\t: chunked\r\n",
    "a blank before the name": b" Transfer-Encoding: chunked\r\n",
    "a folded coding": b"X: y\r\n Transfer-Encoding: chunked\r\n",
    "a coding that is folded": b"Transfer-Encoding:\r\n chunked\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n",
    "a quoted coding": b'Transfer-Encoding: "chunked"\r\n',
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n",
    "two lines of codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "identity": b"Transfer-Encoding: identity\r\nContent-Length: 4\r\n",
    "a coding behind a control": b"Transfer-Encoding: \x0bchunked\r\n",
    "a NUL in the coding": b"Transfer-Encoding: chunked\x00\r\n",
    "a name with a NUL": b"Transfer-\x00Encoding: chunked\r\n",
    "a bare CR": b"X: y\rTransfer-Encoding: chunked\r\n",
    "a bare LF": b"X: y\nTransfer-Encoding: chunked\r\n",
    "no colon": b"Transfer-Encoding chunked\r\n",
    "an empty name": b": chunked\r\n",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_one_request_is_never_read_as_two(wire: Wire, method: bytes, case: str) -> None:
    """A framing that could be read in two ways is refused, and the connection ends with it."""
    wire.kit.upstream.asked.clear()
    raw = method + b" /generic/first HTTP/1.1\r\n" + HOST + AMBIGUOUS[case] + b"\r\n0\r\n\r\n" + SMUGGLED
    found = answers(wire.send(raw))
    ends(found)
    assert len(found) == 1
    assert found[0].status in (400, 405, 413, 501)
    assert wire.asked == []


CHUNKS = {
    "a negative size": b"-1\r\n\r\n",
    "a signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "a size with a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a size with underscores": b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n",
    "a size of many digits": b"0" * 5000 + b"3\r\nabc\r\n0\r\n\r\n",
    "a huge size": b"f" * 17 + b"\r\n",
    "no size": b"\r\nabc\r\n",
    "no end": b"3\r\nabcd\r\n0\r\n\r\n",
    "a long extension": b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
    "a blank before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "a line feed for an end": b"3\nabc\n0\n\n",
    "a trailer that is a framing": b"0\r\nContent-Length: 50\r\n\r\n",
    "trailers without end": b"0\r\n" + b"X-Trailer: x\r\n" * 5000 + b"\r\n",
}


@pytest.mark.parametrize("case", CHUNKS)
def test_chunks(wire: Wire, case: str) -> None:
    """A body in broken chunks is refused, and nothing behind it is read as a request."""
    wire.kit.upstream.asked.clear()
    head = b"POST /npm/-/npm/v1/security/audits HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    found = answers(wire.send(head + CHUNKS[case] + SMUGGLED))
    ends(found)
    if case == "a trailer that is a framing":
        return
    assert len(found) == 1
    assert found[0].status in (400, 408, 413, 431)
    assert not any("smuggled" in url for url in wire.asked)


PATHS = sorted(
    {
        path.encode()
        for name in ("cargo", "generic", "go", "maven", "npm", "nuget", "pypi", "rubygems")
        for contract, sample in [sample_of(name)]
        for ask in (*sample.documents, *sample.artifacts)
        for path in [f"/{name}{ask.path}"]
    }
)
PIECES = st.sampled_from(
    [
        *(b"..", b".", b"%2e%2e", b".%2e", b"..;a", b"%2f", b"%5c", b"\\", b"%00", b"\0", b"//", b"/", b"%", b"%zz"),
        *(b"%c0%ae%c0%ae", b"%e0%80%af", b"%f0%80%80%af", b"%ed%a0%80", b"%ff", b"\xff", b"%u002e", b"%252e%252e"),
        *(b"?", b"#", b"@evil.test", b"//evil.test/", b"http://evil.test/", b"*", b" ", b"\t", b":", b"[", b"]"),
        *(b"a" * 9000, b"etc/passwd", b"-", b"@v/", b"%40", b"&", b";", b"=", b"+", b"~", b"%25", *EVIL),
    ]
)
METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"CONNECT", b"TRACE", b"get", b"", b"G\0T", b"GET" * 50]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1.1", b"http/1.1", b"", b"HTTP/1.1 x", b"H"]
FIELDS = st.sampled_from(
    [
        *(HOST, b"Host: evil.test\r\n", b"Host: localhost:1\r\n", b"Host:\r\n", b"Host: a b\r\n", b"Host: [::1\r\n"),
        *(b"Host: localhost@evil.test\r\n", b"Host: localhost:99999\r\n", b"Host: localhost\xff\r\n"),
        *(b"Range: bytes=0-0\r\n", b"Range: bytes=" + b"9" * 400 + b"-\r\n", b"Range: bytes=-0,-1\r\n"),
        *(b"If-None-Match: *\r\n", b'If-None-Match: W/"\r\n', b"If-Modified-Since: Mon, 99 Jan 0000 99:99:99\r\n"),
        *(b"If-Range: \xff\r\n", b"If-Match: \r\n", b"Accept: ,;q=,*/*;q=nan\r\n", b"Accept-Encoding: gzip;q=inf\r\n"),
        *(b"Connection: close, host, x-a\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Expect: x\r\n"),
        *(b"X-Forwarded-For: 10.0.0.1\r\n", b"X-Forwarded-Host: evil.test\r\n", b"Via: 1.1 \xff\r\n"),
        *(b"Cookie: a=b\r\n", b"Authorization: Basic \xff\r\n", b"X: \0\r\n", b"X\r\n", b" folded\r\n", b"X: a\rb\r\n"),
        *(b"X-Long: " + b"a" * 40_000 + b"\r\n", b"X: y\r\n" * 600, b"Content-Length: 3\r\n", b"\xff: x\r\n"),
        *(b"Content-Type: multipart/form-data; boundary=\r\n", b"Content-Encoding: gzip\r\n", b"HTTP/1.1 200 OK\r\n"),
        *(b"X-Evil" + evil + b"\r\n" for evil in EVIL),
    ]
)


@given(st.sampled_from(METHODS), st.sampled_from(PATHS), st.lists(PIECES, max_size=3), st.data())
def test_targets(wire: Wire, method: bytes, path: bytes, pieces: list[bytes], data: st.DataObject) -> None:
    """However an address is spoilt: an answer that is no 500, or the end; upstream only what is below its own root."""
    wire.kit.upstream.asked.clear()
    for piece in pieces:
        at = data.draw(st.integers(0, len(path)))
        path = path[:at] + piece + path[at:]
    version = data.draw(st.sampled_from(VERSIONS))
    found = answers(wire.send(method + b" " + path + b" " + version + b"\r\n" + HOST + b"\r\n"), method == b"HEAD")
    ends(found)
    known = {url.split("/", 3)[2] for url in wire.kit.upstream.pages}
    for url in wire.asked:
        assert url.split("/", 3)[2] in known
        assert not re.search(r"[\x00-\x20\x7f-\uffff\\]|/\.\.?(/|$)", url.partition("?")[0]), url


@given(st.sampled_from(METHODS[:4]), st.sampled_from(PATHS), st.lists(FIELDS, max_size=6), st.binary(max_size=8))
def test_fields(wire: Wire, method: bytes, path: bytes, fields: list[bytes], body: bytes) -> None:
    """Whatever fields come: an answer that is no 500, or the end."""
    raw = method + b" " + path + b" HTTP/1.1\r\n" + b"".join(fields) + b"\r\n" + body
    ends(answers(wire.send(raw), method == b"HEAD"))


@given(
    st.lists(
        st.one_of(st.binary(max_size=20), FIELDS, PIECES, st.sampled_from([b"\r\n", b"\n", b"\r", *METHODS, SMUGGLED])),
        max_size=8,
    )
)
def test_rubbish(wire: Wire, pieces: list[bytes]) -> None:
    """What is no request at all, in any pieces."""
    ends(answers(wire.send(*pieces)))


@pytest.mark.parametrize("target", [b"/generic/a.bin", b"/npm/left", b"/-/clients/npm", b"/"])
def test_byte_by_byte(wire: Wire, target: bytes) -> None:
    """However a request is cut into pieces, the answer is the same."""
    raw = b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    whole = answers(wire.send(raw))
    single = answers(wire.send(*(raw[at : at + 1] for at in range(len(raw)))))
    assert [(one.status, one.body) for one in single] == [(one.status, one.body) for one in whole]


@pytest.mark.parametrize(
    "target",
    [
        *(b"http://localhost/generic/a", b"HTTP://LOCALHOST/generic/a", b"http://localhost", b"http:///generic/a"),
        *(
            b"https://localhost:8650/-/health",
            b"http://evil.test/generic/a",
            b"//evil.test/generic/a",
            b"evil.test:443",
        ),
        *(b"*", b"http://[::1/generic", b"http://localhost\\@evil.test/", b"ftp://localhost/", b"file:///etc/passwd"),
        *(
            b"http://localhost#x",
            b"http://a:b@localhost/generic/a",
            b"http://localhost:0/",
            b"?",
            b"",
            b"x",
            b"/" * 8000,
        ),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"CONNECT", b"OPTIONS", b"HEAD"])
def test_forms_of_targets(wire: Wire, method: bytes, target: bytes) -> None:
    """Absolute-form, authority-form, asterisk-form and what is none of them: one answer, and nobody else is asked."""
    wire.kit.upstream.asked.clear()
    found = answers(
        wire.send(method + b" " + target + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"), method == b"HEAD"
    )
    ends(found)
    assert len(found) == 1
    assert not any("evil" in url for url in wire.asked)
    if method == b"CONNECT" or b"evil" in target:
        assert 400 <= found[0].status < 500
