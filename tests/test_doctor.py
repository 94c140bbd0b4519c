"""What the doctor finds: on a machine, in a network, and of a service, each with a part that really fails."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from regcache.commands import main
from regcache.doctor import itself, machine, surroundings
from regcache.doctor.finding import Finding, Level
from regcache.doctor.together import together
from regcache.doctor.upstreams import Probed, clock, probe
from regcache.http.proxies import DIRECT, Proxies
from tests.certificates import certificate, server_context
from tests.forward import ForwardProxy
from tests.origin import Origin
from tests.service import Running, free_port

FAILURE, WARNING, OK = Level.FAILURE, Level.WARNING, Level.OK


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No runtime directory but those that a test names."""
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """The port of a server that says the same to whatever it is asked; to nothing at all, if that is empty."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        said = answer(client.recv(65536))
                        client.sendall(said)
                        if not said:
                            client.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def found(findings: list[Finding], level: Level, check: str) -> list[Finding]:
    """Those of one level and check."""
    return [one for one in findings if (one.level, one.check) == (level, check)]


def only(probed: Probed, level: Level, check: str) -> Finding:
    """The last finding, which is of that level and check; nothing before it is bad."""
    *before, last = probed.findings
    assert (last.level, last.check) == (level, check), probed.findings
    assert {one.level for one in before} <= {OK}
    assert last.mend
    return last


def test_a_port_that_is_closed() -> None:
    """The name is known, the connection fails, and the doctor says so; a proxy is offered."""
    last = only(probe(f"http://127.0.0.1:{free_port()}", DIRECT, "", 5), FAILURE, "connect")
    assert "refused" in last.told
    assert "HTTPS_PROXY" in last.mend


def test_a_name_that_does_not_resolve() -> None:
    """The name is told, and where names are looked up."""
    last = only(probe("https://no-such-host.invalid", DIRECT, "", 5), FAILURE, "dns")
    assert "no-such-host.invalid has no address" in last.told
    assert "resolv.conf" in last.mend


def test_a_host_that_says_nothing() -> None:
    """It ends with the deadline."""
    with answering(lambda _: b"") as port:
        last = only(probe(f"http://127.0.0.1:{port}", DIRECT, "", 0.3), FAILURE, "answer")
    assert "nothing came in time" in last.told


def test_what_is_no_registry() -> None:
    """Something else listens there."""
    with answering(lambda _: b"SSH-2.0-x\r\n\r\n") as port:
        assert "no HTTP" in only(probe(f"http://127.0.0.1:{port}", DIRECT, "", 5), FAILURE, "answer").told
        assert "no TLS" in only(probe(f"https://127.0.0.1:{port}", DIRECT, "", 5), FAILURE, "tls").told
    with answering(lambda _: b"HTTP/1.1 503 No\r\n\r\n") as port:
        assert "503" in only(probe(f"http://127.0.0.1:{port}", DIRECT, "", 5), WARNING, "answer").told


def test_a_self_signed_certificate(tmp_path: Path) -> None:
    """It is told of, and how it is trusted if it is the right one; then it is."""
    own = certificate(tmp_path / "own.pem")
    origin = Origin(server_context(own))
    try:
        url = f"https://localhost:{origin.url.rstrip('/').rpartition(':')[2]}"
        last = only(probe(url, DIRECT, "", 5), FAILURE, "tls")
        assert "is self-signed" in last.told
        assert "--upstream-ca" in last.mend
        good = probe(url, DIRECT, str(own), 5)
        # It ends tomorrow.
        assert "days from now" in found(good.findings, WARNING, "tls")[0].told
        assert found(good.findings, OK, "answer")
        other = url.replace("localhost", "127.0.0.1")
        assert "another host" in only(probe(other, DIRECT, str(own), 5), FAILURE, "tls").told
    finally:
        origin.close()


def test_an_expired_certificate(tmp_path: Path) -> None:
    """The day is told on which it ended."""
    ended = datetime.now(UTC) - timedelta(days=2)
    own = certificate(tmp_path / "own.pem", ends=ended)
    origin = Origin(server_context(own))
    try:
        url = f"https://localhost:{origin.url.rstrip('/').rpartition(':')[2]}"
        last = only(probe(url, DIRECT, str(own), 5), FAILURE, "tls")
        assert f"has expired, on {ended:%Y-%m-%d}" in last.told
        assert "renew" in last.mend
    finally:
        origin.close()


def test_a_clock_that_is_off() -> None:
    """The upstream tells another time: with all others it is ours that is off, alone it is its own."""
    told = format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)
    with answering(lambda _: f"HTTP/1.1 200 OK\r\nDate: {told}\r\n\r\n".encode()) as port:
        offset = probe(f"http://127.0.0.1:{port}", DIRECT, "", 5).offset
    assert offset is not None
    assert 3590 * 3 < offset < 3610 * 3
    (ours,) = clock({"a": offset})
    assert (ours.level, ours.check) == (WARNING, "clock")
    assert "3 hours behind" in ours.told
    assert "ahead of" in clock({"a": -offset})[0].told
    theirs = clock({"a": offset, "b": 1.0, "c": 0.0})
    assert [(one.level, one.subject) for one in theirs] == [(WARNING, "a"), (OK, "")]
    assert clock({})[0].level is OK
    assert clock({"a": 59.0})[0].level is OK
    assert clock({"a": 61.0})[0].level is WARNING


def test_through_a_proxy(tmp_path: Path) -> None:
    """The proxy's name is looked up, the tunnel is told of, and its password is not; a wrong one is named."""
    own = certificate(tmp_path / "own.pem")
    origin = Origin(server_context(own))
    proxy, sealed = ForwardProxy(), ForwardProxy(server_context(own))
    try:
        url = f"https://localhost:{origin.url.rstrip('/').rpartition(':')[2]}"
        proxies = Proxies.of({"https_proxy": f"http://user:secret@127.0.0.1:{proxy.port}"})
        good = probe(url, proxies, str(own), 5)
        assert found(good.findings, OK, "proxy")
        assert found(good.findings, OK, "answer")
        assert "secret" not in str(good.findings)
        assert proxy.heads[0]["proxy-authorization"].startswith("Basic ")
        good = probe(url, Proxies.of({"https_proxy": sealed.url}), str(own), 5)
        assert found(good.findings, OK, "answer")
        proxy.answer = b"HTTP/1.1 407 Who are you\r\n\r\n"
        last = only(probe(url, proxies, str(own), 5), FAILURE, "proxy")
        assert "407" in last.told
        assert "password" in last.mend
        exempt = Proxies.of({"https_proxy": proxy.url, "no_proxy": "localhost"})
        last = only(probe(f"https://localhost:{free_port()}", exempt, "", 5), FAILURE, "connect")
        assert "NO_PROXY" in last.mend
        last = only(
            probe(url, Proxies.of({"https_proxy": f"http://127.0.0.1:{free_port()}"}), "", 5), FAILURE, "connect"
        )
        assert "no connection to the proxy" in last.told
    finally:
        for one in (proxy, sealed, origin):
            one.close()


@pytest.mark.parametrize(
    ("environ", "level", "told"),
    [
        ({}, OK, "none is configured"),
        ({"HTTPS_PROXY": "http://u:secret@p.example:3128"}, OK, "https://up.example through http://p.example:3128"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, WARNING, "HTTPS_PROXY and https_proxy differ"),
        (
            {"https_proxy": "http://a:1", "NO_PROXY": ".example"},
            WARNING,
            "NO_PROXY has https://up.example asked directly",
        ),
        ({"https_proxy": "http://a:1", "NO_PROXY": "a/b"}, WARNING, "'a/b' means nothing"),
        ({"http_proxy": "http://a:1"}, WARNING, "a proxy is named, but none for https"),
        ({"https_proxy": "ftp://u:secret@p"}, FAILURE, "names no proxy that can be used"),
    ],
)
def test_proxy_variables(environ: dict[str, str], level: Level, told: str) -> None:
    """What they come to is told, without what is secret in them."""
    findings = surroundings.proxies(environ, ["https://up.example"])
    assert any(told in one.told for one in findings if one.level is level), findings
    assert "secret" not in str(findings)


def test_descriptors() -> None:
    """Too few, few, nearly all in use, enough."""
    assert machine.descriptors(64, 0)[0].level is FAILURE
    assert machine.descriptors(1024, 0)[0].level is WARNING
    assert machine.descriptors(20_000, 19_000)[0].level is FAILURE
    assert machine.descriptors(20_000, 100)[0].level is OK
    assert machine.limit_of(os.getpid()) is not None
    assert machine.limit_of(0) is None


def test_the_disk(tmp_path: Path) -> None:
    """Who may look into it, what kind it is, and how much room there is."""
    place = tmp_path / "cache"
    assert {one.level for one in machine.disk(place, 0, 0)} == {OK}
    assert not place.exists()
    place.mkdir(0o755)
    assert any("mode 755" in one.told for one in found(machine.disk(place, 0, 0), WARNING, "disk"))
    place.chmod(0o700)
    before = sorted(tmp_path.rglob("*"))
    assert any("--min-free" in one.told for one in found(machine.disk(place, 1 << 60, 0), FAILURE, "disk"))
    assert any("--max-size" in one.told for one in found(machine.disk(place, 0, 1 << 60), WARNING, "disk"))
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {place} rw shared:1 - nfs4 server:/x rw\n")
    assert machine.filesystem(place, mounts) == "nfs4"
    assert machine.filesystem(tmp_path, mounts) == "ext4"
    assert any("nfs4" in one.told for one in found(machine.disk(place, 0, 0, mounts), WARNING, "disk"))
    mounts.unlink()
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "file").touch()
    assert found(machine.disk(tmp_path / "file", 0, 0), FAILURE, "disk")


def test_what_cannot_be_cut_short_is_left_behind() -> None:
    """Whoever waits for the others does not wait for one that never ends."""
    never = threading.Event()
    result = together({"never": never.wait, "good": lambda: True, "bad": lambda: [][0]}, 0.2)
    assert result["good"] is True
    assert isinstance(result["never"], TimeoutError)
    assert isinstance(result["bad"], IndexError)
    assert not never.is_set()
    never.set()


def test_a_service_that_runs(
    start: Callable[..., Running], origin: Origin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked where it listens, and its own limit is looked at; without one, its ports are."""
    service = start()
    command = ["doctor", "--json", "--timeout", "5"]
    command += ["--config", str(tmp_path / "regcache.toml"), "--cache-dir", str(tmp_path / "cache")]
    # The disk of whoever tests this may be nearly full.
    with contextlib.suppress(SystemExit):
        main(command)
    said = json.loads(capsys.readouterr().out)
    assert [one for one in said["findings"] if one["level"] == "failure"] == []
    told = [(one["level"], one["check"], one["subject"]) for one in said["findings"]]
    assert ("ok", "service", service.url) in told
    assert ("ok", "service", f"{service.url}pypi/") in told
    assert ("ok", "answer", origin.url.rstrip("/")) in told
    assert {check for _, check, _ in told} >= {"configuration", "proxies", "dns", "disk", "descriptors", "clock"}
    service.stop()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = ["--listen", f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"]
        few = ["sh", "-c", 'ulimit -n 100 && exec "$@"', "sh", str(Path(sys.executable).with_name("regcache"))]
        ended = subprocess.run([*few, *command, *listen], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "")
    findings = json.loads(ended.stdout)["findings"]
    failed = [one for one in findings if one["level"] == "failure"]
    assert [one["check"] for one in failed] == ["descriptors", "ports"]
    assert all(one["mend"] for one in failed)
    assert any("does not run" in one["told"] for one in findings if one["level"] == "warning")


@pytest.mark.parametrize(
    ("status", "level"), [(200, OK), (401, OK), (403, WARNING), (421, WARNING), (503, FAILURE), (500, FAILURE)]
)
def test_what_the_service_answers(status: int, level: Level) -> None:
    """Whether that is well, and what to do else; one that does not answer has failed."""
    with answering(lambda _: f"HTTP/1.1 {status} X\r\n\r\n".encode()) as port:
        (one,) = itself.health(f"http://127.0.0.1:{port}/npm/", "npm", 5)
        assert (one.level, one.subject) == (level, f"http://127.0.0.1:{port}/")
        assert bool(one.mend) is (level is not OK)
        (one,) = itself.answers(f"http://127.0.0.1:{port}/npm/", "npm", 5)
        assert one.level is level
        assert ("asks who one is" in one.told) is (status == 401)
    assert itself.answers(f"http://127.0.0.1:{free_port()}/npm/", "npm", 5)[0].level is FAILURE


@pytest.mark.parametrize("wrong", ["0", "nan", "soon", "601"])
def test_a_timeout_that_is_wrong(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with one line."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--timeout", wrong])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_configuration_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a finding like any other."""
    (tmp_path / "regcache.toml").write_text('ttl = "soon"\n')
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--config", str(tmp_path / "regcache.toml")])
    assert ended.value.code == 1
    assert "failure  configuration" in capsys.readouterr().out
