"""
What a kill and a power cut leave: the entries that were, or those that were to be, each with its very body.

A kill loses nothing that was committed. A power cut may lose the last changes of the index, all of them from one on.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

from regcache.http.messages import Kind
from regcache.store.disk import DiskStore
from regcache.store.files import Files
from regcache.store.placing import Commit
from tests.powerloss import Forgetful, frames
from tests.stores import blob, entry, let_go, opened, rows, writer_of

State = dict[str, str]
#: The steps of commits and removals that the store tells.
STEPS = (
    "created",
    "written",
    "synced",
    "renamed",
    "directory-synced",
    "rows-written",
    "inserted",
    "log-synced",
    "unlinked",
)
#: What it does to the disk, each of it before and after.
OPERATIONS = [
    f"{when} {name}"
    for name in ("create", "write", "begin_sync", "sync", "sync_path", "replace", "remove")
    for when in "<>"
]


def sha(body: bytes) -> str:
    """The name of a body."""
    return hashlib.sha256(body).hexdigest()


def see_that_all_is_whole(directory: Path, store: DiskStore) -> State:
    """Every entry has its body, every body is what its name says, and nothing is under way; the entries."""
    assert list((directory / "partial").iterdir()) == []
    found = rows(store)
    for digest, size in found.values():
        body = (directory / "blobs" / digest[:2] / digest[2:]).read_bytes()
        assert (sha(body), len(body)) == (digest, size)
    assert store.usage()[1] == len(found)
    return {key: digest for key, (digest, _) in found.items()}


# Killed.

#: Forks a process for each line that it reads, which commits, replaces and drops until it is killed; each notes in a
#: ledger what it is about to do, and what is done.
KILLED = """
import hashlib, os, random, signal, sys, threading, time
from twisted.internet import epollreactor
from twisted.internet.defer import Deferred
from regcache.http.messages import Kind, Stored
from regcache.store import gather
from regcache.store.disk import DiskStore
from regcache.store.files import Files

# Each works more, and waits less for others to commit with it.
gather._PAUSE = 0.002

def run(directory, ledger, seed, fatal, ready):
    from twisted.internet import reactor
    # Whoever never comes to that step ends in another way.
    signal.alarm(60)
    chance = random.Random(seed)
    book = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    done = 0

    def step(name):
        if name == fatal and done >= 4:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(name):
        def method(self, *args):
            step("< " + name)
            result = getattr(Files, name)(self, *args)
            step("> " + name)
            return result
        return method

    Told = type("Told", (Files,), {name: told(name) for name in
                ("create", "write", "begin_sync", "sync", "sync_path", "replace", "remove")})
    store = DiskStore(directory, reactor=reactor, min_free=0, max_size=0, steps=step, files=Told())
    store.open_directory()
    store.start()

    async def change(key):
        nonlocal done
        if chance.random() < 0.15:
            os.write(book, f"begin {key} -\\n".encode())
            await store.drop(key)
            os.write(book, f"done {key} -\\n".encode())
            return
        body = chance.randbytes(chance.choice([chance.randrange(9000), chance.randrange(131072, 200000)]))
        digest = hashlib.sha256(body).hexdigest()
        entry = Stored(key=key, registry="npm", kind=Kind.ARTIFACT, digest=digest, size=len(body), stored_at=1.0,
                       validated_at=1.0)
        partial = store.create(expected=len(body))
        for at in range(0, len(body), 65536):
            await partial.write(body[at:at + 65536])
        os.write(book, f"begin {key} {digest}\\n".encode())
        await store.commit(partial, entry)
        os.write(book, f"done {key} {digest}\\n".encode())
        done += 1
        if done == 4:
            os.write(ready, b"!")

    async def for_ever(worker):
        while True:
            await change(f"npm/{worker}-{chance.randrange(4)}")

    for worker in range(4):
        Deferred.fromCoroutine(for_ever(worker))
    reactor.run()

for line in sys.stdin:
    directory, ledger, seed, fatal, after = line.rstrip("\\n").split("\\t")
    reading, ready = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run(directory, ledger, int(seed), fatal, ready)
        finally:
            os._exit(1)
    os.close(ready)
    os.read(reading, 1)
    os.close(reading)
    if not fatal:
        time.sleep(float(after))
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@define
class Killer:
    """Has processes work in a directory until they are killed, and knows what must be there then."""

    directory: Path
    process: subprocess.Popen[str]
    state: State = field(factory=dict)

    def round(self, seed: int, fatal: str = "", after: float = 0) -> None:
        """One process, killed at a step or after a while; then a start that finds all as it must be."""
        ledger = self.directory.with_name("ledger")
        ledger.write_text("")
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{self.directory}\t{ledger}\t{seed}\t{fatal}\t{after}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "-9\n"
        allowed = {key: {digest} for key, digest in self.state.items()}
        for line in ledger.read_text().splitlines():
            what, key, digest = line.split()
            if what == "done":
                allowed[key] = {digest}
            else:
                allowed.setdefault(key, {"-"}).add(digest)
        store = opened(self.directory)
        self.state = see_that_all_is_whole(self.directory, store)
        let_go(store)
        assert self.state.keys() <= allowed.keys()
        for key, digests in allowed.items():
            assert self.state.get(key, "-") in digests, key


@pytest.fixture
def killer(tmp_path: Path) -> Iterator[Killer]:
    """One for a directory of its own."""
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Killer(tmp_path / "cache", process)
        assert process.stdin is not None
        process.stdin.close()


def test_a_kill_at_each_step_of_a_commit(killer: Killer) -> None:
    """Whatever the last step was: the old entry or the new one, and nothing lost that was committed."""
    for seed, step in enumerate([*STEPS, *OPERATIONS]):
        killer.round(seed, fatal=step)
    assert killer.state


@pytest.mark.parametrize("rounds", [6, pytest.param(200, marks=pytest.mark.soak)])
def test_kills_at_random(killer: Killer, rounds: int) -> None:
    """Again and again in the same directory, at moments that nobody chose."""
    chance = random.Random(11)
    for seed in range(rounds):
        killer.round(seed, after=chance.uniform(0, 0.2))
    assert killer.state


# Refused by the disk.


@pytest.mark.parametrize("call", ["create", "write", "begin_sync", "sync", "replace"])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_one_body_of_a_batch_that_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, which: int
) -> None:
    """The others become entries, and nothing of it stays; advice that the disk will not take refuses nothing."""
    bodies, calls = [b"some", b"thing", b"some"], itertools.count(1)
    store = opened(tmp_path)
    commits = [Commit(store._new_path(), entry(f"npm/{n}", body), body) for n, body in enumerate(bodies)]
    usual = getattr(Files, call)

    def refusing(*args: object) -> object:
        if next(calls) == which:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return usual(*args)

    monkeypatch.setattr(Files, call, refusing)
    failed = writer_of(store).commit(commits).failed
    good = [n for n in range(3) if n != which - 1 or call == "begin_sync"]
    assert [n for n, error in enumerate(failed) if error is None] == good
    assert see_that_all_is_whole(tmp_path, store) == {f"npm/{n}": sha(bodies[n]) for n in good}
    let_go(store)


def test_a_batch_of_more_bodies_than_files_can_be_open(tmp_path: Path) -> None:
    """They are written in smaller parts."""

    class Few(Files):
        def create(self, path: Path) -> int:
            if len(os.listdir("/dev/fd")) >= most:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().create(path)

    store = opened(tmp_path, files=Few())
    bodies = [bytes([n]) * 1000 for n in range(9)]
    commits = [Commit(store._new_path(), entry(f"npm/{n}", body), body) for n, body in enumerate(bodies)]
    for free, failed in ((4, 0), (0, 9)):
        most = len(os.listdir("/dev/fd")) + free
        assert sum(error is not None for error in writer_of(store).commit(commits).failed) == failed
    assert see_that_all_is_whole(tmp_path, store) == {f"npm/{n}": sha(body) for n, body in enumerate(bodies)}
    let_go(store)


# Power lost.


class Workload:
    """
    Commits, replacements and removals, one after the other.

    :ivar states: what the entries were from the beginning, and are to be once what is under way is done.
    :ivar sure: the first of them to which a power cut may lead back.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self.states: list[State] = [{}]
        self.sure = 0
        self.disk = Forgetful(directory)
        self.disk.logged = self._logged
        self.store = opened(directory, files=self.disk, max_size=0, min_free=0)
        self._chance = random.Random(seed)

    def _logged(self) -> None:
        self.sure = len(self.states) - 1

    def step(self) -> None:
        """One change, or a few in one transaction."""
        writer, chance, state = writer_of(self.store), self._chance, dict(self.states[-1])
        what = chance.random()
        if what < 0.2 and state:
            key = chance.choice(sorted(state))
            state.pop(key)
            self.states.append(state)
            writer.drop(key)
            return
        commits = []
        for _ in range(chance.choice([1, 1, 2, 4])):
            # Few bodies, so that some are named by several entries, and some are replaced by themselves.
            body = bytes([chance.randrange(8)]) * chance.randrange(1, 4) * 700
            kind = chance.choice([Kind.ARTIFACT, Kind.DOCUMENT, Kind.DERIVED])
            made = entry(f"{kind.value}/{chance.randrange(4)}", body, kind=kind)
            commits.append(Commit(self.store._new_path(), made, body))
            state[made.key] = made.digest
        self.states.append(state)
        assert writer.commit(commits).failed == [None] * len(commits)

    def check(self, directory: Path, sure: int) -> int:
        """What a start finds after a power cut; how far back that is."""
        store = opened(directory)
        found = {key: digest for key, (digest, _) in rows(store).items()}
        for key, (digest, size) in rows(store).items():
            path = directory / "blobs" / digest[:2] / digest[2:]
            if not key.startswith("derived/"):
                body = path.read_bytes()
                assert (sha(body), len(body)) == (digest, size), key
        assert list((directory / "partial").iterdir()) == []
        let_go(store)
        assert found in self.states[sure:]
        return len(self.states) - self.states.index(found)


@pytest.mark.parametrize(
    ("seed", "steps"), [(1, 8), (2, 8), *[pytest.param(n, 40, marks=pytest.mark.soak) for n in range(3, 7)]]
)
def test_a_power_cut_at_every_moment(tmp_path: Path, seed: int, steps: int) -> None:
    """Before all that is done to the disk: what was durable is there, and each entry has its very body."""
    work = Workload(tmp_path / "cache", seed)
    chance = random.Random(seed)
    moments = 0

    def cut() -> None:
        nonlocal moments
        moments += 1
        work.disk.cut(tmp_path / "left", chance)
        work.check(tmp_path / "left", work.sure)

    work.disk.moment = cut
    for _ in range(steps):
        work.step()
    let_go(work.store)
    assert moments > 6 * steps


@pytest.mark.parametrize("steps", [12, pytest.param(40, marks=pytest.mark.soak)])
def test_a_log_cut_at_every_frame(tmp_path: Path, steps: int) -> None:
    """The index goes back to a state that was, further with each frame; nothing else opens."""
    directory, left = tmp_path / "cache", tmp_path / "left"
    work = Workload(directory, 5)
    # Bodies that nobody names any more stay here, so that each state has all of its own.
    work.disk.remove = bool  # type: ignore[method-assign,assignment]
    for _ in range(steps):
        work.step()
    shutil.copytree(directory, left)
    let_go(work.store)
    index, log = ((left / name).read_bytes() for name in ("index.sqlite3", "index.sqlite3-wal"))
    before = len(work.states)
    for end in frames(log):
        for more in (0, 1, 24, 24 + 2048):
            (left / "index.sqlite3-shm").unlink(missing_ok=True)
            (left / "index.sqlite3").write_bytes(index)
            (left / "index.sqlite3-wal").write_bytes(log[: end + more])
            back = work.check(left, 0)
            assert back <= before
            before = back
    assert before == 1


@pytest.mark.parametrize("together", [False, True])
def test_a_derived_body_in_the_place_of_one_that_lasts(tmp_path: Path, together: bool) -> None:
    """It has the same bytes and is written over it: a power cut then must not take those away."""
    disk = Forgetful(tmp_path / "cache")
    store = opened(tmp_path / "cache", files=disk)
    body = b"both" * 1000
    commits = [
        Commit(store._new_path(), entry(f"npm/{kind.value}", body, kind=kind), body)
        for kind in (Kind.DOCUMENT, Kind.DERIVED)
    ]
    for batch in [commits] if together else [[one] for one in commits]:
        assert writer_of(store).commit(batch).failed == [None] * len(batch)
    for seed in range(20):
        disk.cut(tmp_path / str(seed), random.Random(seed))
        assert blob(tmp_path / str(seed), body).read_bytes() == body
    let_go(store)
