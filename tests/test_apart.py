"""The process that makes files of many small bodies: whatever befalls it, what it does is what the thread would do."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from regcache.config import Config
from regcache.errors import CannotStore, ConfigError
from regcache.store import apart, making, placing
from regcache.store.disk import DiskStore
from regcache.store.placing import Commit
from regcache.store.writer import Outcome
from regcache.tap import CacheService
from tests.stores import entry, let_go, logged, opened, rows, writer_of
from tests.test_crash import see_that_all_is_whole, sha

MANY = placing._MANY


def bodies(number: int, seed: int = 0) -> dict[str, bytes]:
    """So many small ones, by key."""
    chance = random.Random(seed)
    return {f"npm/{seed}-{n}": chance.randbytes(chance.randrange(1, 9000)) for n in range(number)}


def commit(store: DiskStore, some: dict[str, bytes]) -> Outcome:
    """All of them, in one batch."""
    commits = [Commit(store._new_path(), entry(key, body), body) for key, body in some.items()]
    return writer_of(store).commit(commits)


def process_of(store: DiskStore) -> int:
    """The number of the process; 0 if there is none."""
    other = writer_of(store)._placing._apart
    assert other is not None
    return 0 if other._process is None else other._process.pid


def send(pid: int, number: signal.Signals) -> None:
    """Send it a signal. There is one: 0 would mean the tests themselves."""
    assert pid
    os.kill(pid, number)


def runs(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    """One whose many small files are made by another process."""
    made = opened(tmp_path / "cache", apart=True)
    yield made
    if made._hold.writer is not None:
        made._hold.writer.abandon()
    let_go(made)


def see_that_these_are_stored(store: DiskStore, some: dict[str, bytes]) -> None:
    """These and no others, each with its very body."""
    found = see_that_all_is_whole(store._path, store)
    assert found == {key: sha(body) for key, body in some.items()}


def test_many_are_made_by_another_process(store: DiskStore) -> None:
    """Few are not: to start it would take longer. It stays for the next of them."""
    few, many, more = bodies(MANY - 1, 1), bodies(3 * MANY + 1, 2), bodies(MANY, 3)
    assert commit(store, few).failed == [None] * len(few)
    assert not process_of(store)
    for some in (many, more):
        before = process_of(store)
        assert commit(store, some).failed == [None] * len(some)
        assert process_of(store)
        assert before in (0, process_of(store))
    see_that_these_are_stored(store, {**few, **many, **more})


def test_the_service_has_one(tmp_path: Path) -> None:
    """It is not for tests alone."""
    service = CacheService(Clock(), Config(cache_dir=str(tmp_path / "cache")))
    service.store.open_directory()
    assert process_of(service.store) == 0
    let_go(service.store)


def test_what_is_there_already_is_replaced(store: DiskStore) -> None:
    """And several entries may name one body."""
    same = {f"npm/{n}": bytes([n % 3]) * 1000 for n in range(MANY)}
    for _ in range(2):
        assert commit(store, same).failed == [None] * MANY
    see_that_these_are_stored(store, same)


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are Unicode there")
def test_any_name_of_a_directory(tmp_path: Path) -> None:
    """Also one that is no text in the locale of either."""
    store = opened(tmp_path / os.fsdecode(b"caf\xe9 \xe2\x82\xac") / "cache", apart=True)
    some = bodies(MANY)
    assert commit(store, some).failed == [None] * MANY
    assert process_of(store)
    see_that_these_are_stored(store, some)
    writer_of(store).abandon()
    let_go(store)


def test_what_the_disk_refuses(store: DiskStore) -> None:
    """One body fails, and says why; the others are entries."""
    some = bodies(MANY)
    (store._path / "blobs" / sha(some["npm/0-7"])[:2]).rmdir()
    failed = commit(store, some).failed
    lost = {key for key, error in zip(some, failed, strict=True) if error is not None}
    assert "npm/0-7" in lost
    assert {str(error) for error in failed if error is not None} == {
        str(CannotStore(f"No such file or directory: {store._path / 'partial'}"))
    }
    assert process_of(store)
    see_that_these_are_stored(store, {key: body for key, body in some.items() if key not in lost})


def test_names_that_cannot_be_synced(store: DiskStore) -> None:
    """That is told as well."""
    commit(store, bodies(MANY))
    with pytest.raises(FileNotFoundError):
        writer_of(store)._placing.sync(["none"])()
    assert process_of(store)


def test_rows_that_are_refused(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is syncing names then: what it says of that is no answer to what it is asked next."""
    commit(store, bodies(MANY, 1))
    before, index = process_of(store), writer_of(store).index

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(index, "insert", full)
        with pytest.raises(CannotStore):
            commit(store, bodies(MANY, 2))
    assert commit(store, bodies(MANY, 3)).failed == [None] * MANY
    assert process_of(store) == before
    see_that_these_are_stored(store, {**bodies(MANY, 1), **bodies(MANY, 3)})


def test_no_entry_before_its_name_is_on_disk(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are written meanwhile, and are no entries if the names cannot be synced."""
    commit(store, bodies(MANY, 1))

    def refused(*_: object) -> None:
        assert writer_of(store).index.connection.in_transaction
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    other = writer_of(store)._placing._apart
    assert other is not None
    with monkeypatch.context() as patch:
        patch.setattr(other, "_synced", refused)
        with pytest.raises(CannotStore) as told:
            commit(store, bodies(MANY, 2))
    assert "Input/output error" in str(told.value.detail)
    see_that_these_are_stored(store, bodies(MANY, 1))


def test_fewer_files_can_be_open_than_are_made_together(store: DiskStore) -> None:
    """They are made in smaller parts."""
    commit(store, bodies(MANY, 1))
    resource.prlimit(process_of(store), resource.RLIMIT_NOFILE, (9, 9))
    some = bodies(MANY, 2)
    assert commit(store, some).failed == [None] * MANY
    see_that_these_are_stored(store, {**bodies(MANY, 1), **some})


@pytest.mark.parametrize("size", [1 << 20, 9 << 20])
def test_it_has_few_bytes_at_a_time(store: DiskStore, size: int) -> None:
    """However large a document is, and however many come together: it is no copy of all of them."""
    commit(store, bodies(MANY))
    large = {f"npm/large-{n}": bytes([n]) * size for n in range((120 << 20) // size)}
    some = bodies(MANY, 1) | large | bodies(MANY, 2)
    assert commit(store, some).failed == [None] * len(some)
    status = Path("/proc", str(process_of(store)), "status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 60 << 10
    see_that_these_are_stored(store, bodies(MANY) | some)


# It ends.


def test_it_dies_between_two_batches(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread does the work, and says so once; after a while there is another process."""
    some = [bodies(MANY, seed) for seed in range(4)]
    commit(store, some[0])
    first = process_of(store)
    send(first, signal.SIGKILL)
    with logged() as lines:
        assert commit(store, some[1]).failed == [None] * MANY
        assert commit(store, some[2]).failed == [None] * MANY
    assert len([line for line in lines if "No process makes" in line]) == 1
    assert not process_of(store)
    assert not runs(first)
    other = writer_of(store)._placing._apart
    monkeypatch.setattr(other, "_not_before", 0.0)
    assert commit(store, some[3]).failed == [None] * MANY
    assert process_of(store)
    see_that_these_are_stored(store, {key: body for one in some for key, body in one.items()})


@pytest.mark.parametrize("rounds", [12, pytest.param(200, marks=pytest.mark.soak)])
def test_it_is_killed_at_any_moment(store: DiskStore, monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    """Nothing is lost, and nothing of what it had begun stays."""
    monkeypatch.setattr(apart, "_AGAIN_AFTER", 0.0)
    chance = random.Random(7)
    all_of_them: dict[str, bytes] = {}
    for seed in range(rounds):
        commit(store, more := bodies(MANY, 1000 + seed))
        some = bodies(2 * MANY, seed)
        victim = process_of(store)
        killer = threading.Timer(chance.uniform(0, 0.02), send, (victim, signal.SIGKILL))
        killer.start()
        assert commit(store, some).failed == [None] * len(some)
        killer.join()
        all_of_them |= more | some
    see_that_these_are_stored(store, all_of_them)


def test_what_it_had_begun_is_taken_away(store: DiskStore) -> None:
    """Its files are in the way of those that the thread makes."""
    commit(store, bodies(MANY, 1))
    send(process_of(store), signal.SIGKILL)
    some = bodies(MANY, 2)
    commits = [Commit(store._new_path(), entry(key, body), body) for key, body in some.items()]
    commits[3].path.write_bytes(b"half")
    assert writer_of(store).commit(commits).failed == [None] * MANY
    see_that_these_are_stored(store, {**bodies(MANY, 1), **some})


def test_it_says_nothing(store: DiskStore) -> None:
    """It is ended before the thread begins: two never write the same."""
    commit(store, bodies(MANY, 1))
    stuck = process_of(store)
    send(stuck, signal.SIGSTOP)
    other = writer_of(store)._placing._apart
    assert other is not None
    assert other._socket is not None
    other._socket.settimeout(0.2)
    assert commit(store, bodies(MANY, 2)).failed == [None] * MANY
    assert not runs(stuck)
    see_that_these_are_stored(store, {**bodies(MANY, 1), **bodies(MANY, 2)})


@pytest.mark.parametrize(
    ("python", "why"),
    [("/nowhere/python", "No such file"), (None, "has no name"), ("", "has no name"), ("/bin/true", "(")],
)
def test_there_can_be_none(store: DiskStore, monkeypatch: pytest.MonkeyPatch, python: str | None, why: str) -> None:
    """The thread does the work, also in a program that has an interpreter built in."""
    monkeypatch.setattr(sys, "executable", python)
    with logged() as lines:
        assert commit(store, bodies(MANY)).failed == [None] * MANY
    assert any(why in line and "a thread does" in line for line in lines), lines
    see_that_these_are_stored(store, bodies(MANY))


def test_an_answer_that_is_not_heard_is_not_taken_for_another(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short just when it comes: the process ends, and the thread does it again."""
    commit(store, bodies(MANY, 1))
    first = process_of(store)

    def short(_self: object, _size: int) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patched, logged() as lines:
        patched.setattr(apart.Apart, "_receive", short)
        assert commit(store, bodies(MANY, 2)).failed == [None] * MANY
    assert any("MemoryError" in line for line in lines)
    assert not runs(first)
    see_that_these_are_stored(store, {**bodies(MANY, 1), **bodies(MANY, 2)})


def test_it_rests_when_there_is_nothing_to_do(store: DiskStore) -> None:
    """Then it takes no memory; what comes later starts another."""
    commit(store, bodies(MANY, 1))
    first = process_of(store)
    writer_of(store).rest()
    assert process_of(store) == first
    writer_of(store).rest()
    assert not process_of(store)
    assert not runs(first)
    commit(store, bodies(MANY, 2))
    assert process_of(store)


def test_it_ends_with_the_store(tmp_path: Path) -> None:
    """Signals are for the service, which may have something left to write."""
    store = opened(tmp_path / "cache", apart=True)
    commit(store, bodies(MANY, 1))
    pid = process_of(store)
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        send(pid, one)
    commit(store, bodies(MANY, 2))
    assert process_of(store) == pid
    writer_of(store).close()
    assert not runs(pid)
    let_go(store)


# What it has of the service.


def test_it_has_no_more_than_it_needs(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A way to ask and to complain, the hold on the directory; nothing of the environment."""
    monkeypatch.setenv("SECRET", "word")
    with open(os.devnull, "rb") as file:
        os.set_inheritable(file.fileno(), False)
        commit(store, bodies(MANY))
        own = Path("/proc", str(process_of(store)))
        assert b"SECRET" not in (own / "environ").read_bytes()
        targets = [os.readlink(one) for one in (own / "fd").iterdir()]
    assert len(targets) == 4
    assert sum(one.startswith("socket:") for one in targets) == 2
    assert str(store._path / "making.lock") in targets


#: Stores many until it is killed.
KILLED = """
import sys
from tests.test_apart import MANY, bodies, commit, process_of
from tests.stores import opened
store = opened(sys.argv[1], apart=True)
commit(store, bodies(MANY))
print(process_of(store), flush=True)
for seed in range(1, 10_000):
    commit(store, bodies(MANY, seed))
"""


@contextlib.contextmanager
def killed(directory: Path, after: float) -> Iterator[int]:
    """The process of a service that was killed, which has been stopped before."""
    command = [sys.executable, "-c", KILLED, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent) as service:
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        time.sleep(after)
        send(pid, signal.SIGSTOP)
        service.kill()
        service.wait()
        try:
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                send(pid, signal.SIGKILL)


@pytest.mark.parametrize("after", [0.0, 0.013, 0.031, 0.05])
def test_the_service_is_killed(tmp_path: Path, after: float) -> None:
    """The next one begins once the process, too, writes no more, and finds each entry with its very body."""
    with killed(tmp_path / "cache", after) as pid:
        goes_on = threading.Timer(0.3, send, (pid, signal.SIGCONT))
        goes_on.start()
        began = time.monotonic()
        store = opened(tmp_path / "cache")
        assert time.monotonic() - began >= 0.25
        goes_on.join()
        found = see_that_all_is_whole(tmp_path / "cache", store)
        assert len(rows(store)) >= MANY
        for key, body in bodies(MANY).items():
            assert found[key] == sha(body)
        let_go(store)


def test_what_is_left_of_a_killed_service_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it for ever."""
    monkeypatch.setattr("regcache.store.directory._PATIENCE", 0.2)
    with killed(tmp_path / "cache", 0), pytest.raises(ConfigError, match="in use by process"):
        opened(tmp_path / "cache")


@pytest.mark.parametrize("after", [0.0, 0.05])
def test_the_number_of_what_was_killed_says_nothing(tmp_path: Path, after: float) -> None:
    """It may be another's by now, or nobody may have asked yet how it ended: what counts is who writes there."""
    with killed(tmp_path / "cache", after) as pid:
        (tmp_path / "cache" / "lock").write_text(f"{os.getpid()}\n")
        goes_on = threading.Timer(0.3, send, (pid, signal.SIGCONT))
        goes_on.start()
        store = opened(tmp_path / "cache")
        goes_on.join()
        see_that_all_is_whole(tmp_path / "cache", store)
        let_go(store)


# What it says by itself.


@contextlib.contextmanager
def asked() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process that was asked something, and the way to it."""
    ours, its = socket.socketpair()
    question = b'{"sync": ["/"]}'
    lengths = [len(question), 0]
    with ours, its:
        command = [sys.executable, "-I", "-S", making.__file__]
        with subprocess.Popen(command, stdin=its.fileno(), stdout=its.fileno(), stderr=subprocess.PIPE) as process:
            its.close()
            ours.sendall(b"".join(length.to_bytes(making.LENGTH, "big") for length in lengths) + question)
            yield process, ours


@pytest.mark.parametrize("answered", [False, True])
def test_it_ends_without_a_word_when_the_service_is_killed(answered: bool) -> None:
    """Before its answer is there, or before that is read."""
    with asked() as (process, ours):
        if answered:
            ours.recv(1, socket.MSG_PEEK)
        ours.close()
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_starts(store: DiskStore, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """That goes to all processes: it is for the service, which has begun to store a burst."""

    def signalled(*args: Any, **more: Any) -> Any:
        process = started(*args, **more)
        send(process.pid, number)
        return process

    started: Any = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", signalled)
    with logged() as lines:
        assert commit(store, bodies(MANY)).failed == [None] * MANY
    assert process_of(store)
    assert not lines
