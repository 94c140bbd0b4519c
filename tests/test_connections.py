"""Single requests over real sockets, to servers that do as they are told."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regcache.errors import BadRequest, ConnectFailed, CutShort, ForbiddenOrigin, UpstreamError
from regcache.flow import connections
from regcache.flow.connections import Connections, Trust
from regcache.flow.exchange import _READING
from regcache.flow.requests import _fields, written
from regcache.http.messages import Headers
from regcache.interfaces import IReceiver, IResponse, IUpstream
from tests.certificates import certificate

OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"Content-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("fields", "ours", "remembered"),
    [
        ({"accept": "a"}, True, True),
        ({"accept": "a"}, False, False),
        ({"accept": "a", "authorization": "Basic c2VjcmV0"}, True, False),
        ({"accept": "a", "proxy-authorization": "Basic c2VjcmV0"}, True, False),
        ({"accept": "a" * 1025}, True, False),
    ],
)
def test_what_is_remembered_of_requests(fields: dict[str, str], ours: bool, remembered: bool) -> None:
    """Neither a client's fields, nor what opens an upstream, nor what is long; what is sent is the same."""
    _fields.cache_clear()
    for _ in range(2):
        sent = written("GET", "/a", "registry.test", Headers.of(fields), b"", ours=ours)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        assert sent == f"GET /a HTTP/1.1\r\nHost: registry.test\r\n{lines}\r\n".encode()
    assert _fields.cache_info().currsize == remembered


class Served(Protocol):
    """One connection at the server: answers each request with what the test wrote."""

    transport: Any

    def __init__(self, server: Server) -> None:
        self.server = server
        self.unread = b""
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.server.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.unread += data
        while b"\r\n\r\n" in self.unread:
            request, _, self.unread = self.unread.partition(b"\r\n\r\n")
            self.server.requests.append(request)
            self.server.answer(self, len(self.server.requests))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        del reason
        self.lost.callback(None)


Answering = Callable[[Served, int], object]


class Server(Factory):
    """
    A server.

    :ivar answer: called with the connection and the number of requests so far.
    """

    noisy = False

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.connections: list[Served] = []
        self.requests: list[bytes] = []

    def buildProtocol(self, _address: object) -> Served:
        return Served(self)


@implementer(IReceiver)
class Body:
    """What came of a body."""

    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[tuple[UpstreamError | None, bool]] = Deferred()
        self.first: Deferred[None] = Deferred()

    def received(self, data: bytes) -> None:
        self.data += data
        if not self.first.called:
            self.first.callback(None)

    def ended(self, error: UpstreamError | None, certain: bool) -> None:
        self.done.callback((error, certain))


class Pieces(Body):
    """The same, and where each piece of it begins and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[tuple[int, int]] = []

    def received(self, data: bytes) -> None:
        self.pieces.append((len(self.data), len(self.data) + len(data)))
        super().received(data)


class Case(TestCase):
    """Everything is closed at the end."""

    def setUp(self) -> None:
        self.client = Connections(reactor)
        self.client.start()
        self.addCleanup(self.client.stop)

    async def serve(
        self, answer: Callable[[Served, int], object] | bytes, how: str = "tcp:0:interface=127.0.0.1"
    ) -> str:
        """A server that answers like that; its URL."""
        if isinstance(answer, bytes):
            data = answer
            self.server = Server(lambda connection, _: connection.transport.write(data))
        else:
            self.server = Server(answer)
        port = await serverFromString(reactor, how).listen(self.server)
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}/"

    async def get(self, url: str, method: str = "GET", body: bytes = b"", **more: Any) -> tuple[Any, bytes, bool]:
        """A response, its body, and whether its end is certain."""
        response = await (more.get("client") or self.client).request(method, url, Headers(), body)
        taken = Body()
        response.deliver(taken)
        error, certain = await taken.done
        if error is not None:
            raise error
        return response, taken.data, certain

    async def refused(self, answer: bytes, why: str, close: bool = False) -> None:
        """Such an answer is an error, and its connection is gone."""

        def answering(connection: Served, _number: int) -> None:
            connection.transport.write(answer)
            if close:
                connection.transport.loseConnection()

        url = await self.serve(answering)
        with pytest.raises(CutShort, match=why):
            await self.get(url)
        await self.server.connections[0].lost


class Requests(Case):
    """What is sent, and on which connection."""

    async def test_the_request(self) -> None:
        """Line, host and fields as they were given; the target is percent-encoded where it has to be."""
        url = await self.serve(SHORT)
        response = await self.client.request("GET", f"{url}a%2Fb?c=d\u00e9|", Headers.of({"accept": "*/*"}), b"")
        verifyObject(IResponse, response)
        verifyObject(IUpstream, self.client)
        response.abort()
        host = url.split("/")[2]
        expected = f"GET /a%2Fb?c=d%C3%A9%7C HTTP/1.1\r\nHost: {host}\r\naccept: */*"
        assert self.server.requests == [expected.encode()]

    async def test_a_body_is_sent_with_its_length(self) -> None:
        """As an audit's is."""
        url = await self.serve(SHORT)
        await self.get(url, "POST", b"12345")
        assert b"Content-Length: 5" in self.server.requests[0]
        assert self.server.connections[0].unread == b"12345"

    async def test_a_field_that_would_end_its_line(self) -> None:
        """It is never sent."""
        url = await self.serve(SHORT)
        for value in ("a\r\nHost: b", "a\x00b", "a\nb"):
            with pytest.raises(BadRequest):
                await self.client.request("GET", url, Headers.of({"accept": value}), b"")
        assert self.server.requests == []

    async def test_a_connection_is_used_again(self) -> None:
        """One after another over the same; two at once over two."""
        url = await self.serve(SHORT)
        for _ in range(3):
            assert (await self.get(url))[1] == b"ok"
        assert len(self.server.connections) == 1
        both = [Deferred.fromCoroutine(self.get(url)) for _ in range(2)]
        for one in both:
            assert (await one)[1] == b"ok"
        assert len(self.server.connections) == 2

    async def test_a_connection_that_is_to_be_closed_is_not_used_again(self) -> None:
        """By the response's own word, or by its version."""
        for head in (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.0 200 OK\r\n"):
            url = await self.serve(head + b"Content-Length: 2\r\n\r\nok")
            for number in (1, 2):
                assert (await self.get(url))[1:] == (b"ok", True)
                assert len(self.server.connections) == number

    async def test_a_kept_connection_that_was_closed_costs_nothing(self) -> None:
        """The request goes out again on a new one; but not if it was not harmless to repeat, nor on the first."""

        def answer(connection: Served, number: int) -> None:
            if number == 2:
                connection.transport.abortConnection()
            else:
                connection.transport.write(SHORT)

        url = await self.serve(answer)
        await self.get(url)
        assert (await self.get(url))[1] == b"ok"
        assert len(self.server.requests) == 3
        url = await self.serve(lambda connection, _: connection.transport.loseConnection())
        with pytest.raises(CutShort, match="before it answered"):
            await self.get(url)
        assert len(self.server.requests) == 1

    async def test_a_post_goes_over_a_new_connection(self) -> None:
        """A kept one might be closed under it, and it could not be repeated."""
        url = await self.serve(SHORT)
        await self.get(url)
        await self.get(url, "POST", b"1")
        assert len(self.server.connections) == 2

    async def test_an_idle_connection_is_closed(self) -> None:
        """After a while, and all of them at the stop."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(connections, "_IDLE_SECONDS", 0.05)
            await self.idle()

    async def idle(self) -> None:
        url = await self.serve(SHORT)
        await self.get(url)
        await self.server.connections[0].lost
        await self.get(url)
        await self.client.stop()
        await self.server.connections[1].lost

    async def test_a_url_that_is_read_in_two_ways(self) -> None:
        """It is refused."""
        url = await self.serve(SHORT)
        for bad in (url.replace("//", "//user@"), url + "a b", url + "a\\b", url.replace("http", "ftp"), "http://[x/"):
            with pytest.raises(ForbiddenOrigin):
                await self.client.request("GET", bad, Headers(), b"")

    async def test_nobody_there(self) -> None:
        """Refused, and a name that does not exist."""
        url = await self.serve(SHORT)
        await self._cleanups.pop()[0]()
        with pytest.raises(ConnectFailed, match="refused"):
            await self.get(url)
        with pytest.raises(ConnectFailed, match="could not be looked up"):
            await self.get("http://nowhere.invalid/")

    async def test_giving_up(self) -> None:
        """A request that is cancelled closes its connection, whether it is made yet or not."""
        url = await self.serve(lambda *_: None)
        asking = self.client.request("GET", url, Headers(), b"")
        early = self.client.request("GET", url, Headers(), b"")
        early.cancel()
        while not self.server.requests:
            await pause()
        asking.cancel()
        for each in (asking, early):
            with pytest.raises(CancelledError):
                await each
        await self.server.connections[0].lost


class Responses(Case):
    """What is taken for a response, and what is not."""

    async def test_framings(self) -> None:
        """By length, in chunks, or until the end: only then it is not certain that nothing is missing."""
        chunks = OK + b"Transfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n2\r\nbc\r\n0\r\nTrailer: t\r\n\r\n"
        for data, certain in (
            (OK + b"Content-Length: 3\r\n\r\nabc", True),
            (chunks, True),
            (OK + b"Connection: close\r\n\r\nabc", False),
        ):

            def answer(connection: Served, _number: int, data: bytes = data, certain: bool = certain) -> None:
                connection.transport.write(data)
                if not certain:
                    connection.transport.loseConnection()

            response, body, sure = await self.get(await self.serve(answer))
            assert (body, sure) == (b"abc", certain)
            assert "trailer" not in response.headers

    async def test_byte_by_byte(self) -> None:
        """However it comes."""

        def answer(connection: Served, _number: int) -> None:
            connection.transport.setTcpNoDelay(True)
            data = list(OK + b"X-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc")

            def send() -> None:
                connection.transport.write(bytes([data.pop(0)]))
                if data:
                    reactor.callLater(0, send)

            send()

        response, body, _ = await self.get(await self.serve(answer))
        assert (response.status, response.length, body) == (200, 3, b"abc")
        assert response.headers.lines("x-a") == ["1", "2"]

    async def test_no_body(self) -> None:
        """To HEAD, with 204 and with 304 there is none, whatever the fields say."""
        head = b"Content-Length: 5\r\n\r\n"
        for method, status in (("HEAD", b"200 OK"), ("GET", b"204 None"), ("GET", b"304 Same")):
            url = await self.serve(b"HTTP/1.1 " + status + b"\r\n" + head)
            for _ in range(2):
                response, body, certain = await self.get(url, method)
                assert (response.length, body, certain) == (5, b"", True)
            assert len(self.server.connections) == 1

    async def test_interim_responses(self) -> None:
        """They are passed over, with their fields."""
        early = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        response, body, _ = await self.get(await self.serve(early + SHORT))
        assert (response.status, body) == (200, b"ok")
        assert "link" not in response.headers

    async def test_what_is_not_http(self) -> None:
        """Two framings, two lengths, other versions, upgrades, folded lines, controls, and plain rubbish."""
        for answer in (
            OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
            OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            OK + b"Content-Length: +2\r\n\r\nok",
            OK + b"Content-Length: -2\r\n\r\nok",
            OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
            OK + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
            OK + b"A: b\x00c\r\nContent-Length: 2\r\n\r\nok",
            OK + b"A b: c\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nok",
            b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"<html>\r\n\r\n",
        ):
            await self.refused(answer, "was cut off since it")

    async def test_more_than_announced(self) -> None:
        """Surplus bytes, were they a response, make all of it doubtful."""
        await self.refused(SHORT + b"more", "more bytes")
        await self.refused(SHORT + SHORT, "more bytes")
        url = await self.serve(OK + b"Content-Length: 2\r\n\r\nok")
        with pytest.raises(CutShort, match="more bytes"):
            await self.get(url, "HEAD")

    async def test_bytes_that_nobody_asked_for(self) -> None:
        """What comes on an idle connection closes it; the next request takes another."""

        def answer(connection: Served, number: int) -> None:
            connection.transport.write(SHORT)
            if number == 1:
                reactor.callLater(0.01, connection.transport.write, SHORT)

        url = await self.serve(answer)
        await self.get(url)
        await self.server.connections[0].lost
        assert (await self.get(url))[1] == b"ok"

    async def test_too_large(self) -> None:
        """A head that does not end, too many fields, chunks of nothing but framing, and endless trailers."""
        chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        for answer in (
            OK + b"A: " + b"x" * 70_000,
            OK + b"A: x\r\n" * 501 + b"\r\n",
            chunked + b"1;" + b"x" * 70_000,
            chunked + b"0\r\n" + b"T: x\r\n" * 12_000,
            b"HTTP/1.1 100 Continue\r\n\r\n" * 3_000,
        ):
            await self.refused(answer, "too large")

    async def test_many_small_chunks(self) -> None:
        """They are only odd."""
        data = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
        assert (await self.get(await self.serve(data)))[1] == b"x" * 50_000

    async def test_cut_short(self) -> None:
        """In the head, in a body of known length, in a chunk: never as if that had been all."""
        for answer in (OK, OK + b"Content-Length: 3\r\n\r\nab", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"):
            await self.refused(answer, "closed the connection", close=True)

    async def test_a_reset_is_no_end(self) -> None:
        """Where only the close tells that a body is whole, it has to be an orderly one."""

        def answer(connection: Served, _number: int) -> None:
            connection.transport.write(OK + b"Connection: close\r\n\r\nabc")
            later(5, connection.transport.abortConnection)

        with pytest.raises(CutShort):
            await self.get(await self.serve(answer))

    async def test_a_body_waits_for_its_taker(self) -> None:
        """Nothing is read before it is wanted, nor while there is a pause, and all of it comes in the end."""
        size = 30 << 20

        def answer(connection: Served, _number: int) -> None:
            connection.transport.write(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)

        url = await self.serve(answer)
        response = await self.client.request("GET", url, Headers(), b"")
        assert await self.stuck()
        taken = Body()
        response.deliver(taken)
        await taken.first
        response.pause()
        assert await self.stuck()
        before = len(taken.data)
        response.resume()
        assert await taken.done == (None, True)
        assert (before < size, len(taken.data)) == (True, size)

    async def test_a_large_body_comes_in_pieces_that_end_at_round_offsets(self) -> None:
        """As they are written; what comes over the connection afterwards is read in pieces as large as ever."""
        size = (5 << 20) - 1

        def answer(connection: Served, number: int) -> None:
            body = b"x" * (size if number == 1 else 1000)
            connection.transport.write(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

        url = await self.serve(answer)
        sizes = []
        for _ in range(2):
            response = await self.client.request("GET", url, Headers(), b"")
            taken = Pieces()
            response.deliver(taken)
            assert await taken.done == (None, True)
            sizes.append(len(taken.data))
            assert all(start // _READING == (end - 1) // _READING for start, end in taken.pieces[1:])
        assert sizes == [size, 1000]
        assert len(self.server.connections) == 1
        assert len(taken.pieces) < 10

    async def stuck(self) -> bool:
        """Whether the server cannot send all that it has, as far as the sockets' buffers tell once they are full."""
        transport = self.server.connections[0].transport
        left = -1
        while left != len(transport.dataBuffer) + sum(map(len, transport._tempDataBuffer)):
            left = len(transport.dataBuffer) + sum(map(len, transport._tempDataBuffer))
            for _ in range(20):
                await pause()
        return left > 0

    async def test_giving_a_body_up(self) -> None:
        """Its connection is closed, and its receiver hears no more."""

        def answer(connection: Served, _number: int) -> None:
            connection.transport.write(OK + b"Content-Length: 5\r\n\r\nab")

        response = await self.client.request("GET", await self.serve(answer), Headers(), b"")
        taken = Body()
        response.deliver(taken)
        response.abort()
        response.abort()
        response.pause()
        response.resume()
        await self.server.connections[0].lost
        assert (taken.data, taken.done.called) == (b"ab", False)


class Chained(Body):
    """A body at whose end the same is asked for again, in the same turn of the reactor's."""

    def __init__(self, client: Connections, url: str) -> None:
        super().__init__()
        self.client, self.url = client, url
        self.next: Deferred[Any] = Deferred()

    def ended(self, error: UpstreamError | None, certain: bool) -> None:
        super().ended(error, certain)
        self.client.request("GET", self.url, Headers()).chainDeferred(self.next)


class Surplus(Case):
    """What a registry sends behind a whole response is the response to nothing."""

    async def not_taken(self, client: Connections, url: str, size: int) -> None:
        """
        It is not, where just the response has been read when the next request is made.

        :param size: of the first response, head included.
        """

        def answer(connection: Served, number: int) -> None:
            head = OK + b"Content-Length: %07d\r\n\r\n"
            body = b"x" * (size - len(head % 0))
            whole = head % len(body) + body
            connection.transport.write(whole + OK + b"Content-Length: 4\r\n\r\nevil" if number == 1 else SHORT)

        self.server.answer = answer
        response = await client.request("GET", url, Headers())
        taken = Chained(client, url)
        response.deliver(taken)
        assert await taken.done == (None, True)
        following = Body()
        (await taken.next).deliver(following)
        assert await following.done == (None, True)
        assert following.data == b"ok"
        assert len(self.server.connections) == 2

    async def test_that_comes_while_nobody_asks(self) -> None:
        """The connection ends, and who asks before that is heard of asks once, over another."""
        url = await self.serve(SHORT)
        await self.get(url)
        (kept,) = next(iter(self.client._idle.values()))
        kept.dataReceived(SHORT)
        assert (await self.get(url))[1] == b"ok"
        await self.server.connections[0].lost
        assert (len(self.server.requests), len(self.server.connections)) == (2, 2)

    async def test_that_waits_in_the_socket(self) -> None:
        """A large body is read to its end, where that is a round offset."""
        url = await self.serve(SHORT)
        await self.not_taken(self.client, url, (1 << 20) + len(OK + b"Content-Length: 1048576\r\n\r\n"))

    @pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
    async def test_that_waits_in_tls(self) -> None:
        """One record is read after the other, and the first ones end with the response."""
        directory = tempfile.TemporaryDirectory(prefix="regcache-test-")
        self.addCleanup(directory.cleanup)
        made = certificate(Path(directory.name) / "both.pem", "localhost")
        url = await self.serve(SHORT, f"ssl:0:interface=127.0.0.1:certKey={made}:privateKey={made}")
        client = Connections(reactor, Trust(made.read_bytes()))
        client.start()
        self.addCleanup(client.stop)
        await self.not_taken(client, url.replace("http:", "https:").replace("127.0.0.1", "localhost"), 1 << 17)


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
class Secure(Case):
    """TLS."""

    async def secure(self, name: str, ca: bool) -> tuple[Connections, str]:
        """A server that says it is that host, and a client that trusts it or not."""
        directory = tempfile.TemporaryDirectory(prefix="regcache-test-")
        self.addCleanup(directory.cleanup)
        made = certificate(Path(directory.name) / "both.pem", name)
        url = await self.serve(SHORT, f"ssl:0:interface=127.0.0.1:certKey={made}:privateKey={made}")
        client = Connections(reactor, Trust(made.read_bytes() if ca else b""))
        client.start()
        self.addCleanup(client.stop)
        return client, url.replace("http:", "https:").replace("127.0.0.1", "localhost")

    async def test_a_trusted_host(self) -> None:
        """The connection is made, and used again."""
        client, url = await self.secure("localhost", ca=True)
        for _ in range(2):
            assert (await self.get(url, client=client))[1] == b"ok"
        assert len(self.server.connections) == 1

    async def test_what_is_trusted_is_renewed(self) -> None:
        """What was connected by the trust before is not used again, and is not cut; the same trust changes nothing."""
        client, url = await self.secure("localhost", ca=True)
        self.server.answer = lambda connection, number: connection.transport.write(SHORT[:-1] if number == 1 else SHORT)
        response = await client.request("GET", url, Headers())
        client.renew(evolve(client._trust, system=1), None)
        taken = Body()
        response.deliver(taken)
        self.server.connections[0].transport.write(SHORT[-1:])
        assert (await taken.done)[0] is None
        assert taken.data == b"ok"
        for _ in range(2):
            await self.get(url, client=client)
            client.renew(evolve(client._trust), None)
        assert len(self.server.connections) == 2
        client.renew(Trust(), None)
        with pytest.raises(ConnectFailed):
            await self.get(url, client=client)

    async def test_a_host_that_is_not_trusted(self) -> None:
        """Nothing is sent to it."""
        client, url = await self.secure("localhost", ca=False)
        with pytest.raises(ConnectFailed, match=r"TLS with localhost failed: certificate verify failed"):
            await self.get(url, client=client)
        assert self.server.requests == []

    async def test_a_certificate_for_another_host(self) -> None:
        """The name in it counts."""
        client, url = await self.secure("elsewhere.example", ca=True)
        with pytest.raises(ConnectFailed, match=r"TLS with localhost failed: .*name"):
            await self.get(url, client=client)
        assert self.server.requests == []


def later(turns: int, work: Callable[[], object]) -> None:
    """Do it after so many turns of the reactor, in each of which all that has come is read."""
    reactor.callLater(0, later, turns - 1, work) if turns else work()


def pause() -> Deferred[None]:
    """Let everybody else have a turn."""
    turn: Deferred[None] = Deferred()
    reactor.callLater(0.001, turn.callback, None)
    return turn
