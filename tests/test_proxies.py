"""Forward proxies: which is meant, and how the registries are asked through it."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from regcache.errors import ConfigError, ConnectFailed, CutShort, UpstreamTimeout
from regcache.flow.answers import Answer
from regcache.flow.connections import Connections, Trust
from regcache.flow.tunnels import Tunnel, _Opening
from regcache.flow.upstream import Ask, Upstream
from regcache.http.messages import Headers
from regcache.http.proxies import DIRECT, Exemptions, Proxies, Proxy
from regcache.interfaces import IUpstream
from tests import test_connections as single
from tests.certificates import certificate, server_context
from tests.clients import program
from tests.forward import ForwardProxy
from tests.origin import Origin
from tests.service import Running, free_port

SECRET = "s:cr@t%/"
ENCODED = "us%C3%A9r:s%3Acr%40t%25%2F"
GIVEN = "Basic " + base64.b64encode(f"us\u00e9r:{SECRET}".encode()).decode()


# Which proxy is meant.


@pytest.mark.parametrize(
    ("text", "holds", "not_those"),
    [
        ("", "", "a.example:443 127.0.0.1:80"),
        ("*", "a.example:443 127.0.0.1:80 ::1:80", ""),
        ("b.example, *", "a.example:443", ""),
        ("a.example", "a.example:443 a.example:1 www.a.example:443", "ba.example:443 example:443 a.example.org:443"),
        (".a.example", "a.example:443 www.a.example:443", "ba.example:443"),
        ("*.a.example", "www.a.example:443 x.y.a.example:1", "a.example:443 ba.example:443"),
        ("a.example:8443", "a.example:8443 www.a.example:8443", "a.example:443"),
        ("A.Example.", "a.example:443 a.example.:443", ""),
        ("m\u00fcnchen.example", "xn--mnchen-3ya.example:443", ""),
        ("b.example,,  a.example\tc.example", "a.example:443 b.example:443 c.example:1", "d.example:443"),
        ("localhost", "localhost:80", "127.0.0.1:80 ::1:80"),
        ("127.0.0.1", "127.0.0.1:80 ::ffff:127.0.0.1:80", "127.0.0.2:80 localhost:80"),
        ("127.0.0.1:80", "127.0.0.1:80", "127.0.0.1:81"),
        ("10.0.0.0/8", "10.1.2.3:443", "11.1.2.3:443 a10.example:443"),
        ("10.1.2.3/8", "10.9.9.9:443", ""),
        ("10.0.0.0/8:443", "10.1.2.3:443", "10.1.2.3:80"),
        ("::1", "::1:80", "::2:80"),
        ("[::1]", "::1:80", "::2:80"),
        ("[::1]:443", "::1:443", "::1:80"),
        ("fd00::/8", "fd12::1:443", "fe80::1:443"),
        ("1", "", "127.0.0.1:80 a.1:80"),
    ],
)
def test_exemptions(text: str, holds: str, not_those: str) -> None:
    """Hosts, domains, addresses and networks, each with a port or without; a name is never looked up."""
    found = Exemptions.of(text)
    for place in holds.split():
        host, _, port = place.rpartition(":")
        assert found.hold(host, int(port)), place
    for place in not_those.split():
        host, _, port = place.rpartition(":")
        assert not found.hold(host, int(port)), place


def test_parts_that_mean_nothing() -> None:
    """They are told, and exempt nothing."""
    found = Exemptions.of("192.168.*, http://a.example, 10.0.0.0/99, a.example")
    assert found.unclear == ("192.168.*", "http://a.example", "10.0.0.0/99")
    assert found.hold("a.example", 443)
    assert not found.hold("192.168.0.1", 443)


@given(st.text(max_size=30) | st.text("*.:/[]0123456789abf,% ", max_size=30), st.integers(0, 65535))
def test_any_exemptions(text: str, port: int) -> None:
    """Whatever it says can be asked."""
    found = Exemptions.of(text)
    for host in ("a.example", "10.0.0.1", "::1", "xn--mnchen-3ya.example"):
        assert found.hold(host, port) in (True, False)


def ways(environ: dict[str, str]) -> tuple[str, str]:
    """The proxies for https and for http."""
    found = Proxies.of(environ)
    https, http = found.to("https", "a.example", 443), found.to("http", "a.example", 80)
    return str(https or ""), str(http or "")


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, ("", "")),
        ({"HTTPS_PROXY": "http://p:1"}, ("http://p:1", "")),
        ({"HTTP_PROXY": "http://p:1"}, ("", "http://p:1")),
        ({"ALL_PROXY": "http://p:1"}, ("http://p:1", "http://p:1")),
        ({"ALL_PROXY": "http://p:1", "HTTP_PROXY": "http://q:2"}, ("http://p:1", "http://q:2")),
        ({"all_proxy": "http://p:1", "HTTP_PROXY": ""}, ("http://p:1", "")),
        ({"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"}, ("http://p:1", "")),
        ({"https_proxy": "", "HTTPS_PROXY": "http://q:2"}, ("", "")),
        ({"HTTPS_PROXY": "p:3128"}, ("http://p:3128", "")),
        ({"HTTPS_PROXY": "p"}, ("http://p:80", "")),
        ({"HTTPS_PROXY": "https://P"}, ("https://p:443", "")),
        ({"HTTPS_PROXY": "http://[::1]:3128/"}, ("http://[::1]:3128", "")),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, ("", "")),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "", "NO_PROXY": "*"}, ("http://p:1", "")),
        ({"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example:80"}, ("http://p:1", "")),
        # One that is for no scheme is not looked at.
        ({"ALL_PROXY": "socks5://p:1", "HTTP_PROXY": "", "HTTPS_PROXY": "http://p:1"}, ("http://p:1", "")),
    ],
)
def test_variables(environ: dict[str, str], wanted: tuple[str, str]) -> None:
    """Each scheme has its own, before that for all; lower case wins, and an empty one stands for none."""
    assert ways(environ) == wanted


def test_loopback_is_nothing_special() -> None:
    """Only NO_PROXY says what is asked directly."""
    assert Proxies.of({"HTTP_PROXY": "p:1"}).to("http", "127.0.0.1", 80) is not None
    assert Proxies.of({"HTTP_PROXY": "p:1", "NO_PROXY": "127.0.0.0/8"}).to("http", "127.0.0.1", 80) is None


@pytest.mark.parametrize(
    ("text", "given"),
    [
        (f"http://{ENCODED}@p:1", GIVEN),
        ("http://user@p:1", "Basic dXNlcjo="),
        ("user:pass@p:1", "Basic dXNlcjpwYXNz"),
        ("http://user:p@ss:word@p:1", "Basic " + base64.b64encode(b"user:p@ss:word").decode()),
    ],
)
def test_credentials_for_the_proxy(text: str, given: str) -> None:
    """User and password are percent-decoded, and shown nowhere."""
    proxy = Proxy.of(text, "HTTPS_PROXY")
    assert proxy.authorization == given
    for shown in (str(proxy), repr(proxy), repr(Proxies(proxy))):
        assert given.split()[1] not in shown
        assert "@" not in shown


@given(st.text(max_size=30) | st.from_regex(r"(https?://)?[a-z%:@/#?]{0,20}:hunter2[@/#?:]p:1"))
@example("socks5://user:hunter2@p:1")
@example("http://user:hunter2#@p:1")
@example("http://user:1234/hunter2@p:1")
@example("http://us%3Aer:hunter2@p:1")
@example("http://us%00er:hunter2@p:1")
@example("http://us%ff:hunter2@p:1")
@example("http://user:hunter2@p:99999")
@example("http://user:hunter2@")
@example("http://user:hunter2@p q:1")
def test_any_proxy(text: str) -> None:
    """A proxy, or one line that names the variable and keeps the password."""
    try:
        told = str(Proxy.of(text, "HTTPS_PROXY"))
    except ConfigError as error:
        told = error.detail
        assert told.startswith("HTTPS_PROXY names no proxy that can be used; it wants http://HOST:PORT")
        assert "\n" not in told
    assert "hunter2" not in told.replace("http://hunter2", "")


# Asking through one.


class Case(single.Case):
    """A proxy, and a client that asks everything through it."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = ForwardProxy()
        self.addCleanup(self.proxy.close)
        directory = tempfile.TemporaryDirectory(prefix="regcache-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def through(self, url: str = "", exempt: str = "", ca: str = "") -> Connections:
        """A client of the proxy."""
        proxy = url or self.proxy.url
        environ = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": exempt}
        client = Connections(reactor, Trust(Path(ca).read_bytes() if ca else b""), Proxies.of(environ))
        client.start()
        self.addCleanup(client.stop)
        return client

    async def secure(self, name: str = "localhost", answer: Any = single.SHORT) -> tuple[str, str]:
        """A server that speaks TLS by that name, which only the proxy finds; its URL, and whom to trust for it."""
        made = str(certificate(self.directory / f"{name}.pem", name))
        url = await self.serve(answer, f"ssl:0:interface=127.0.0.1:certKey={made}:privateKey={made}")
        port = int(url.split(":")[2].strip("/"))
        self.proxy.places[name, port] = ("127.0.0.1", port)
        return f"https://{name}:{port}/", made

    async def failure(self, client: Connections, url: str) -> str:
        """Why a URL cannot be had: always an upstream error that names the proxy, and never its password."""
        with pytest.raises((ConnectFailed, CutShort)) as caught:
            await self.get(url, client=client)
        assert "proxy http://127.0.0.1:" in caught.value.text
        assert SECRET not in caught.value.text
        assert ENCODED not in caught.value.text
        return str(caught.value.text)


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
class Tunnels(Case):
    """TLS upstreams, by CONNECT."""

    async def test_a_tunnel(self) -> None:
        """The name is the proxy's to look up, TLS reaches through it, and a connection is used again."""
        url, ca = await self.secure("registry.invalid")
        client = self.through(ca=ca)
        verifyObject(IUpstream, client)
        for _ in range(2):
            assert (await self.get(url + "a", client=client))[1] == b"ok"
        place = url.split("/")[2]
        assert self.proxy.asked == [f"CONNECT {place} HTTP/1.1"]
        assert self.proxy.heads == [{"host": place, "user-agent": "regcache"}]
        assert len(self.server.connections) == 1
        assert b"GET /a" not in self.proxy.passed
        assert self.server.requests[0].startswith(f"GET /a HTTP/1.1\r\nHost: {place}".encode())

    async def test_credentials(self) -> None:
        """The proxy is told them, and nobody else."""
        url, ca = await self.secure()
        client = self.through(self.proxy.url.replace("//", f"//{ENCODED}@"), ca=ca)
        await self.get(url, client=client)
        assert self.proxy.heads[0]["proxy-authorization"] == GIVEN
        assert b"roxy" not in self.server.requests[0]

    async def test_the_certificate_is_the_registrys(self) -> None:
        """It is verified by the registry's name, as without a proxy."""
        url, ca = await self.secure("elsewhere.invalid")
        port = int(url.split(":")[2].strip("/"))
        self.proxy.places["registry.invalid", port] = ("127.0.0.1", port)
        told = await self.failure(self.through(ca=ca), url.replace("elsewhere", "registry"))
        assert "TLS with registry.invalid (asked through the proxy http://127.0.0.1:" in told
        assert "name" in told
        told = await self.failure(self.through(), url)
        assert "certificate verify failed" in told
        assert self.server.requests == []

    async def test_a_proxy_that_refuses(self) -> None:
        """What it says is told."""
        url, ca = await self.secure()
        place = url.split("/")[2]
        for status in (b"403 Forbidden", b"502 Bad Gateway", b"503", b"301 Moved"):
            self.proxy.answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno"
            told = await self.failure(self.through(ca=ca), url)
            assert f"does not let us through to {place}: it answered {status.decode()}." in told
        self.proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
        assert "It wants credentials, and has none" in await self.failure(self.through(ca=ca), url)
        wrong = self.proxy.url.replace("//", f"//{ENCODED}@")
        assert "It wants credentials, and refuses these" in await self.failure(self.through(wrong, ca=ca), url)

    async def test_a_proxy_that_is_none(self) -> None:
        """Whatever it says instead, it ends there."""
        url, ca = await self.secure()
        for answer in (b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/2.0 200 OK\r\n\r\n", b"x" * 20_000, b"\r\n\r\n"):
            self.proxy.answer = answer
            assert "sent what is not HTTP" in await self.failure(self.through(ca=ca), url)
        self.proxy.answer = b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 4_000
        assert "sent what is not HTTP" in await self.failure(self.through(ca=ca), url)
        self.proxy.answer = b"HTTP/1.1 200 OK\r\nA: b"
        assert "hung up when it was to connect to localhost" in await self.failure(self.through(ca=ca), url)

    async def test_an_answer_in_pieces(self) -> None:
        """Interim answers are passed over, and what stands behind the head is the registry's."""
        made = certificate(self.directory / "x.pem")
        server = single.Server(lambda connection, _: connection.transport.write(single.SHORT))
        inner = await serverFromString(reactor, f"ssl:0:interface=127.0.0.1:certKey={made}:privateKey={made}").listen(
            server
        )
        self.addCleanup(inner.stopListening)
        head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200\r\nVia: a\r\n\r\n"

        def answer(connection: Any, number: int) -> None:
            del number
            pieces = [bytes([one]) for one in head]

            def send() -> None:
                connection.transport.write(pieces.pop(0))
                if pieces:
                    reactor.callLater(0, send)

            connection.transport.setTcpNoDelay(True)
            send()

        url = await self.serve(answer)
        client = self.through(url, ca=str(made))
        asking = client.request("GET", "https://localhost:1/", Headers(), b"")
        connection: Any = None
        while connection is None or not connection.unread.startswith(b"\x16\x03"):
            await single.pause()
            connection = self.server.connections[0] if self.server.connections else None
        asking.cancel()
        with pytest.raises(CancelledError):
            await asking
        await connection.lost

    async def test_a_proxy_that_says_nothing(self) -> None:
        """The request's own deadline ends it, and tells through whom it was asked; its connection is closed."""
        url = await self.serve(lambda *_: None)
        client = self.through(url)
        upstream = Upstream(reactor, client, way=client.way)
        for target in ("https://registry.invalid/", "http://registry.invalid/"):
            with pytest.raises(UpstreamTimeout) as caught:
                await upstream.ask(Ask(url=target, allows=lambda _: True), 0.1)
            assert f"gave no answer in time (asked through the proxy {url.strip('/')})." in caught.value.text
            await self.server.connections[-1].lost
        assert [request.split(b" ")[0] for request in self.server.requests] == [b"CONNECT", b"GET"]

    async def test_a_proxy_that_is_gone(self) -> None:
        """Refused, or without an address."""
        gone = f"http://127.0.0.1:{free_port()}"
        for url in ("https://localhost:1/", "http://localhost:1/"):
            assert f"the proxy {gone}: Connection refused." in await self.failure(self.through(gone), url)
            with pytest.raises(
                ConnectFailed, match=r"The name of the proxy http://proxy.invalid:1 could not be looked"
            ):
                await self.get(url, client=self.through("http://proxy.invalid:1"))

    async def test_giving_up(self) -> None:
        """Whoever gives up while the proxy is asked closes the connection to it."""
        url = await self.serve(lambda *_: None)
        asking = self.through(url).request("GET", "https://localhost:1/", Headers(), b"")
        while not self.server.requests:
            await single.pause()
        asking.cancel()
        with pytest.raises(CancelledError):
            await asking
        await self.server.connections[0].lost

    async def test_a_stop(self) -> None:
        """It ends what is still asked of the proxy, and nothing is asked afterwards."""
        url = await self.serve(lambda *_: None)
        client = self.through(url)
        asking = client.request("GET", "https://localhost:1/", Headers(), b"")
        while not self.server.requests:
            await single.pause()
        await client.stop()
        for each in (asking, client.request("GET", "https://localhost:1/", Headers(), b"")):
            with pytest.raises(ConnectFailed, match="The cache is stopping"):
                await each
        await self.server.connections[0].lost
        assert len(self.server.requests) == 1

    async def test_tls_to_the_proxy(self) -> None:
        """A proxy may be spoken to by TLS; that to the registry is within."""
        url, registry = await self.secure("registry.invalid")
        own = certificate(self.directory / "proxy.pem")
        proxy = ForwardProxy(server_context(own))
        self.addCleanup(proxy.close)
        proxy.places = self.proxy.places
        both = self.directory / "both.pem"
        both.write_bytes(Path(registry).read_bytes() + own.read_bytes())
        client = self.through(proxy.url, ca=str(both))
        assert (await self.get(url, client=client))[1] == b"ok"
        plain = await self.serve(single.SHORT)
        assert (await self.get(plain, client=client))[1] == b"ok"
        assert proxy.asked == [f"CONNECT {url.split('/')[2]} HTTP/1.1", f"GET {plain} HTTP/1.1"]
        with pytest.raises(ConnectFailed, match=f"TLS with the proxy {proxy.url} failed: certificate verify failed"):
            await self.get(url, client=self.through(proxy.url, ca=registry))


class Forwarding(Case):
    """Upstreams without TLS, by requests in absolute form."""

    async def test_a_request(self) -> None:
        """The whole URL is asked for, with the registry's own Host; the proxy's credentials go no further."""
        url = await self.serve(single.SHORT)
        port = int(url.split(":")[2].strip("/"))
        self.proxy.places["registry.invalid", port] = ("127.0.0.1", port)
        client = self.through(self.proxy.url.replace("//", f"//{ENCODED}@"))
        target = f"http://registry.invalid:{port}/a%2Fb?c=d"
        assert (await self.get(target, client=client))[1] == b"ok"
        assert self.proxy.asked == [f"GET {target} HTTP/1.1"]
        assert self.proxy.heads == [{"host": f"registry.invalid:{port}", "proxy-authorization": GIVEN}]
        assert self.server.requests[0].startswith(b"GET /a%2Fb?c=d HTTP/1.1\r\n")
        assert b"roxy" not in self.server.requests[0]

    async def test_a_proxy_that_refuses(self) -> None:
        """That it wants credentials is its own; any other status may be the registry's, and names both."""
        self.proxy.answer = b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"
        told = await self.failure(self.through(), "http://registry.invalid/")
        assert "does not let us through to registry.invalid: it answered 407. It wants credentials" in told
        self.proxy.answer = b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n"
        client = self.through()
        answer = await Upstream(reactor, client, way=client.way).ask(
            Ask(url="http://registry.invalid/", allows=lambda _: True), 5
        )
        answer.discard()
        assert (answer.status, answer.way) == (502, f" (asked through the proxy {self.proxy.url})")
        self.proxy.answer = b"SSH-2.0\r\n"
        assert "sent what is not HTTP" in await self.failure(self.through(), "http://registry.invalid/")

    async def test_what_is_exempt(self) -> None:
        """It is asked directly, in origin form."""
        url = await self.serve(single.SHORT)
        await self.get(url, client=self.through(exempt="127.0.0.0/8"))
        assert self.proxy.asked == []
        assert self.server.requests[0].startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
class Redirects(Case):
    """Each place a redirect leads to has the proxy that is meant for it."""

    async def test_redirects(self) -> None:
        """Forwarded first, then through a tunnel, then directly."""
        last = await self.serve(single.SHORT)
        direct = self.server
        second, ca = await self.secure("second.invalid", moved(last))
        with pytest.raises(Exception, match="from https to http"):
            # Less secure is not followed, whatever the proxy.
            await self.follow(second, self.through(ca=ca, exempt="127.0.0.1"))
        del self.proxy.asked[:]
        direct_tls, other = await self.secure("localhost")
        direct = self.server
        both = self.directory / "both.pem"
        second, ca = await self.secure("second.invalid", moved(direct_tls))
        both.write_bytes(Path(ca).read_bytes() + Path(other).read_bytes())
        first = await self.serve(moved(second))
        answer = await self.follow(first, self.through(ca=str(both), exempt="localhost"))
        assert (answer.status, answer.url, answer.way) == (200, direct_tls, "")
        assert self.proxy.asked == [f"GET {first} HTTP/1.1", f"CONNECT {second.split('/')[2]} HTTP/1.1"]
        assert len(direct.requests) == 1

    async def follow(self, url: str, client: Connections) -> Answer:
        answer = await Upstream(reactor, client, way=client.way).ask(Ask(url=url, allows=lambda _: True), 5)
        answer.discard()
        return answer


def moved(url: str) -> bytes:
    """A redirect."""
    return f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()


def test_no_proxies() -> None:
    """Nothing is asked through one unless the environment says so."""
    assert not DIRECT
    assert DIRECT.to("https", "a.example", 443) is None
    assert Connections(reactor).way("https://a.example/") == ""


HEADS = st.lists(
    st.sampled_from(
        [
            b"HTTP/1.1 ",
            b"HTTP/1.0 ",
            b"200",
            b"100",
            b"407",
            b" OK",
            b"\r\n",
            b"\n",
            b"\r",
            b"A: b",
            b"\x16\x03\x01",
            b"\x00",
        ]
    )
    | st.binary(max_size=8)
)


class Inner(Protocol):
    """What is within a tunnel."""

    data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


@given(HEADS, st.integers(1, 9))
def test_any_answer(parts: list[bytes], piece: int) -> None:
    """Whatever a proxy says, in whatever pieces: a tunnel for what stands behind its head, an error, or a wait."""
    tunnel = Tunnel(TCP4ClientEndpoint(reactor, "127.0.0.1", 1), Proxy.of("p:1", ""), "a.example:443")
    inner, transport = Inner(), StringTransport()
    opening = _Opening(tunnel, Factory.forProtocol(lambda: inner), transport.getPeer())
    opening.makeConnection(transport)  # type: ignore[no-untyped-call]
    outcome: list[Any] = []
    opening.made.wait().addBoth(outcome.append)
    data = b"".join(parts)
    for at in range(0, len(data), piece):
        opening.dataReceived(data[at : at + piece])
        if transport.disconnecting or transport.disconnected:
            break
    opening.connectionLost(Failure(ConnectionDone()))
    (made,) = outcome
    if made is inner:
        assert re.match(rb"HTTP/1\.[01] 2\d\d", data[data.rindex(b"HTTP/1.", 0, len(data) - len(inner.data)) :])
        assert data.endswith(inner.data)
    else:
        assert isinstance(made.value, ConnectFailed)


# The service, through proxies.


@pytest.fixture
def forward() -> Iterator[ForwardProxy]:
    """A forward proxy, closed at the end."""
    made = ForwardProxy()
    yield made
    made.close()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Origin, Path]]:
    """A registry that speaks TLS, and whom to trust for it."""
    ca = certificate(tmp_path / "ca.pem")
    made = Origin(server_context(ca))
    yield made, ca
    made.close()


def test_the_service(
    start: Callable[..., Running], origin: Origin, forward: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says through which proxy it asks which registry, and does; the password is said nowhere."""
    path = origin.add_wheel("demo", "1.0")
    monkeypatch.setenv("HTTP_PROXY", forward.url.replace("//", f"//{ENCODED}@"))
    service = start()
    # It is the service that is to use it, not who asks the service.
    monkeypatch.delenv("HTTP_PROXY")
    assert f"regcache: asks pypi, npm through the proxy {forward.url}\n" in service.said
    assert service.get(f"pypi{path}")[2] == origin.body(path)
    assert {line.split()[1].partition("?")[0] for line in forward.asked} >= {origin.url[:-1] + path}
    assert {head["proxy-authorization"] for head in forward.heads} == {GIVEN}
    forward.answer = b"HTTP/1.1 403 Not that\r\nContent-Length: 0\r\n\r\n"
    status, _, body = service.get("pypi/simple/other/")
    assert status == 502
    assert f"asked through the proxy {forward.url}".encode() in body
    said = service.said + service.stop() + body.decode()
    assert SECRET not in said
    assert ENCODED not in said
    assert GIVEN.split()[1] not in said


def test_what_the_service_is_told_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and no start."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:hunter2@proxy:1080")
    command = [program("regcache"), "serve", "--check-config", "--cache-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("regcache: HTTPS_PROXY names no proxy that can be used; it wants http://HOST:PORT")
    assert ended.stderr.count("\n") == 1
    assert "hunter2" not in ended.stderr


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts Tinyproxy, a real one, with more lines of its configuration; its place."""
    found = shutil.which("tinyproxy", path="/usr/sbin:/usr/local/bin:/usr/bin") or program("tinyproxy")
    running: list[subprocess.Popen[bytes]] = []

    def starting(*more: str) -> str:
        port = free_port()
        lines = [f"Port {port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "Timeout 20", "LogLevel Info", *more]
        config, log = tmp_path / "tinyproxy.conf", tmp_path / "tinyproxy.log"
        config.write_text("\n".join([*lines, f'LogFile "{log}"', ""]))
        running.append(subprocess.Popen([found, "-d", "-c", str(config)], stdout=subprocess.DEVNULL))
        for _ in range(500):
            if log.exists() and "Accepting connections" in log.read_text():
                return f"127.0.0.1:{port}"
            time.sleep(0.01)
        raise AssertionError("tinyproxy does not start")

    yield starting
    for one in running:
        one.terminate()
        one.wait()


def test_a_real_proxy(
    tinyproxy: Callable[..., str],
    secure: tuple[Origin, Path],
    origin: Origin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tinyproxy, with credentials: a registry with TLS through CONNECT, one without in absolute form."""
    tls, ca = secure
    port = tls.url.split(":")[2].strip("/")
    place = tinyproxy("BasicAuth user p4ss", f"ConnectPort {port}")
    path, package = tls.add_wheel("demo", "1.0"), origin.add_tarball("lib", "1.0.0")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:p4ss@{place}")
    monkeypatch.setenv("http_proxy", f"http://user:p4ss@{place}")
    tables = (
        f'[registries.pypi]\nurl = "{tls.url}simple/"\nfiles = "{tls.url}"\n[registries.npm]\nurl = "{origin.url}"\n'
    )
    service = Running(tmp_path, origin, "--upstream-ca", str(ca), tables=tables)
    monkeypatch.delenv("http_proxy")
    try:
        assert f"regcache: asks pypi, npm through the proxy http://{place}\n" in service.said
        assert service.get(f"pypi{path}")[2] == tls.body(path)
        assert service.get(f"npm{package}")[2] == origin.body(package)
        log = (tmp_path / "tinyproxy.log").read_text()
        assert f"CONNECT localhost:{port} HTTP/1.1" in log
        assert f"GET {origin.url[:-1]}" in log
        service.stop()
    finally:
        service.kill()


def test_a_real_proxy_that_refuses(
    tinyproxy: Callable[..., str], secure: tuple[Origin, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tinyproxy without the credentials it wants: the error says so, and names it."""
    tls, ca = secure
    place = tinyproxy("BasicAuth user p4ss")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:wr0ng@{place}")
    service = Running(tmp_path, tls, "--upstream-ca", str(ca))
    try:
        status, _, body = service.get("pypi/simple/demo/")
        told = f"The proxy http://{place} does not let us through to {tls.url.split('/')[2]}: it answered 40"
        assert status == 502
        assert told in body.decode()
        assert "wr0ng" not in service.said + service.stop() + body.decode()
        assert tls.asked == []
    finally:
        service.kill()
