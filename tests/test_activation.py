"""The service as systemd starts it: by the command line of its unit, with a socket made beforehand."""

from __future__ import annotations

import configparser
import http.client
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from regcache import Config
from regcache.values import duration
from tests.origin import Origin

UNIT = Path(__file__).parent.parent / "docs" / "systemd" / "regcache.service"
#: Does what systemd does after it has forked: hands over a socket as descriptor 3, and becomes the service.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="regcache.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""


def setting(name: str) -> str:
    """What the unit says; the last one where it says it more than once."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT)
    return unit["Service"][name]


def activated(listening: socket.socket, directory: Path, registry: str) -> subprocess.Popen[str]:
    """The service on that socket, with the unit's command line and a cache directory from systemd."""
    program, *arguments = shlex.split(setting("ExecStart"))
    beside = Path(sys.executable).with_name(Path(program).name)
    environment = {
        **os.environ,
        "CACHE_DIRECTORY": str(directory),
        "REGCACHE_REGISTRIES": f"npm={registry}",
    }
    return subprocess.Popen(
        [sys.executable, "-c", HAND_OVER, str(listening.fileno()), str(beside), *arguments],
        pass_fds=[listening.fileno()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_socket_that_is_handed_over_is_served_by_one_service_after_the_other(tmp_path: Path, origin: Origin) -> None:
    """A client that connects while no service runs is answered by the next one; each ends cleanly at SIGTERM."""
    path = origin.add_tarball("left", "1.0.0")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for outcome in ("MISS", "HIT"):
            host, port = listening.getsockname()
            client = http.client.HTTPConnection(host, port, timeout=30)
            client.connect()
            service = activated(listening, tmp_path / "cache", origin.url)
            client.request("GET", f"/npm{path}")
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, origin.body(path))
            assert answer.headers["X-Cache"] == outcome
            service.terminate()
            said, _ = service.communicate(timeout=20)
            # Both are clean to systemd: see SuccessExitStatus= in systemd.service(5).
            assert service.returncode in (0, -signal.SIGTERM)
            assert "Traceback" not in said
            assert "warning" not in said
    assert (tmp_path / "cache" / "index.sqlite3").exists()


def test_a_socket_of_another_domain_is_refused(tmp_path: Path, origin: Origin) -> None:
    """Addresses would be read as what they are not: the unit serves IPv4, and ``ListenStream=8650`` makes IPv6."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        service = activated(listening, tmp_path / "cache", origin.url)
        said, _ = service.communicate(timeout=30)
    assert service.returncode == 1
    assert "regcache: systemd:domain=INET:index=0 cannot be listened on: the socket is one of domain=INET6" in said


def test_systemd_waits_longer_than_a_stop_takes() -> None:
    """Systemd's patience is well above the grace period; what then still runs is the helper process at most."""
    assert duration(setting("TimeoutStopSec")) >= 2 * Config().grace
    assert setting("KillMode") == "mixed"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_what_systemd_says_of_the_units(tmp_path: Path) -> None:
    """It finds nothing wrong in them, and the service exposed to little: at most 1.5 of 10 by its own measure."""
    for path in UNIT.parent.glob("regcache.*"):
        program = Path(sys.executable).with_name("regcache")
        text = path.read_text("utf-8").replace("/opt/regcache/bin/regcache", str(program))
        (tmp_path / path.name).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir())
    assert [Path(unit).suffix for unit in units] == [".service", ".socket"]
    for command in (["verify", "--man=no", *units], ["security", "--offline=true", "--threshold=15", units[0]]):
        run = subprocess.run(["systemd-analyze", *command], capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stderr) == (0, ""), run.stdout
