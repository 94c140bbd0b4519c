"""Documents, bodies and settings made to do harm: each parser says what is wrong, and never anything but that."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from regcache.config import load
from regcache.errors import BadDocument, ConfigError, RegCacheError
from regcache.flow.dirhash import mod_h1, zip_h1
from regcache.flow.exchange import Connection
from regcache.flow.leaving import Leaving
from regcache.flow.requests import place_of, written
from regcache.http import fields, ranges
from regcache.http.messages import Headers, RequestHead
from regcache.interfaces import IRegistry
from regcache.registries import factory, make, names
from regcache.routes import Document, Facts, Source
from regcache.settings import OPTIONS
from regcache.testing import BASE, Ask
from tests.wire import nothing_logged, sample_of

#: What a mutation puts into a document.
TOKENS = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\n",
        b"\r\nX-Evil: 1",
        b'"',
        b"<",
        b">",
        b"&#0;",
        b"&lol;",
        b"]]>",
        b"\\u0000",
    ),
    *(
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"NaN",
        b"9" * 5000,
        b"{}",
        b"[]",
        b'""',
        b'"\\ud800"',
        b"\\ud800",
        b"[" * 5000,
        b"{" * 5000,
    ),
    *(
        b"http://evil.test/x",
        b"//evil.test/x",
        b"javascript:x",
        b"file:///etc/passwd",
        b"http://[::1",
        b"http://a:b@c/",
    ),
    *(b"../../../etc/passwd", b"%2e%2e/", b"%00", b"%", b" ", b"sha256=zz", b"#", b"?", b"\x04\x08", b"\x1f\x8b"),
    *(
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]>',
        b'<!ENTITY b SYSTEM "file:///etc/passwd">',
        b"<a href=",
        b"<base href=//evil.test/>",
    ),
    *(b"---\n", b"---", b",", b":", b"|", b"@", b"-", b"=", b"\t", b"a" * 3000),
)


@st.composite
def mutated(draw: st.DrawFn, body: bytes) -> bytes:
    """A document with a few spots cut out, doubled, or replaced by what may hurt."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        stop = min(len(body), start + draw(st.sampled_from([0, 1, 2, 5, 40, 100_000])))
        token = draw(st.one_of(st.sampled_from(TOKENS), st.just(body[start:stop] * 2), st.binary(max_size=4)))
        body = body[:start] + token + body[stop:]
    return body


JSONS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def misshapen(draw: st.DrawFn, body: bytes) -> bytes:
    """A JSON document of which one value, at any depth, is something else."""
    tree: Any = json.loads(body)
    at = tree
    while isinstance(at, dict | list) and at:
        key: Any = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
            at[key] = draw(JSONS)
            break
        at = at[key]
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def documents() -> Iterator[tuple[str, str]]:
    """Every document of every sample, by the type of registry and its path."""
    for name in names():
        for ask in sample_of(name)[1].documents:
            yield name, ask.path


def spoilt(body: bytes) -> st.SearchStrategy[bytes]:
    """A document in all the ways to spoil it, coded ones within their coding too."""
    ways = [mutated(body), st.binary(max_size=60)]
    with suppress(ValueError):
        if isinstance(json.loads(body), dict | list):
            ways.append(misshapen(body))
    with suppress(OSError, EOFError):
        ways.append(mutated(gzip.decompress(body)).map(lambda plain: gzip.compress(plain, 1)))
    return st.one_of(ways)


def hold(registry: IRegistry, route: Document, source: Source) -> None:
    """Read a document and make what clients get; what comes of it leads nowhere else."""
    found = Facts()
    with suppress(BadDocument):
        found = registry.facts(route.key, source)
    for key, fact in found.items():
        assert "\n" not in key
        assert fact.size is None or fact.size >= 0
        assert fact.proof is None or registry.allows(fact.proof.url), fact.proof
    with suppress(BadDocument):
        made = registry.represent(route.key, source, route.representation, BASE if route.linked else "")
        assert isinstance(made, bytes)


@pytest.mark.parametrize(("name", "path"), list(documents()))
@given(st.data())
def test_documents(name: str, path: str, data: st.DataObject) -> None:
    """A document that is spoilt anywhere is read, or refused as what it is: nothing else comes of it."""
    contract, sample = sample_of(name)
    registry = contract.registry(sample)
    ask = next(one for one in sample.documents if one.path == path)
    route = registry.route(ask.head())
    if not isinstance(route, Document) or route.url not in sample.pages:
        return
    page = sample.pages[route.url]
    body = data.draw(spoilt(page.body))
    kinds = [page.headers.get("content-type", ""), route.content_type, "", "text/html", "application/json", ";;\xff"]
    source = Source(body=body, content_type=data.draw(st.sampled_from(kinds)), url=route.url)
    hold(registry, route, source)


PAGE = b"""<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.1"><title>Links for alpha</title>
<base href="/x/"></head><body><!-- c --><a href="../../packages/a/alpha-1.0.tar.gz#sha256=00" data-yanked="">alpha-1.0
.tar.gz</a><br/>&amp;<script>var x;</script></body></html>"""


def test_half_a_character_in_an_index() -> None:
    """What JavaScript writes and UTF-8 has no form for: the document is read, and written, as it came."""
    contract, sample = sample_of("pypi")
    registry = contract.registry(sample)
    body = b'{"meta": {"\\ud800": 1, "api-version": "1.4"}, "projects": [{"name": "demo"}]}'
    source = Source(body=body, content_type="application/vnd.pypi.simple.v1+json", url=sample.url)
    assert b'"\\ud800"' in registry.represent("simple", source, "json", "")
    assert b"demo" in registry.represent("simple", source, "html", "")


@given(mutated(PAGE), st.sampled_from(["html", "json"]))
def test_pages(body: bytes, representation: str) -> None:
    """The same of a simple index in HTML."""
    contract, sample = sample_of("pypi")
    registry = contract.registry(sample)
    route = registry.route(Ask("/simple/alpha/").head())
    assert isinstance(route, Document)
    source = Source(body=body, content_type="text/html; charset=utf-8", url=route.url)
    hold(registry, replace(route, representation=representation), source)


@pytest.mark.parametrize(
    "token", [b"<!--", b"<![", b"<![a[", b"<a ", b"<a href='", b"</", b"<script>", b"<?", b"<!", b"&#"]
)
def test_pages_that_end_in_the_middle(token: bytes) -> None:
    """They take no longer for being large: each would cost hours if every tag's end were looked for in all of it."""
    contract, sample = sample_of("pypi")
    registry = contract.registry(sample)
    with suppress(BadDocument):
        registry.facts("simple/alpha", Source(body=PAGE + token * 500_000, content_type="text/html", url=sample.url))


@pytest.mark.parametrize("name", names())
@given(st.data())
def test_routes(name: str, data: st.DataObject) -> None:
    """Any path is a 4xx or leads to the upstream's own hosts, in a URL that everybody reads in the same way."""
    contract, sample = sample_of(name)
    registry = contract.registry(sample)
    path = data.draw(st.sampled_from([*sample.documents, *sample.artifacts])).path.encode()
    path, _, query = data.draw(st.one_of(mutated(path), st.binary(max_size=30))).partition(b"?")
    hosts = {urlsplit(sample.url).netloc, *sample.hosts}
    method = data.draw(st.sampled_from(["GET", "HEAD", "POST", "PUT"]))
    refused: list[int] = []
    try:
        head = RequestHead(
            method=method,
            path="/" + path.decode("latin-1").lstrip("/"),
            query=query.decode("latin-1"),
            headers=Headers.of({"accept": data.draw(st.text(st.characters(max_codepoint=255), max_size=30))}),
            base=BASE,
            body=data.draw(st.binary(max_size=40)),
        )
        route = registry.route(head)
    except RegCacheError as error:
        refused.append(error.status)
    if refused:
        assert 400 <= refused[0] < 500
        return
    for url in contract._reached(route):
        assert urlsplit(url).netloc in hosts
        _, target, host = place_of(url)
        request = written("GET", target, host, Headers.of({"accept": getattr(route, "accept", "*/*")}), b"")
        assert request.count(b"\r\n") == 4
        assert not {b"..", b"."} & set(target.partition("?")[0].encode().split(b"/"))
    for value in (getattr(route, "location", ""), *dict(getattr(route, "headers", ())).values()):
        assert value.isprintable()


TEXT = st.text(st.characters(max_codepoint=255), max_size=60)


def pieces(text: str) -> list[str]:
    """What stands between bars."""
    return text.split("|")


FIELD_PIECES = pieces(
    '"|\\|,|;|=|W/|*|q=|1|0.5|-|bytes|=|/| |\t|gzip|max-age|Mon, |01 Jan 2024 |00:00:00| GMT|+9999|-2400|inf|nan|Feb|30'
    "|24:60:61|0|Sunday|99|text/html|application/*|sha256-|sha-256|:|\xff|AAAA|\x00|" + "9" * 40
)
FIELD = st.one_of(TEXT, st.lists(st.sampled_from(FIELD_PIECES), max_size=9).map("".join))


@given(FIELD)
def test_fields(text: str) -> None:
    """Any text in any field is a value or none."""
    fields.negotiate(text, ("text/html", "application/json"))
    assert fields.accepts_gzip(text) in (True, False)
    when = fields.parse_date(text)
    assert when is None or fields.parse_date(fields.format_date(when)) == int(when)
    assert all(tag == "*" or tag.endswith('"') for tag in fields.etags(text))
    fields.cache_control(text)
    for digest in (*fields.parse_sri(text), *fields.parse_digests(text)):
        assert digest.base64
    fields.hop_by_hop(Headers.of({"connection": text}))
    waited = fields.seconds(text, 1e9)
    assert waited is None or 0 <= waited < 1e13
    found = ranges.content_range(text)
    assert found is None or 0 <= found[0].start < found[0].stop <= found[1]


CONDITIONS = ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


@given(st.dictionaries(st.sampled_from(CONDITIONS), FIELD), st.one_of(st.none(), st.integers(0, 2**63)))
def test_conditions(asked: dict[str, str], size: int | None) -> None:
    """Whatever a client makes its request depend on, what it gets lies within what there is."""
    verdict = ranges.evaluate("GET", Headers.of(asked), etag='"a"', last_modified=1e9, size=size)
    if isinstance(verdict, ranges.Part):
        assert size is not None
        assert 0 <= verdict.start < verdict.stop <= size


# Settings.


OPTION_PIECES = pieces(
    "npm|pypi|=|+|,|generic|http://|https://|host|:|/|@|[|]|::1|%|10.0.0.0|/8|/99|tcp|unix|8650|99999|1|d|ms|G|off|-|\0|~"
    "|~nobody|..|\n|*|.|?|#|\\| |\ud800|e|\u017f|\u212a|systemd:|ssl:|" + "9" * 400
)
OPTION = st.one_of(TEXT, st.text(max_size=20), st.lists(st.sampled_from(OPTION_PIECES), max_size=7).map("".join))


def configured(options: dict[str, Any], environ: dict[str, str]) -> None:
    """Load it as the program does; every complaint is one line."""
    complaint = ""
    try:
        config = load(options, {"HOME": "/home/someone", **environ}, lambda kind: factory(kind).option_names)
        for one in config.registries:
            make(one)
    except ConfigError as error:
        complaint = error.detail
    assert not complaint or complaint.isprintable()


@given(st.sampled_from([option.name for option in OPTIONS]), OPTION)
def test_options(name: str, text: str) -> None:
    """Any text for any option, on the command line or in the environment, is taken or complained of in one line."""
    configured({name: [text] if name == "listen" else text}, {})
    with suppress(UnicodeEncodeError):
        os.fsencode(text)
        configured({}, {f"REGCACHE_{name.replace('-', '_').upper()}": text})


TOML = b"""ttl = "1d"\nallow = ["10.0.0.0/8"]\nregistries = ["npm", "pypi"]\nlisten = ["tcp:1", "npm@unix:/x"]
offline = false\n[registries.npm]\nurl = ["https://a/", "https://b/"]\nttl = 5\n[registries.go]\nsumdb = "off"
[registries.maven]\nnames = ["a*"]\nrefresh-after = "off"
[registries.own]\ntype = "generic"\nurl = "http://host/"\nartifact-hosts = ["x"]\n"""
LITERALS = (
    b"{a = 1}",
    b"[[1]]",
    b"1979-05-27T07:32:00Z",
    b"nan",
    b"inf",
    b"0x1F",
    b"[[registries]]",
    b"'''",
    b"\\u0000",
    b"true",
)


@given(st.data())
def test_toml(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A configuration that is spoilt anywhere is taken, or complained of in one line."""
    body = data.draw(st.one_of(mutated(TOML), st.binary(max_size=40)))
    if data.draw(st.booleans()):
        places = [place for place in range(len(body) + 1) if body[place - 2 : place] == b"= "]
        at = data.draw(st.sampled_from(places or [0]))
        _, newline, rest = body[at:].partition(b"\n")
        body = body[:at] + data.draw(st.sampled_from(LITERALS)) + newline + rest
    path = tmp_path_factory.getbasetemp() / "hostile.toml"
    path.write_bytes(body)
    configured({"config": str(path)}, {})


# What an upstream sends.


class Owner:
    """Nobody's connections."""

    leaving = Leaving(Clock())

    def opened(self, connection: Connection) -> None:
        """One."""

    def closed(self, connection: Connection) -> None:
        """None."""

    def keep(self, connection: Connection) -> bool:
        """It is not wanted again."""
        return connection is None


class Receiver:
    """Counts."""

    def __init__(self) -> None:
        self.size, self.ends = 0, 0

    def received(self, data: bytes) -> None:
        self.size += len(data)

    def ended(self, error: object, certain: bool) -> None:
        assert error is None or not certain
        self.ends += 1


class Socket(StringTransport):
    """Can be cut off."""

    def setTcpNoDelay(self, _on: bool) -> None:
        """As it is."""

    def abortConnection(self) -> None:
        self.disconnecting = True


new_socket: Any = Socket


HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\nContent-Length: 0\r\n\r\n",
)


@given(st.data(), st.sampled_from(HEADS), st.sampled_from(["GET", "HEAD"]))
def test_upstream_responses(data: st.DataObject, raw: bytes, method: str) -> None:
    """Any bytes from an upstream, in any pieces, are a response or an error of the upstream's, told once."""
    raw = data.draw(st.one_of(mutated(raw), st.binary(max_size=60)))
    connection: Any = Connection(("http", "host", 80), Owner(), "the registry")
    transport: Any = new_socket()
    outcome: list[Any] = []
    receiver = Receiver()
    with nothing_logged():
        connection.makeConnection(transport)
        connection.ask(method, b"x").addBoth(outcome.append)
        at = 0
        while at < len(raw) and not transport.disconnecting:
            size = data.draw(st.sampled_from([1, 7, 100_000]))
            connection.dataReceived(raw[at : at + size])
            at += size
            if outcome and hasattr(outcome[0], "deliver") and not receiver.ends and connection._exchange is not None:
                with suppress(AttributeError):
                    outcome[0].deliver(receiver)
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        connection.connectionLost(Failure(ConnectionDone()))
    assert len(outcome) == 1
    if hasattr(outcome[0], "value"):
        assert isinstance(outcome[0].value, RegCacheError), outcome
        return
    assert 200 <= outcome[0].status <= 999
    for _, value in outcome[0].headers:
        assert "\r" not in value
        assert "\n" not in value


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m@v1/go.mod", b"module m\n")
        archive.writestr("m@v1/a.go", b"package a\n" * 100)
    return sink.getvalue()


@given(mutated(_zip()), st.integers(0, 2**32))
def test_zip_directories(body: bytes, seed: int) -> None:
    """An archive spoilt anywhere has a sum, or is refused as no sound one."""
    chance = random.Random(seed)
    flipped = bytearray(body)
    for _ in range(chance.randrange(3)):
        if flipped:
            flipped[chance.randrange(len(flipped))] = chance.randrange(256)
    with suppress(BadDocument):
        assert len(zip_h1(io.BytesIO(bytes(flipped)))) == 64
    assert len(mod_h1(io.BytesIO(bytes(flipped)))) == 64
