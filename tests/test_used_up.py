"""When there are no more descriptors: clients are told to come again, and all is well once there are some."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
from collections.abc import Callable, Iterator
from email.message import Message
from urllib.parse import urlsplit

import pytest

from regcache.flow.derive import SMALL, VAST
from tests.origin import Origin
from tests.service import Running

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits a process that runs")
Start = Callable[..., Running]
JSON = "application/vnd.pypi.simple.v1+json"


def page(name: str, size: int) -> bytes:
    """A page of one file."""
    file = {"filename": f"{name}-1.zip", "url": f"{name}-1.zip", "hashes": {}}
    return json.dumps({"meta": {"api-version": "1.0"}, "name": name, "files": [file]}).encode() + b" " * size


@contextlib.contextmanager
def short(service: Running, spare: int) -> Iterator[None]:
    """So many more descriptors may the service open."""
    number, before = service.process.pid, resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir(f"/proc/{number}/fd")}
    free = [one for one in range(max(taken) + spare + 2) if one not in taken]
    resource.prlimit(number, resource.RLIMIT_NOFILE, (free[spare], before[1]))
    try:
        yield
    finally:
        resource.prlimit(number, resource.RLIMIT_NOFILE, before)


class Client:
    """A connection that stays."""

    def __init__(self, service: Running) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)

    def get(self, path: str) -> tuple[int, Message, bytes]:
        """Status, fields and body of a page."""
        self._connection.request("GET", f"/pypi/simple/{path}/", headers={"Accept": JSON})
        answer = self._connection.getresponse()
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize(("size", "missing"), [(SMALL, "helper process"), (VAST, "file for it")])
def test_nothing_can_be_opened_to_read_a_page(origin: Origin, start: Start, size: int, missing: str) -> None:
    """503 and when to come again, one line in the log, no blame for the registry; the next one is read."""
    origin.spoil = lambda path, answer: (200, JSON, page("demo", size)) if "demo" in path else answer
    service = start()
    client = Client(service)
    # Whatever a first request opens for good is open.
    assert client.get("other")[0] == 404
    with short(service, 1):
        status, headers, body = client.get("demo")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert missing in body.decode()
    assert client.get("demo")[0] == 200
    said = [line for line in service.stop().splitlines() if "demo" in line]
    assert len(said) == 1
    assert "Too many open files" in said[0]


def test_a_stored_copy_answers_meanwhile(origin: Origin, start: Start) -> None:
    """What was served once is served again, while nothing that is newer can be read."""
    said = [page("demo", SMALL)]
    origin.spoil = lambda path, answer: (200, JSON, said[0]) if "demo" in path else answer
    service = start("--ttl", "0", "--refresh-after", "0")
    client = Client(service)
    # Small ones are read without a helper, so that none runs yet.
    said[0] = page("demo", 10)
    first = client.get("demo")
    assert first[0] == 200
    said[0] = page("demo", SMALL)
    with short(service, 1):
        status, headers, body = client.get("demo")
    assert (status, headers["X-Cache"], body) == (200, "STALE", first[2])
    # The registry is not held for broken.
    assert client.get("demo")[1]["X-Cache"] == "MISS"
