"""What a probe is told: whether the store can be used, how the upstreams are, and what ends soon."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from regcache import Config
from regcache.config import Listen
from regcache.credentials import Credentials
from regcache.endings import Ending, endings
from regcache.store.holding import Condition
from tests.certificates import certificate
from tests.origin import Origin
from tests.service import Running
from tests.wire import Wire


def asked(wire: Wire, path: str = "/-/health/ready") -> tuple[int, dict[str, Any]]:
    """Status and body of what is answered there."""
    sent = wire.connect(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode()).value()
    return int(sent.split()[1]), json.loads(sent.partition(b"\r\n\r\n")[2])


def bearer(claims: object) -> str:
    """A token that says these things of itself."""
    return "Bearer e30." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".c2ln"


def test_a_running_service_is_ready_and_knows_its_upstreams(tmp_path: Path, origin: Origin) -> None:
    """Nobody has been asked at first; then one has answered; then it is in trouble, and the service is ready still."""
    origin.add_tarball("left", "1.0.0")
    service = Running(tmp_path, origin)
    try:
        _, fields, body = service.get("-/health/ready")
        assert fields["Content-Type"] == "application/json"
        found = json.loads(body)
        (upstream,) = found["upstreams"]["npm"]
        assert (found["status"], found["ending"]) == ("ready", [])
        assert found["store"] == {"writable": True, "index": "sound", "why": ""}
        assert upstream == {
            "origin": origin.url.rstrip("/"),
            "breaker": "closed",
            "seconds_since_success": None,
        }
        assert service.get("npm/left")[0] == 200
        (upstream,) = json.loads(service.get("-/health/ready")[2])["upstreams"]["npm"]
        assert upstream["seconds_since_success"] >= 0
        origin.spoil = lambda _path, _answer: (503, "text/plain", b"")
        for number in range(3):
            assert service.get(f"npm/none{number}")[0] >= 500
        status, _, body = service.get("-/health/ready")
        assert (status, json.loads(body)["upstreams"]["npm"][0]["breaker"]) == (200, "open")
    finally:
        service.stop()
        service.kill()


@pytest.mark.parametrize(
    "condition", [Condition(False, "sound", "The disk is read-only."), Condition(True, "restoring", "")]
)
def test_a_store_that_cannot_be_used_is_not_ready(condition: Condition) -> None:
    """Probes see it by the status, people by the reason; the service lives all the same."""
    wire = Wire()
    wire.house.condition = lambda: condition
    status, found = asked(wire)
    assert (status, found["status"]) == (503, "not ready")
    assert found["store"] == {"writable": condition.writable, "index": condition.index, "why": condition.why}
    assert b"ok\n" in wire.connect(b"GET /-/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").value()


def test_what_ends_soon_is_told(tmp_path: Path) -> None:
    """Certificates, of clients and of ports, and tokens that say when; what ends later is not, nor any secret."""
    file, now = str(certificate(tmp_path / "own.pem")), 1_700_000_000
    config = Config(
        listen=(Listen(f"ssl:8651:privateKey={file}:interface=\\:\\:1"), Listen("tcp:8650")),
        credentials={
            "npm": Credentials(certificate=str(tmp_path / "none.pem"), key=file),
            "pypi": Credentials(authorization=bearer({"exp": now + 86400 * 13})),
            "go": Credentials(authorization=bearer({"exp": now + 86400 * 15})),
            "maven": Credentials(authorization=bearer({"exp": now - 86400})),
        },
    )
    status, found = asked(Wire(config))
    assert status == 200
    told = {one["what"]: one["days"] for one in found["ending"]}
    assert told == {"registries.npm.client-cert": None, "registries.pypi.auth": 13.0, "registries.maven.auth": -1.0}
    assert "c2ln" not in json.dumps(found)
    (port,) = endings(config, [])
    assert port.what == "listen ssl:8651"
    assert port.ends is not None
    assert 0 < port.ends - time.time() < 86400 * 2
    assert endings(config, ["maven"])[1:] == [Ending("registries.maven.auth", now - 86400.0)]


@pytest.mark.parametrize(
    "text", ["", "Basic YTpi", "Bearer a.b.c", "Bearer a.!.c", bearer([]), bearer({"exp": "soon"})]
)
def test_tokens_that_do_not_say_when_they_end(text: str) -> None:
    """They are left alone."""
    assert endings(Config(credentials={"npm": Credentials(authorization=text)}), ["npm"]) == []


def test_huge_numbers_end_nowhere() -> None:
    """A token may say anything of itself."""
    config = Config(credentials={"npm": Credentials(authorization=bearer({"exp": -1e300}))})
    status, found = asked(Wire(config))
    assert (status, found["ending"][0]["ends"]) == (200, None)
