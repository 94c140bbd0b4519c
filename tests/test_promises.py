"""What must always hold, seen from a client's socket: one service, one registry on loopback."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.origin import Answer, Origin
from tests.service import Running, free_port

Start = Callable[..., Running]
BIG = 2 << 20


def ask(service: Running, path: str, *lines: str, version: str = "1.1", method: str = "GET") -> socket.socket:
    """A connection on which one request was sent."""
    parts = urlsplit(service.url)
    made = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20)
    head = [f"{method} /{path} HTTP/{version}", "Host: localhost", "Connection: close", *lines, "", ""]
    made.sendall("\r\n".join(head).encode())
    return made


def answer(client: socket.socket) -> http.client.HTTPResponse:
    """The response that comes on it, its head read."""
    response = http.client.HTTPResponse(client)
    response.begin()
    return response


def files(origin: Origin) -> tuple[str, str]:
    """The option that serves the origin's tree as it is."""
    return "--registries", f"npm={origin.url},pypi={origin.url}simple/,files=generic+{origin.url}"


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def listens(service: Running) -> bool:
    """Whether a new client would be taken."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(service.url).port or 0)) == 0


def test_many_clients_cost_one_request_and_nobody_waits_for_a_slow_one(origin: Origin, start: Start) -> None:
    """Whoever asks joins the one transfer, gets it whole, and is not held back by a client that does not read."""
    body = os.urandom(BIG)
    origin.add("/big.bin", body)
    origin.rate = 4 << 20
    service = start(*files(origin))
    stuck = ask(service, "files/big.bin")
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(service.get("files/big.bin")[2])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [body] * 20
    assert origin.asked.count("/big.bin") == 1
    assert answer(stuck).read() == body
    service.stop()


def test_a_fill_survives_its_first_client(origin: Origin, start: Start) -> None:
    """A client that leaves does not end the download that it began."""
    origin.add("/big.bin", os.urandom(BIG))
    origin.rate = 1 << 19
    service = start(*files(origin))
    first = ask(service, "files/big.bin")
    answer(first).read(1000)
    first.close()
    # What came after it was answered, so that it was noticed.
    assert service.get("-/health")[0] == 200
    origin.rate = 0
    assert service.until("files/big.bin", "HIT")[2] == origin.body("/big.bin")
    assert origin.asked.count("/big.bin") == 1
    service.stop()


def test_a_cut_after_the_head_fails_at_the_client(origin: Origin, start: Start) -> None:
    """A body that is cut in the middle never ends as a clean response, and is not stored."""
    origin.add("/big.bin", os.urandom(BIG))
    origin.trouble = lambda _path: "cut"
    service = start(*files(origin))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer(ask(service, "files/big.bin")).read()
    origin.trouble = lambda _path: ""
    assert service.get("files/big.bin")[2] == origin.body("/big.bin")
    service.stop()


def test_ranges_during_a_miss_and_of_what_is_stored(origin: Origin, start: Start) -> None:
    """A range is answered from the growing file; one far ahead by a request of its own; a stored one at once."""
    body = os.urandom(12 << 20)
    origin.add("/huge.bin", body)
    origin.rate = 4 << 20
    service = start(*files(origin))
    first = ask(service, "files/huge.bin")
    head = answer(first)
    near = service.get("files/huge.bin", Range="bytes=1000-1999")
    assert (near[0], near[2]) == (206, body[1000:2000])
    assert near[1]["Content-Range"] == f"bytes 1000-1999/{len(body)}"
    assert origin.asked.count("/huge.bin") == 1
    far = service.get("files/huge.bin", Range="bytes=-100")
    assert (far[0], far[2], far[1]["X-Cache"]) == (206, body[-100:], "BYPASS")
    assert origin.asked.count("/huge.bin") == 2
    origin.rate = 0
    assert head.read() == body
    stored = service.until("files/huge.bin", "HIT")
    tail = service.get("files/huge.bin", Range="bytes=-100", If_Range=stored[1]["ETag"])
    assert (tail[0], tail[2], tail[1]["X-Cache"]) == (206, body[-100:], "HIT")
    assert service.get("files/huge.bin", Range=f"bytes={len(body)}-")[0] == 416
    assert service.get("files/huge.bin", If_None_Match=stored[1]["ETag"])[0] == 304
    assert origin.asked.count("/huge.bin") == 2
    service.stop()


def test_an_old_client_gets_a_length_or_nothing(origin: Origin, start: Start) -> None:
    """HTTP/1.0 cannot tell a cut from an end: its answer has a length even if the upstream announced none."""
    origin.add("/big.bin", os.urandom(BIG))
    origin.trouble = lambda _path: "unannounced"
    service = start(*files(origin))
    response = answer(ask(service, "files/big.bin", version="1.0"))
    assert response.headers["Content-Length"] == str(BIG)
    assert response.read() == origin.body("/big.bin")
    service.stop()


def test_head_equals_get(origin: Origin, start: Start) -> None:
    """The head of a HEAD is that of the GET; asking for it does not fetch the artifact."""
    path = origin.add_wheel("alpha", "1.0")
    service = start()
    response = answer(ask(service, f"pypi{path}", method="HEAD"))
    assert (response.status, response.headers["Content-Length"]) == (200, str(len(origin.body(path))))
    assert origin.asked.count(path) <= 1
    service.get(f"pypi{path}")
    stored = service.until(f"pypi{path}", "HIT")[1]
    response = answer(ask(service, f"pypi{path}", method="HEAD"))
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Cache-Control", "Accept-Ranges"):
        assert response.headers[name] == stored[name]
    service.stop()


def test_a_release_is_seen_by_the_first_request_after_refresh_after(origin: Origin, start: Start) -> None:
    """A stored index that is older than refresh-after is revalidated before it answers."""
    origin.add_wheel("alpha", "1.0")
    service = start("--refresh-after", "0")
    assert b"alpha-2.0" not in service.get("pypi/simple/alpha/")[2]
    origin.add_wheel("alpha", "2.0")
    assert b"alpha-2.0" in service.get("pypi/simple/alpha/")[2]
    service.stop()


def test_a_file_that_the_stored_index_does_not_name_is_found(origin: Origin, start: Start) -> None:
    """Before any 404, the index is revalidated once."""
    origin.add_tarball("left", "1.0.0")
    service = start()
    service.get("npm/left")
    path = origin.add_tarball("left", "2.0.0")
    status, _, body = service.get(f"npm{path}")
    assert (status, body) == (200, origin.body(path))
    assert origin.asked.count("/left") == 2
    service.stop()


def test_what_is_withdrawn_is_gone_and_can_come_back(origin: Origin, start: Start) -> None:
    """A 404 hides the stored index, for that is how malware is taken down; a later 200 restores it."""
    origin.add_wheel("alpha", "1.0")
    service = start("--refresh-after", "0", "--ttl", "0", "--negative-ttl", "0")
    assert service.get("pypi/simple/alpha/")[0] == 200
    origin.spoil = lambda _path, _answer: (404, "text/plain", b"taken down\n")
    assert service.get("pypi/simple/alpha/")[0] == 404
    origin.spoil = lambda _path, answer: answer
    assert service.get("pypi/simple/alpha/")[0] == 200
    service.stop()


def test_everything_gone_at_once_is_a_fault(origin: Origin, start: Start) -> None:
    """An upstream that suddenly says 404 to all known names has lost its data, not withdrawn it."""
    names = [f"alpha{number}" for number in range(8)]
    for name in names:
        origin.add_wheel(name, "1.0")
    service = start("--refresh-after", "0", "--ttl", "0", "--negative-ttl", "0")
    for name in names:
        assert service.get(f"pypi/simple/{name}/")[0] == 200
    origin.spoil = lambda _path, _answer: (404, "text/plain", b"lost\n")
    statuses = [service.get(f"pypi/simple/{name}/")[0] for name in names * 2]
    assert statuses[-8:] == [200] * 8
    service.stop()


def test_a_file_too_large_to_store_is_passed_on(origin: Origin, start: Start) -> None:
    """Beyond max-file-size every client still gets it, and nothing is kept."""
    origin.add("/big.bin", os.urandom(BIG))
    service = start(*files(origin), "--max-file-size", "1M")
    for number in (1, 2):
        assert service.get("files/big.bin")[2] == origin.body("/big.bin")
        assert origin.asked.count("/big.bin") == number
    service.stop()


def test_an_artifact_without_a_proof_is_proven_when_its_index_comes(origin: Origin, start: Start) -> None:
    """Served unverified as there was nothing to hold it against; an index seen later makes it verified or drops it."""
    path = origin.add_tarball("left", "1.0.0")
    good = origin.body(path)
    bad = os.urandom(len(good))

    def only_a_bad_tarball(asked: str, found: Answer) -> Answer:
        return (200, found[1], bad) if asked == path else (404, "text/plain", b"none\n")

    origin.spoil = only_a_bad_tarball
    service = start("--negative-ttl", "0")
    assert service.get(f"npm{path}")[2] == bad
    service.until(f"npm{path}", "HIT")
    origin.spoil = lambda _path, found: found
    assert service.get("npm/left", Accept="application/vnd.npm.install-v1+json")[0] == 200
    wait_for(lambda: service.get(f"npm{path}")[2] == good)
    service.stop()


def test_a_stop_finishes_what_is_under_way(origin: Origin, start: Start) -> None:
    """On SIGTERM no new client is taken, a transfer ends whole, and the next start finds it stored."""
    origin.add("/big.bin", os.urandom(BIG))
    origin.rate = 2 << 20
    service = start(*files(origin))
    client = answer(ask(service, "files/big.bin"))
    begun = client.read(1000)
    service.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not listens(service))
    origin.rate = 0
    assert begun + client.read() == origin.body("/big.bin")
    service.stop()
    service = start(*files(origin), "--offline")
    assert service.get("files/big.bin")[2] == origin.body("/big.bin")
    assert service.get("files/other.bin")[0] == 504
    said = service.stop()
    assert "/files/other.bin: The cache is offline" in said
    assert "[regcache#warn]" not in said


def test_a_stop_does_not_wait_longer_than_its_grace(origin: Origin, start: Start) -> None:
    """What is still under way then is cut, and the client sees it."""
    origin.add("/big.bin", os.urandom(BIG))
    origin.rate = 1 << 16
    service = start(*files(origin), "--grace", "200ms")
    client = answer(ask(service, "files/big.bin"))
    client.read(1000)
    service.process.send_signal(signal.SIGTERM)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        client.read()
    service.stop()


def test_a_second_signal_ends_the_grace(origin: Origin, start: Start) -> None:
    """Whoever presses the key twice does not wait, and sees no bug reported."""
    origin.add("/big.bin", os.urandom(BIG))
    origin.rate = 1 << 16
    service = start(*files(origin), "--grace", "1m")
    client = answer(ask(service, "files/big.bin"))
    client.read(1000)
    service.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not listens(service))
    service.stop()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        client.read()


def test_a_service_that_leads_back_to_itself_says_so(start: Start) -> None:
    """A loop of upstreams ends at the first repetition, with an error for a person."""
    port = free_port()
    listen = f"tcp:{port}:interface=127.0.0.1"
    loop = start("--registries", f"files=generic+http://127.0.0.1:{port}/files/", "--listen", listen)
    status, _, _ = loop.get("files/round")
    assert status in (502, 508)
    loop.stop()


def test_nothing_of_the_client_goes_upstream(origin: Origin, start: Start) -> None:
    """Neither credentials nor addresses leave the host, and no cookie comes back."""
    origin.add_wheel("alpha", "1.0")
    service = start()
    told = {"Authorization": "Basic c2VjcmV0", "Cookie": "a=b", "X_Forwarded_For": "10.1.1.1", "Forwarded": "for=1"}
    assert service.get("pypi/simple/alpha/", **told)[0] == 200
    sent = {name.lower() for name in origin.heads[-1]}
    assert not sent & {"authorization", "cookie", "x-forwarded-for", "forwarded", "x-real-ip"}
    service.stop()
