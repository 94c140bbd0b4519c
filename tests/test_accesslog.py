"""The access log: what its lines say, where they go, and that no request pays for them."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from regcache import accesslog
from regcache.accesslog import AccessLog, Target
from regcache.config import Config
from regcache.errors import ConfigError
from regcache.lines import FORMATS, Line, _again
from tests.origin import Origin
from tests.service import Running
from tests.test_web import get, send

#: How the field's tools read the combined form; what stands behind it is not theirs.
COMBINED = re.compile(
    r'(\S+) - (\S+) \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "((?:[^"\\]|\\.)*)" (\d{3}) (\d+)'
    r' "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"(?: "((?:[^"\\]|\\.)*)")+'
)
combined, as_json = FORMATS["combined"], FORMATS["json"]
HOSTILE = ['/a" 200 5 "-" "HIT', "/a\nb", "/a\r\nb", "/a\\", "/\x1b[2J", "/\u2028", "/\x85", "/ä", "/\0"]


def line(**more: Any) -> Line:
    """A request that was no hit."""
    said = {"when": 0.0, "client": "::1", "method": "GET", "target": "/a", "status": 200, "sent": 5, "outcome": "miss"}
    return Line(**{**said, "upstream_seconds": 0.25, "seconds": 0.5, **more})


def written(target: Target | Path, *lines: Line) -> AccessLog:
    """Write these lines there, and stop."""
    log = AccessLog(Clock(), target if isinstance(target, Target) else Target(where=str(target)))
    log.open()
    for one in lines:
        log.note(FORMATS[log._target.form](one))
    done: Deferred[None] = ensureDeferred(log.stop())
    assert done.called
    return log


def test_a_combined_line() -> None:
    """As Apache writes it, and behind it in quotes: id, registry, package, outcome, upstream time, time."""
    full = line(user="ann", agent="pip/24", referer="", request_id="x-1", registry="pypi", package="left")
    assert combined(full) == (
        '::1 - ann [01/Jan/1970:00:00:00 +0000] "GET /a HTTP/1.1" 200 5 "-" "pip/24"'
        ' "x-1" "pypi" "left" "miss" "0.250" "0.500"'
    )
    bare = combined(line(client="", upstream_seconds=None))
    assert bare.startswith('unix - - [01/Jan/1970:00:00:00 +0000] "GET /a')
    assert bare.endswith(' "-" "-" "-" "-" "-" "miss" "-" "0.500"')


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.00049999999, 0.0005, 0.00050000001, 0.0015, 12.3456, -0.001])
def test_how_long_it_took(seconds: float) -> None:
    """In thousandths of a second, as they are rounded elsewhere."""
    assert combined(line(seconds=seconds)).endswith(f' "{seconds:.3f}"')
    assert as_json(line(seconds=seconds)).endswith(f": {round(seconds, 3)!r}}}")


def test_a_json_line() -> None:
    """One object, whose keys are always there; what is not known is null."""
    full = json.loads(as_json(line(registry="npm", package="left", cache_status="regcache; fwd=uri-miss")))
    assert full["time"] == "1970-01-01T00:00:00.000Z"
    assert (full["registry"], full["package"], full["outcome"], full["bytes"]) == ("npm", "left", "miss", 5)
    assert (full["cache_status"], full["upstream_seconds"]) == ("regcache; fwd=uri-miss", 0.25)
    assert full["user"] is None
    assert json.loads(as_json(line(upstream_seconds=None))).keys() == full.keys()


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["method", "target", "protocol", "referer", "agent", "user", "package"])
def test_nobody_writes_a_line_of_their_own(field: str, text: str) -> None:
    """What others sent stays in its place, in one line of printable ASCII, in both forms."""
    hostile = line(**{field: text})
    for write in FORMATS.values():
        told = write(hostile)
        assert told.isprintable()
        assert told.isascii()
    assert json.loads(as_json(hostile)).keys() == json.loads(as_json(line())).keys()
    found = COMBINED.fullmatch(combined(hostile))
    assert found is not None
    assert (found[5], found[6], combined(hostile).split('"')[-4]) == ("200", "5", "0.250")


def test_no_secret_is_written() -> None:
    """Neither from an address nor from a field, in both forms."""
    url = "https://ann:hunter2@host/x?token=hunter2"
    for write in FORMATS.values():
        told = write(line(target=url, referer=url, agent="Bearer hunter2hunter2"))
        assert "host/x" in told
        assert "hunter2" not in told


def test_rotation(tmp_path: Path) -> None:
    """A file that is full gets a number; so many are kept, also where there were more before."""
    for kept, numbers in ((5, range(1, 6)), (2, range(1, 3))):
        for number in range(8):
            written(Target(where=str(tmp_path / "log"), most_bytes=10, kept=kept), line(target=f"/{number}"))
        found = {path.name: path.read_text().split()[6] for path in tmp_path.iterdir()}
        assert found == {"log": "/7"} | {f"log.{number}": f"/{7 - number}" for number in numbers}


def test_another_may_rotate_it(tmp_path: Path) -> None:
    """A size of 0 stands for never."""
    for _ in range(3):
        written(Target(where=str(tmp_path / "log"), most_bytes=0), line())
    assert len((tmp_path / "log").read_text().splitlines()) == 3


def test_a_link_keeps_its_place(tmp_path: Path) -> None:
    """One such as /dev/stdout belongs to others as well."""
    (tmp_path / "stdout").symlink_to(tmp_path / "out")
    for _ in range(2):
        written(Target(where=str(tmp_path / "stdout"), most_bytes=10), line())
    assert (tmp_path / "stdout").is_symlink()
    assert len((tmp_path / "out").read_text().splitlines()) == 2


def test_a_file_that_is_moved_away_is_made_again(tmp_path: Path) -> None:
    """Whoever else rotates it has to tell nobody."""
    written(tmp_path / "log", line())
    (tmp_path / "log").rename(tmp_path / "old")
    written(tmp_path / "log", line())
    assert (tmp_path / "log").read_text() == (tmp_path / "old").read_text()


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    """At the start it is an error, with its reason; one that is read is as good as a file."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be written"):
        Target(where=str(tmp_path / "pipe")).probe()
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    written(tmp_path / "pipe", line())
    assert os.read(reader, 1000).decode() == combined(line()) + "\n"
    os.close(reader)


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, the lines are counted, no half of one is left; that there is room again is said as well."""
    real, full = os.write, [True]

    def write(descriptor: int, data: bytes) -> int:
        if full[0] and len(data) > 20:
            return real(descriptor, data[:20])
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    clock = Clock()
    log = AccessLog(clock, Target(where=str(tmp_path / "log")))
    with capturedLogs() as logged:
        log.note(combined(line(target="/before")))
        clock.advance(1)
        monkeypatch.setattr("regcache.accesslog.os.write", write)
        for _ in range(3):
            log.note(combined(line()))
            clock.advance(1)
        assert log.lost == 3
        full[0] = False
        log.note(combined(line(target="/after")))
        clock.advance(1)
        full[0] = True
        log.note(combined(line()))
        clock.advance(1)
    monkeypatch.undo()
    assert [text.split()[6] for text in (tmp_path / "log").read_text().splitlines()] == ["/before", "/after"]
    why = "No space left on device. Its lines are lost until it can."
    broken = f"The access log {tmp_path / 'log'} cannot be written: {why}"
    again = "The access log is written again; 3 lines were lost."
    assert [formatEvent(event) for event in logged] == [broken, again, broken]


def test_a_disk_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so much is kept for it; the rest is counted."""
    monkeypatch.setattr(accesslog, "_MOST_WAITING", 1000)
    waiting: list[Deferred[None]] = []

    def stuck(_work: object, _text: str) -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1]

    clock = Clock()
    log = AccessLog(clock, Target(where=str(tmp_path / "log")), stuck)
    for _ in range(50):
        log.note(combined(line()))
        clock.advance(1)
    assert len(waiting) == 1
    assert 0 < log.lost < 49
    waiting[0].callback(None)


def test_what_is_configured() -> None:
    """Every option of it is heeded."""
    config = Config(access_log="-", access_log_format="json", access_log_hits=True, access_log_max_size=1)
    assert Target.of(config) == Target(where="-", form="json", hits=True, most_bytes=1, kept=5)


def test_a_running_service(tmp_path: Path, origin: Origin) -> None:
    """Registry, package, outcome and the id that the client was told stand in the line; a trusted proxy's is kept."""
    path = origin.add_wheel("alpha", "1.0")
    log = tmp_path / "access.log"
    more = ("--access-log", str(log), "--access-log-format", "json", "--access-log-hits", "--trust-proxy", "127.0.0.1")
    service = Running(tmp_path, origin, *more)
    try:
        _, fields, _ = send(service, get("/pypi/simple/alpha/", "User-Agent: pip/24"))
        _, named, _ = send(service, get(f"/pypi{path}", "X-Request-Id: edge-7"))
        send(service, get("/pypi/simple/alpha/", "X-Request-Id: two words"))
        # From memory, at last.
        for name in ("edge-8", "edge-9"):
            _, again, _ = send(service, get("/pypi/simple/alpha/", f"X-Request-Id: {name}", f"User-Agent: {name}"))
            assert again["x-request-id"] == name
        service.stop()
    finally:
        service.kill()
    first, second, third, fourth, fifth = map(json.loads, log.read_text().splitlines())
    assert fields["x-request-id"] == first["request_id"] != third["request_id"]
    assert (first["registry"], first["package"], first["outcome"]) == ("pypi", "alpha", "miss")
    assert (first["user_agent"], first["protocol"], first["status"]) == ("pip/24", "HTTP/1.1", 200)
    assert first["upstream_seconds"] <= first["seconds"]
    assert named["x-request-id"] == second["request_id"] == "edge-7"
    assert (second["package"], second["bytes"]) == ("alpha", len(origin.body(path)))
    assert (third["outcome"], third["upstream_seconds"], third["request_id"] == "two words") == ("hit", None, False)
    assert [one["user_agent"] for one in (fourth, fifth)] == ["edge-8", "edge-9"]
    assert (fifth["package"], fifth["outcome"], fifth["status"]) == ("alpha", "hit", 200)
    assert "x-request-id" not in {name.lower() for head in origin.heads for name in head}


def test_long_words_are_not_remembered() -> None:
    """Whoever sends another one each time would fill the memory with them."""
    _again.cache_clear()
    for number in range(20):
        FORMATS["combined"].told(f"{number}" * 300, "pip/1")
    assert _again.cache_info().currsize == 1
