"""A service that was forked for a test is what the program would be that its users start."""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forks import Forks, program
from tests.origin import Origin
from tests.service import Running


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """A parent of its own, which has forked a process that is gone, before what the test changes."""
    made = Forks()
    first = made.start(["twistd", "--version"], Path("/"))
    assert "Twisted" in first.communicate(timeout=20)[0]
    yield made
    made.close()


@pytest.fixture
def _one_less() -> Iterator[None]:
    """Fewer descriptors may be open than before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def as_it_is(process: Any, place: Path) -> dict[str, Any]:
    """What the system knows of a service, and of the helper that it has started with its own path of modules."""
    own = Path(f"/proc/{process.pid}")
    (helper,) = (own / "task" / own.name / "children").read_text().split()
    links = []
    for one in (own / "fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(re.sub(r":\[\d+\]", "", str(one.readlink())))
    return {
        "place": (own / "cwd").readlink() == place,
        # Connections are kept, and what came is stored, as long as that takes.
        "descriptors": sorted(link for link in links if link != "socket" and not link.startswith(str(place))),
        "limits": (own / "limits").read_text(),
        "signals": re.findall(r"^Sig(?:Blk|Ign|Cgt):.*", (own / "status").read_text(), re.MULTILINE),
        "helper": sorted(Path(f"/proc/{helper}/environ").read_bytes().split(b"\0")),
    }


@pytest.mark.usefixtures("_one_less")
def test_it_is_as_the_program(forks: Forks, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the same descriptors, limits, signals and modules, is told and says the same, and ends in the same way."""
    monkeypatch.setenv("REGCACHE_ALLOW", "127.0.0.0/8,10.7.7.0/24")
    monkeypatch.setenv("LC_TIME", "C")
    origin.add_tarball("left", "1.0.0")
    # So large that the helper reads it.
    origin.add("/left", origin.body("/left") + b" " * 20_000, "application/json")
    seen = []
    for number, start in enumerate((forks.start, program)):
        monkeypatch.setattr(Running, "start", start)
        place = tmp_path / str(number)
        place.mkdir()
        service = Running(place, origin)
        try:
            assert service.get("npm/left")[0] == 200
            known = as_it_is(service.process, place)
            said = service.get("")[2] + (service.said + service.stop()).encode()
        finally:
            service.kill()
        assert b"10.7.7.0/24" in said
        known["said"] = re.sub(rb"[\d:+.]+|/\S+/", b"", said).splitlines()
        known["ended"] = service.process.returncode
        seen.append(known)
    assert seen[0] == seen[1]


def test_an_interpreter_of_its_own(forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says something to that gets the program, which hears it."""
    (tmp_path / "sitecustomize.py").write_text("print('it was heard', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = str(Path(sys.executable).with_name("twistd"))
    assert "it was heard" in forks.start([command, "--version"], tmp_path).communicate(timeout=20)[0]


def test_how_it_ends_is_told(forks: Forks, tmp_path: Path) -> None:
    """Its status, or the signal; a wait that is too long is given up."""
    refused = forks.start(["twistd", "-n", "--pidfile=", "regcache", "--listen", "tcp:70000"], tmp_path)
    assert "there is no port above 65535" in refused.communicate(timeout=20)[0]
    assert refused.returncode == 2
    refused.terminate()
    serving = forks.start(["twistd", "-n", "--pidfile=", "web", "--listen", "tcp:0:interface=127.0.0.1"], tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        serving.wait(0.01)
    assert serving.poll() is None
    serving.kill()
    assert serving.wait(20) == serving.poll() == -signal.SIGKILL
    assert serving.stdout is not None
    serving.stdout.close()
