"""The access log: where its lines go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from regcache import accesslog
from regcache.accesslog import AccessLog, Line
from regcache.errors import ConfigError
from regcache.flow.reply import How


def line(**more: Any) -> Line:
    """A request that was no hit."""
    said = {"when": 0.0, "client": "::1", "method": "GET", "target": "/a", "status": 200, "sent": 5, "how": How.MISS}
    return Line(**{**said, "upstream_seconds": 0.25, "seconds": 0.5, **more})


def written(path: Path, *lines: Line) -> None:
    """Write these lines there, and stop."""
    log = AccessLog(Clock(), str(path), False)
    log.open()
    for one in lines:
        log.note(one)
    done: Deferred[None] = ensureDeferred(log.stop())
    assert done.called


def test_a_line() -> None:
    """UTC time, client, request, status, bytes, outcome, upstream time, time."""
    assert line().text() == '1970-01-01T00:00:00.000Z ::1 "GET /a" 200 5 MISS 0.250 0.500'


@pytest.mark.parametrize("target", ['/a" 200 5 HIT - 0.000', "/a\nb", "/a\\", "/\x1b[2J", "/\u2028", "/\x85", "/ä"])
def test_nobody_writes_a_line_of_their_own(target: str) -> None:
    """What a client asked for stays within its quotes, in one line of ASCII or of Latin letters."""
    text = line(target=target).text()
    assert line(method=target, target="").text() == text.replace("GET ", "").replace('" 200 5 M', ' " 200 5 M')
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    inside = text.removeprefix('1970-01-01T00:00:00.000Z ::1 "').removesuffix('" 200 5 MISS 0.250 0.500')
    assert '"' not in inside.replace("\\\\", "").replace('\\"', "")


def test_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is full gets a number; so many are kept."""
    monkeypatch.setattr(accesslog, "_MOST_BYTES", 10)
    for number in range(8):
        written(tmp_path / "log", line(target=f"/{number}"))
    found = {path.name: path.read_text().split()[3] for path in tmp_path.iterdir()}
    assert found == {"log": '/7"'} | {f"log.{number}": f'/{7 - number}"' for number in range(1, 6)}


def test_a_link_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One such as /dev/stdout belongs to others as well."""
    monkeypatch.setattr(accesslog, "_MOST_BYTES", 10)
    (tmp_path / "stdout").symlink_to(tmp_path / "out")
    for _ in range(2):
        written(tmp_path / "stdout", line())
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
        AccessLog(Clock(), str(tmp_path / "pipe"), False).open()
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    written(tmp_path / "pipe", line())
    assert os.read(reader, 1000).decode() == line().text() + "\n"
    os.close(reader)
