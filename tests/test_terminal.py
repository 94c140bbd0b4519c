"""What the commands print: on a real terminal, on one that can do little, and in a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from regcache.commands import main, telling
from regcache.commands.outcome import MEANINGS
from regcache.commands.output import Column, Output, printable
from tests.stores import indexed

#: What begins the commands of a terminal.
ESCAPE = "\x1b"


def opened(columns: int) -> tuple[int, int]:
    """Both ends of a terminal that is so wide."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return leader, follower


def read(leader: int) -> str:
    """What a terminal got until nobody wrote to it any more."""
    got = b""
    # Linux says by an error that nobody has the other end.
    with contextlib.suppress(OSError):
        while more := os.read(leader, 65536):
            got += more
    os.close(leader)
    return got.decode()


@pytest.fixture
def terminal(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs a command on that cache and a terminal: its exit code, and what the terminal got."""

    def running(*command: str, columns: int = 80, **variables: str) -> tuple[int, str]:
        for name, value in {"TERM": "xterm-256color", "COLUMNS": str(columns), **variables}.items():
            monkeypatch.setenv(name, value)
        leader, follower = opened(columns)
        got: list[str] = []
        reader = threading.Thread(target=lambda: got.append(read(leader)))
        reader.start()
        with open(follower, "w") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            try:
                main([*command, "--cache-dir", str(cache)])
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        reader.join(60)
        return code, got[0]

    return running


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that nobody uses, with more entries than one part of a list has, and keys longer than a line."""
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "cache"
    indexed(place, (f"npm/{number:06}/{'x' * 90}" for number in range(1100)))
    return place


Terminal = Callable[..., tuple[int, str]]


def program(cache: Path, *arguments: str) -> list[str]:
    """A command on that cache, in a process of its own."""
    return [str(Path(sys.executable).with_name("regcache")), *arguments, "--cache-dir", str(cache)]


def test_a_terminal(cache: Path) -> None:
    """Tables are bold at the head and as wide as the terminal, long keys go on below, and none is cut."""
    leader, follower = opened(80)
    told = {"PATH": os.environ.get("PATH", os.defpath), "TERM": "xterm-256color"}
    ends = {"stdin": follower, "stdout": follower, "stderr": follower, "env": told}
    with subprocess.Popen(program(cache, "ls", "npm/00000*"), **ends) as process:  # type: ignore[call-overload]
        os.close(follower)
        got = read(leader)
    assert process.returncode == 0
    assert f"{ESCAPE}[1m" in got
    lines = got.replace(f"{ESCAPE}[1m", "").replace(f"{ESCAPE}[0m", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert "".join(lines).replace(" ", "").count("x") == 10 * 90


def test_a_wide_terminal(terminal: Terminal) -> None:
    """A key has its line, and progress is a bar that goes at the end."""
    code, got = terminal("ls", "npm/000001*", columns=200)
    assert code == 0
    assert f"npm/000001/{'x' * 90}" in got
    code, got = terminal("verify")
    assert code == 1
    assert f"{ESCAPE}[" in got
    assert "bodies" in got


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_a_terminal_that_can_do_little(terminal: Terminal, kind: str) -> None:
    """It gets plain lines, and no progress."""
    code, got = terminal("verify", TERM=kind)
    assert code == 1
    assert ESCAPE not in got


def test_no_color(terminal: Terminal) -> None:
    """Whoever wants no colours gets none."""
    code, got = terminal("verify", NO_COLOR="1")
    assert code == 1
    assert f"{ESCAPE}[3" not in got
    assert f"{ESCAPE}[4" not in got


def test_without_rich(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything works, in plain text; progress is a number."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    code, got = terminal("ls", "npm/000001*")
    assert code == 0
    assert ESCAPE not in got
    assert f"npm/000001/{'x' * 90}" in got
    code, got = terminal("verify")
    assert code == 1
    assert " %  1 of 1 bodies" in got


def test_a_pipe(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list comes in parts, is whole, and is one line of JSON; one who stops reading ends it."""
    main(["ls", "--json", "--cache-dir", str(cache)])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert [one["key"][:10] for one in json.loads(out)] == [f"npm/{number:06}" for number in range(1100)]
    main(["ls", "--cache-dir", str(cache)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1101
    assert lines[0].split() == [column.name for column in telling.ENTRY_COLUMNS]
    quoted = " ".join(program(cache, "ls"))
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{quoted} | head -1"], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr, ended.stdout.split()[0]) == (0, "", "KIND")
    main(["purge", "*", "--json", "--cache-dir", str(cache)])
    purged = json.loads(capsys.readouterr().out)
    assert len(purged["purged"]) == 1100
    assert purged["bytes"] == 1100


def test_what_others_wrote_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are shown, not sent."""
    assert printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    Output(False).table([Column("KEY")], [[["\x9b1m"]]])
    assert capsys.readouterr().out == "KEY\n\\x9b1m\n"


def test_the_exit_codes_are_documented() -> None:
    """As the code names them, each."""
    text = (Path(__file__).parent.parent / "docs/commands.md").read_text("utf-8")
    for code, told in MEANINGS.items():
        assert f"| {code.value} | {told} |" in text


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_for_terminals(
    progress: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing of it is in a file."""
    monkeypatch.setenv("TERM", "xterm" if progress else "dumb")
    with Output(False).progress("bodies") as tell:
        tell(1, 2)
    assert capfd.readouterr() == ("", "")
