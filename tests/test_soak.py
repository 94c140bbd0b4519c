"""
Load and long runs: whole under the marker ``soak``, and in a short form always.

Every figure is printed, for the record: ``pytest -m soak -s tests/test_soak.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable

import pytest

from tests.load import Client, Usage, connect, descriptors_for, latencies, memory, open_files, percentile, request
from tests.origin import Answer, Origin
from tests.service import Running

Start = Callable[..., Running]
#: What an idle connection, and a client that reads slowly, may cost in bytes of memory. Stated in docs/limits.md.
IDLE_BYTES, SLOW_BYTES = 16 << 10, 256 << 10
#: A short form for every run, and the whole.
SIZES = [pytest.param(False, id="short"), pytest.param(True, id="whole", marks=pytest.mark.soak)]
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 8)]


def say(text: str) -> None:
    """A figure for the record."""
    os.write(1, f"\n  {text}\n".encode())


def settled(service: Running, wanted: int, seconds: float = 20) -> list[str]:
    """Its descriptors, once they are so few again, or after that many seconds all the same."""
    end = time.monotonic() + seconds
    while len(found := open_files(service)) > wanted and time.monotonic() < end:
        time.sleep(0.02)
    return found


def figures(service: Running, path: str, number: int) -> str:
    """How long a stored file takes now."""
    found = latencies(service, path, number)
    return f"hit p50 {percentile(found, 0.5) * 1000:.2f} ms, p99 {percentile(found, 0.99) * 1000:.2f} ms"


@pytest.mark.parametrize("whole", SIZES)
def test_idle_connections(origin: Origin, start: Start, whole: bool) -> None:
    """Each costs a descriptor and a few KiB, for as long as it is there; when all are gone, nothing is left of them."""
    number, rounds = (10_000, 5) if whole else (300, 1)
    descriptors_for(number + 2000)
    path = origin.add_tarball("left", "1.0.0")
    service = start()
    service.until(f"npm{path}", "HIT")
    say(figures(service, f"npm{path}", 200))
    usage, before = Usage(service), len(open_files(service))
    clients = [Client(service, ADDRESSES[at % len(ADDRESSES)]) for at in range(number)]
    for _ in range(rounds):
        began = time.monotonic()
        for client in clients:
            assert client.get(f"npm{path}")[0] == 200
        bytes_more, files_more = usage.more()
        assert number - 20 <= files_more <= number + 20
        assert bytes_more < number * IDLE_BYTES + (8 << 20)
        say(f"{number} idle: {bytes_more / number / 1024:.1f} KiB each, {figures(service, f'npm{path}', 200)}")
        time.sleep(max(0.0, began + 30 - time.monotonic()) if whole else 0)
    for client in clients:
        client.close()
    assert len(settled(service, before)) <= before
    service.stop()


@pytest.mark.parametrize("whole", SIZES)
def test_slow_readers(origin: Origin, start: Start, whole: bool) -> None:
    """Who reads slowly costs a piece of the body, whatever that has, and holds nobody up."""
    number, seconds = (1000, 120) if whole else (40, 0.5)
    descriptors_for(number * 3)
    body = os.urandom(8 << 20)
    origin.add("/big.bin", body)
    small = origin.add_tarball("left", "1.0.0")
    service = start("--registries", f"npm={origin.url},files=generic+{origin.url}")
    for path in ("files/big.bin", f"npm{small}"):
        service.until(path, "HIT")
    usage, before = Usage(service), len(open_files(service))
    slow = [connect(service, ADDRESSES[at % len(ADDRESSES)], 4096) for at in range(number)]
    for one in slow:
        one.sendall(request("files/big.bin"))
    end, read = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for one in slow:
            read += len(one.recv(1024))
        bytes_more, files_more = usage.more()
        assert files_more <= 2 * number + 20
        assert bytes_more < number * SLOW_BYTES + (16 << 20)
        time.sleep(0.5)
    say(f"{number} slow readers: {bytes_more / number / 1024:.0f} KiB, {files_more / number:.2f} descriptors each")
    say(figures(service, f"npm{small}", 100))
    for one in slow:
        one.close()
    assert len(settled(service, before)) <= before
    service.stop()


@pytest.mark.parametrize("whole", SIZES)
def test_many_cold_artifacts(origin: Origin, start: Start, whole: bool) -> None:
    """Everybody gets his own, right and whole, though the registry is asked for few at a time."""
    number = 500 if whole else 80
    descriptors_for(number * 4)
    bodies = {f"/cold/{at}.bin": os.urandom(1 << 18) for at in range(number)}
    for path, body in bodies.items():
        origin.add(path, body)
    origin.latency = 0.05
    service = start("--registries", f"files=generic+{origin.url}")
    service.get("files/none.bin")
    usage, before = Usage(service), len(open_files(service))
    results: dict[str, tuple[int, bytes]] = {}

    def fetch(path: str, address: str) -> None:
        client = Client(service, address)
        results[path] = client.get(f"files{path}", "Connection: close")
        client.close()

    began = time.monotonic()
    threads = [
        threading.Thread(target=fetch, args=(path, ADDRESSES[at % len(ADDRESSES)])) for at, path in enumerate(bodies)
    ]
    for thread in threads:
        thread.start()
    most = (0, 0)
    while any(thread.is_alive() for thread in threads):
        most = tuple(map(max, most, usage.more()))  # type: ignore[assignment]
        time.sleep(0.05)
    assert {path: answer[1] == bodies[path] for path, answer in results.items()} == dict.fromkeys(bodies, True)
    assert most[1] <= 3 * number + 20
    say(f"{number} cold: {time.monotonic() - began:.1f} s, at most {most[0] >> 20} MiB and {most[1]} descriptors more")
    # Connections to the registry are kept for a while.
    assert len(settled(service, before + 64)) <= before + 64
    service.stop()


def test_one_connection_too_many(start: Start) -> None:
    """503 with Retry-After at once, to a client that has sent its request already, and one that goes frees a place."""
    service = start("--max-connections", "10", "--allow", "127.0.0.0/8,10.0.0.0/8")
    held = [connect(service, ADDRESSES[at]) for at in (0, 0, 0, 0, 0, 1, 1, 1, 1)]
    for address in (ADDRESSES[0], ADDRESSES[2]):
        last = connect(service, address)
        last.sendall(request("-/health") * 50)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := last.recv(1 << 16):
                received += piece
                if address == ADDRESSES[2]:
                    break
        if address == ADDRESSES[0]:
            assert received.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 5\r\n" in received
            assert b"5 connections of 127.0.0.2" in received
        else:
            assert received.startswith(b"HTTP/1.1 200 ")
            last.close()
    for one in held:
        one.close()
    assert service.get("-/health")[0] == 200
    service.stop()


def test_more_connections_than_descriptors(start: Start) -> None:
    """The operator is told in one line, before anything is opened."""
    service = start("--max-connections", "900000")
    assert "raise the limit" in service.said
    assert "Traceback" not in service.said
    assert service.url == ""
    assert service.process.wait(20) == 1


# Everything at once.

PROJECTS = [f"p{number}" for number in range(12)]


class Trouble:
    """Faults in the registry, at random, while ``on``."""

    def __init__(self, seed: int) -> None:
        self.on = False
        self._chance = random.Random(seed)

    def trouble(self, _path: str) -> str:
        """In mid-body."""
        return self._chance.choice(["cut", "unannounced", "", "", "", ""]) if self.on else ""

    def spoil(self, _path: str, answer: Answer) -> Answer:
        """In place of an answer."""
        if not self.on or self._chance.random() > 0.25:
            return answer
        fault = self._chance.randrange(7)
        return {
            0: (500, "text/plain", b"broken\n"),
            1: (429, "text/plain", b"slow down\n"),
            2: (200, "text/html", b"<html><title>Log in</title></html>"),
            3: (200, "application/json", b"{}"),
            4: (404, "text/plain", b"none\n"),
            5: (403, "text/plain", b"no\n"),
            6: (answer[0], answer[1], answer[2][:-1] + b"?"),
        }[fault]


def mixed(
    service: Running, paths: list[str], bodies: dict[str, bytes], seed: int, end: float, seen: Counter[int]
) -> None:
    """One client after another, each of another kind, until the time is up; a wrong byte is an error."""
    chance = random.Random(seed)
    while time.monotonic() < end:
        path = chance.choice(paths)
        with contextlib.suppress(ConnectionError):
            kind = chance.randrange(8)
            client = Client(service, ADDRESSES[seed % len(ADDRESSES)])
            try:
                if kind == 0:
                    client.socket.sendall(request(path))
                elif kind == 1:
                    client.socket.sendall(request(path)[:-3])
                elif kind == 2:
                    client.socket.sendall(request(path, method="HEAD"))
                    client.socket.recv(100)
                elif kind == 3:
                    client.socket.sendall(os.urandom(50) + b"\r\n\r\n")
                    client.socket.recv(100)
                elif kind == 4:
                    status, _ = client.get(path, "Range: bytes=5-20", "Accept-Encoding: gzip")
                    seen[status] += 1
                else:
                    status, body = client.get(path)
                    seen[status] += 1
                    if status == 200 and path in bodies:
                        assert body == bodies[path], path
            except IndexError:
                seen[0] += 1  # an answer of unknown length
            except TimeoutError:
                raise AssertionError(f"{path} hangs ({kind})") from None
            finally:
                client.close()


@pytest.mark.parametrize("whole", SIZES)
def test_large_bodies(origin: Origin, start: Start, whole: bool) -> None:
    """One that is far larger than any memory that it may take comes whole, to several at once and from the disk."""
    body = random.Random(0).randbytes(1 << 20) * (1024 if whole else 48)
    digest = hashlib.blake2b(body, digest_size=32).hexdigest()
    path = f"packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/big-1.0.tar.gz"
    origin.add(f"/{path}", body)
    service = start()
    service.get("pypi/simple/none/")
    usage = Usage(service)
    results: list[str] = []

    def ask() -> None:
        found = hashlib.blake2b(digest_size=32)
        with urllib.request.urlopen(f"{service.url}pypi/{path}", timeout=120) as answer:
            while piece := answer.read(1 << 18):
                found.update(piece)
        results.append(found.hexdigest())

    most = 0
    for number in (3, 1):
        clients = [threading.Thread(target=ask) for _ in range(number)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            most = max(most, usage.more()[0])
            clients[0].join(0.05)
        for client in clients:
            client.join()
    assert results == [digest] * 4
    assert origin.asked.count(f"/{path}") == 1
    say(f"a body of {len(body) >> 20} MiB: {most / (1 << 20):.1f} MiB of memory more at most")
    assert most < 32 << 20
    service.stop()


@pytest.mark.parametrize("whole", SIZES)
def test_mixed_traffic_with_faults(origin: Origin, start: Start, whole: bool) -> None:
    """However much went wrong, in the end there are as many descriptors as before, and memory within a tenth."""
    seconds, workers = (240, 16) if whole else (2, 6)
    trouble = Trouble(7)
    origin.trouble, origin.spoil, origin.lasting = trouble.trouble, trouble.spoil, False
    wheels = [origin.add_wheel(name, "1.0") for name in PROJECTS]
    tarballs = [origin.add_tarball(name, "1.0.0", {"data": os.urandom(300_000)}) for name in PROJECTS]
    for at in range(4):
        origin.add(f"/f{at}.bin", os.urandom(700_000))
    bodies = {f"pypi/files{path.removeprefix('/packages')}": origin.body(path) for path in wheels}
    bodies |= {f"npm{path}": origin.body(path) for path in tarballs}
    paths = [*bodies, *(f"pypi/simple/{name}/" for name in [*PROJECTS, "none"]), *(f"npm/{name}" for name in PROJECTS)]
    paths += [f"files/f{at}.bin" for at in range(4)]
    service = start(
        *("--registries", f"npm={origin.url},pypi={origin.url}simple/,files=generic+{origin.url}"),
        *("--ttl", "50ms", "--refresh-after", "20ms", "--negative-ttl", "20ms", "--max-size", "12M"),
        *("--upstream-timeout", "300ms", "--cold-timeout", "500ms", "--idle-timeout", "1s"),
    )
    # What is logged is looked at in the end; the least of it is what a pipe holds.
    lines: list[str] = []
    assert service.process.stdout is not None
    reading = threading.Thread(target=lines.extend, args=(service.process.stdout,), daemon=True)
    reading.start()
    seen: Counter[int] = Counter()
    failed: list[BaseException] = []

    def work(seed: int, end: float) -> None:
        try:
            mixed(service, paths, bodies, seed, end, seen)
        except BaseException as error:
            failed.append(error)

    def run(length: float) -> None:
        end = time.monotonic() + length
        threads = [threading.Thread(target=work, args=(seed, end)) for seed in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # What an index was never seen to vouch for may be anything.
    for name in PROJECTS:
        assert service.get(f"pypi/simple/{name}/")[0] == service.get(f"npm/{name}")[0] == 200
    trouble.on = True
    run(max(seconds / 4, 2))
    before = min(len(settled(service, 0, 2 if whole else 1)) for _ in range(2))
    first = memory(service)
    run(seconds)
    after = settled(service, before)
    last = memory(service)
    say(
        f"{sum(seen.values())} answers {dict(sorted(seen.items()))}: descriptors {before} and {len(after)},"
        f" memory {first / (1 << 20):.1f} and {last / (1 << 20):.1f} MiB"
    )
    assert failed == []
    assert seen[500] == 0
    assert len(after) <= before, after
    assert last <= first * (1.1 if whole else 1.3)
    trouble.on = False
    service.process.terminate()
    service.process.wait(20)
    reading.join(20)
    assert not [line for line in lines if "bug ended" in line or "Traceback" in line]
