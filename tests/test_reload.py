"""SIGHUP: a running service takes over its configuration and its certificates, and drops nobody."""

from __future__ import annotations

import http.client
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from attrs import fields
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from regcache.config import Config
from regcache.errors import ConfigError
from regcache.reload import LIVE
from regcache.renewal import Renewable, Renewal
from regcache.settings import OPTIONS
from tests.certificates import certificate, server_context
from tests.origin import Origin
from tests.service import Running, free_port
from tests.test_activation import setting
from tests.test_supervised import manager
from tests.test_supervised import told as told_to

ROOT = Path(__file__).parent.parent
READ = "The configuration was read again"
NOT_TAKEN = "The configuration is not taken over"
Start = Callable[..., Running]
#: Does what a terminal does: becomes a program of its own session, whose terminal standard input is.
ON_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def configure(directory: Path, origin: Origin, text: str = "", tables: str = "") -> None:
    """What the service's file says from now on."""
    named = tables or f'[registries.npm]\nurl = "{origin.url}"\n'
    (directory / "regcache.toml").write_text(f"{text}\n{named}")


def until(process: subprocess.Popen[str], text: str) -> list[str]:
    """What a service says up to a line with that text."""
    assert process.stdout is not None
    lines = []
    patience = threading.Timer(60, process.kill)
    patience.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if text in line:
                return lines
    finally:
        patience.cancel()
    raise AssertionError(f"It ended without saying {text!r}: {lines}")


def reload(service: Running, text: str = READ) -> list[str]:
    """Have the service reload; what it says of that."""
    service.process.send_signal(signal.SIGHUP)
    return until(service.process, text)


@contextmanager
def asking(service: Running, path: str) -> Iterator[http.client.HTTPResponse]:
    """A response of which only the head has been read."""
    host, _, port = service.url.removeprefix("http://").rstrip("/").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request("GET", f"/{path}")
        yield connection.getresponse()
    finally:
        connection.close()


def test_a_transfer_goes_on_and_the_next_request_sees_what_is_new(tmp_path: Path, origin: Origin, start: Start) -> None:
    """In mid-download all of it changes: that ends whole, and lifetimes, registries and networks are the new ones."""
    big = os.urandom(2 << 20)
    origin.add("/big.bin", big)
    origin.add_tarball("left", "1.0.0")
    origin.add("/simple/linked/", b'<a href="https://other.example/x.whl">x</a>', "text/html")
    tables = f'[registries.npm]\nurl = "{origin.url}"\n[registries.files]\ntype = "generic"\nurl = "{origin.url}"\n'
    pypi = f'[registries.pypi]\nurl = "{origin.url}simple/"\n'
    service = start("--refresh-after", "off")
    assert service.get("pypi/simple/linked/")[0] == 200
    configure(tmp_path, origin, "strict-links = true", pypi)
    reload(service)
    assert service.get("pypi/simple/linked/")[0] == 502
    configure(tmp_path, origin, tables=tables)
    assert "changed: registries, strict-links." in reload(service)[-1]
    assert service.get("npm/left")[1]["X-Cache"] == "MISS"
    service.until("npm/left", "HIT")
    assert service.get("pypi/simple/alpha/")[0] == 404
    origin.rate = 1 << 20
    with asking(service, "files/big.bin") as response:
        began = response.read(1 << 16)
        # Nor is the registry itself there any more, of which it is fetched.
        configure(tmp_path, origin, 'ttl = "0"\nmax-size = "5G"')
        said = reload(service)
        assert "changed: registries, max-size, ttl." in said[-1]
        assert service.get("files/big.bin")[0] == 404
        assert service.get("npm/left")[1]["X-Cache"] == "REVALIDATED"
        origin.rate = 0
        assert began + response.read() == big
    configure(tmp_path, origin, "offline = true")
    reload(service)
    assert service.get("npm/never")[0] == 504
    configure(tmp_path, origin, 'allow = "10.0.0.0/8"')
    reload(service)
    assert service.get("npm/left")[0] == 403
    service.stop()


def test_an_open_connection_is_judged_by_the_new_rules(tmp_path: Path, origin: Origin, start: Start) -> None:
    """Also where the answer is ready in memory, since another may have it."""
    origin.add_tarball("left", "1.0.0")
    service = start()
    port = int(service.url.rstrip("/").rpartition(":")[2])
    before, after = (
        http.client.HTTPConnection("127.0.0.1", port, 20, source_address=(address, 0))
        for address in ("127.0.0.1", "127.0.0.2")
    )

    def status(connection: http.client.HTTPConnection) -> int:
        connection.request("GET", "/npm/left")
        with connection.getresponse() as response:
            response.read()
            return response.status

    assert {status(before) for _ in range(3)} == {200}
    configure(tmp_path, origin, 'allow = "127.0.0.2"')
    reload(service)
    assert {status(after) for _ in range(3)} == {200}
    assert status(before) == 403
    before.close()
    after.close()
    service.stop()


def test_a_wrong_file_changes_nothing(tmp_path: Path, origin: Origin, start: Start) -> None:
    """All of it is checked before any of it counts; one line says what is wrong. A right one may follow."""
    origin.add_tarball("left", "1.0.0")
    service = start("--scrub", "off", "--client-no-cache", "ignore")
    service.get("npm/left")
    for text, tables, why in (
        ('allow = "10.0.0.0/8"\nttl = "soon"', "", "ttl: 'soon' is not right"),
        ('allow = "10.0.0.0/8"', "[registries.nodejs]\n", "There is no registry type 'nodejs'"),
        ('allow = "10.0.0.0/8"\n[[', "", "is not TOML"),
        ('allow = "10.0.0.0/8"\nmax-connections = 99999999', "", "connections are too many"),
        ('allow = "10.0.0.0/8"\naccess-log = "/nowhere/log"', "", "/nowhere/log cannot be written"),
        ('allow = "10.0.0.0/8"\nupstream-ca = "/nowhere.pem"', "", "upstream-ca"),
    ):
        configure(tmp_path, origin, text, tables)
        said = reload(service, NOT_TAKEN)
        assert why in said[-1]
        assert said[-1].endswith("What was in force before still is.\n")
        assert service.get("npm/left")[0] == 200
    (tmp_path / "regcache.toml").unlink()
    assert "No such file" in reload(service, NOT_TAKEN)[-1]
    configure(tmp_path, origin)
    reload(service)
    assert "Traceback" not in service.stop()


def test_what_only_a_restart_brings_and_a_terminal_that_is_closed(tmp_path: Path, origin: Origin) -> None:
    """The one is named in one line, while all else counts at once; by the other SIGHUP means the end, in order."""
    port = free_port()

    def text(directory: str, port: int) -> str:
        return f'cache-dir = "{tmp_path / directory}"\nlisten = "tcp:{port}:interface=127.0.0.1"\n'

    configure(tmp_path, origin, text("cache", port))
    serving = [str(Path(sys.executable).with_name("regcache")), "serve", "--config", str(tmp_path / "regcache.toml")]
    command = [sys.executable, "-c", ON_TERMINAL, *serving]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        os.close(theirs)
        until(process, "cache in")
        configure(tmp_path, origin, text("elsewhere", free_port()) + 'scrub = "1d"\nhosts = "*"\n')
        process.send_signal(signal.SIGHUP)
        assert "of: listen, cache-dir, scrub." in until(process, "Only a restart")[-1]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"GET /-/health HTTP/1.1\r\nHost: any.example\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        os.close(ours)
        until(process, "Server Shut Down")
        assert process.wait(20) == 0
    assert not (tmp_path / "elsewhere").exists()


def test_every_key_is_decided_about() -> None:
    """What can change live are keys that there are, and the page names all others."""
    names = {one.name for one in fields(Config)}
    assert names >= LIVE
    fixed = {option.name for option in OPTIONS if option.attribute not in LIVE}
    page = (ROOT / "docs" / "reload.md").read_text("utf-8")
    found = re.search(r"Only a restart changes (.+?)\.", page, re.DOTALL)
    assert found is not None
    assert set(re.findall(r"`([a-z-]+)`", found[1])) == fixed


def test_certificates_and_the_access_log(tmp_path: Path) -> None:
    """Our own certificate, the one that is trusted and the log are renewed; a broken one is said, and not used."""
    trusted, own = tmp_path / "trusted.pem", tmp_path / "own.pem"
    certificate(trusted, "stranger")
    first = certificate(own).read_bytes()
    origin = Origin(server_context(certificate(tmp_path / "origin.pem")))
    log = tmp_path / "access.log"
    port = free_port()
    more = ("--listen", "tcp:0:interface=127.0.0.1", "--listen", f"ssl:{port}:interface=127.0.0.1:privateKey={own}")
    tables = f'[registries.npm]\nurl = "{origin.url}"\n'
    service = Running(
        tmp_path, origin, *more, "--upstream-ca", str(trusted), "--access-log", str(log), "--refresh-after", "off",
        tables=tables,
    )  # fmt: skip
    origin.add_tarball("left", "1.0.0")

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", port))

    try:
        with asking(service, "npm/left") as refused:
            assert refused.status == 502
        with socket.create_connection(("127.0.0.1", port)) as raw:
            before = shown()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(raw) as open_before:
                log.rename(tmp_path / "access.old")
                second = certificate(own).read_bytes()
                assert second != first
                trusted.write_bytes((tmp_path / "origin.pem").read_bytes())
                said = "".join(reload(service))
                assert "upstream-ca: its files have changed" in said
                assert log.exists()
                open_before.sendall(b"GET /-/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert open_before.recv(100).startswith(b"HTTP/1.1 200")
        after = shown()
        assert before in first.decode()
        assert after in second.decode()
        assert service.get("npm/left")[0] == 200
        trusted.write_text("-----BEGIN CERTIFICATE-----\n")
        own.write_bytes(first[: len(first) // 2] + second[len(second) // 2 :])
        said = "".join(reload(service, NOT_TAKEN))
        assert re.search(rf"#error\] upstream-ca: {trusted}.*still is\.\n", said)
        assert re.search(rf"#error\] listen ssl:.*{own}.*still is\.\n", said)
        assert shown() == after
        origin.add_tarball("right", "1.0.0")
        assert service.get("npm/right")[0] == 200
        trusted.write_bytes((tmp_path / "origin.pem").read_bytes())
        configure(tmp_path, origin, "", f'{tables}auth = "bearer another"\nshared = true\n')
        reload(service)
        assert service.get("npm/absent")[0] == 404
        assert origin.heads[-1]["authorization"] == "Bearer another"
        service.stop()
    finally:
        service.kill()
        origin.close()
    old, new = ((tmp_path / name).read_text() for name in ("access.old", "access.log"))
    assert re.findall(r"/npm/(\w+)", old + new) == ["left", "left", "right", "absent"]
    assert re.findall(r"/npm/(\w+)", new)[-3:] == ["left", "right", "absent"]


def test_at_any_time(tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is ready and while it stops SIGHUP is safe, many at once are a few; its manager is told in order."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    origin.add("/big.bin", os.urandom(1 << 20))
    tables = f'[registries.files]\ntype = "generic"\nurl = "{origin.url}"\n'
    with manager(str(tmp_path / "notify")) as made:
        service = Running(tmp_path, origin, tables=tables)
        try:
            # What it has said is said before the reactor runs.
            reload(service)
            assert made.recv(100) == b"READY=1"
            told_to(made)
            made.settimeout(20)
            for _ in range(20):
                service.process.send_signal(signal.SIGHUP)
            until(service.process, READ)
            reloading = made.recv(100).decode()
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading)
            origin.rate = 1 << 19
            with asking(service, "files/big.bin") as response:
                response.read(1)
                service.process.terminate()
                while made.recv(100) != b"STOPPING=1":
                    pass
                service.process.send_signal(signal.SIGHUP)
                origin.rate = 0
                assert len(response.read()) == (1 << 20) - 1
            rest, _ = service.process.communicate(timeout=20)
            told = told_to(made)
        finally:
            service.kill()
    assert service.process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in rest
    # One more of the twenty may have been heard before; SIGTERM is reported before anything stops.
    _before, stopped, after = rest.partition(f"Port {urlsplit(service.url).port} Closed")
    assert stopped
    assert READ not in after
    assert told == []


def test_a_healthy_day_is_quiet(tmp_path: Path, origin: Origin, start: Start) -> None:
    """Fills, hits, revalidations, what is not there, a reload and the stop: nothing at warning level or above."""
    wheel, tarball = origin.add_wheel("alpha", "1.0", sidecar=True), origin.add_tarball("left", "1.0.0")
    service = start("--ttl", "1h", "--refresh-after", "1ms", "--access-log", str(tmp_path / "log"))
    for _ in range(3):
        for path in ("pypi/simple/alpha/", f"pypi{wheel}", f"pypi{wheel}.metadata", "npm/left", f"npm{tarball}"):
            assert service.get(path)[0] == 200
        for path in ("npm/none", "pypi/simple/none/"):
            assert service.get(path)[0] == 404
    assert service.get("npm/left", If_None_Match=service.get("npm/left")[1]["ETag"])[0] == 304
    assert service.get(f"npm{tarball}", Range="bytes=0-9")[0] == 206
    assert service.get("")[0] == service.get("-/health/ready")[0] == 200
    configure(tmp_path, origin)
    said = reload(service)
    text = service.said + "".join(said) + service.stop()
    assert "#info]" in text
    assert re.findall(r".*#(?:warn|error|critical)\].*|.*warning.*", text, re.IGNORECASE) == []


def test_files_are_looked_at_every_minute(tmp_path: Path) -> None:
    """What has changed is read and used; what cannot be is said once; nothing is read that is as it was."""
    file, used, clock = tmp_path / "file", [], Clock()
    file.write_text("first")

    def read() -> Callable[[], object]:
        text = file.read_text()
        if text == "broken":
            raise ConfigError("It is broken.")
        return lambda: used.append(text)

    renewal = Renewal(clock, lambda: [Renewable("the file", (str(file),), read)])
    renewal.start()
    with capturedLogs() as logged:
        for text in ("first", "second", "broken", "broken", "third!"):
            if file.read_text() != text:
                file.write_text(text)
            clock.advance(60)
    assert used == ["second", "third!"]
    said = [formatEvent(event) for event in logged]
    assert said[1] == "the file: It is broken. What was in use before still is."
    assert len(said) == 3
    renewal.stop()
    assert clock.getDelayedCalls() == []


def test_what_is_read_while_it_stops_is_not_used(tmp_path: Path) -> None:
    """A slow disk does not bring something into a service that has ended."""
    file, used = tmp_path / "file", []
    file.write_text("first")
    waiting: list[tuple[Deferred[Any], Any]] = []

    def later(work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        waiting.append((Deferred(), work(*args)))
        return waiting[-1][0]

    renewal = Renewal(Clock(), lambda: [Renewable("it", (str(file),), lambda: lambda: used.append(1))], later)
    looked = renewal.look()
    renewal.stop()
    waiting[0][0].callback(waiting[0][1])
    assert looked.called
    assert used == []


def test_the_unit_reloads() -> None:
    """systemd sends what the service understands."""
    assert setting("ExecReload") == "/bin/kill -HUP $MAINPID"
