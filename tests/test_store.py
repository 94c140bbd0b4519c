"""What every store promises, shown of the one on disk and of the one in memory."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from regcache.counts import Counts
from regcache.errors import BadDocument, BlobDamaged, CannotStore, TooBusy
from regcache.flow.reading import read_all
from regcache.http.messages import Digest, Headers, Kind, Stored
from regcache.interfaces import IStore
from regcache.store import disk, gather, upkeep, writer
from regcache.store.disk import DiskStore
from regcache.store.files import Files
from regcache.store.index import connect
from regcache.store.writer import Writer
from regcache.testing import MemoryStore
from tests.stores import logged

BODY = b"the body of a package" * 1000


def entry_for(body: bytes, key: str = "npm/a", **more: Any) -> Stored:
    """An entry whose body that is."""
    made = Stored(
        key=key,
        registry="npm",
        kind=Kind.ARTIFACT,
        headers=Headers.of({"etag": '"x"'}),
        digest=hashlib.sha256(body).hexdigest(),
        digests=(Digest("sha1", hashlib.sha1(body).hexdigest()),),
        size=len(body),
        stored_at=1000.0,
        validated_at=1000.0,
    )
    return replace(made, **more)


async def keep(store: IStore, body: bytes, entry: Stored) -> None:
    """Write a body and commit it."""
    partial = store.create(expected=len(body))
    for at in range(0, len(body), 5000):
        await partial.write(body[at : at + 5000])
    await store.commit(partial, entry)


def _refuse(_file: object) -> None:
    raise BadDocument("It is none.")


class Contract:
    """The promises; each case brings a store."""

    store: IStore
    assertEqual: Any
    assertFalse: Any
    assertIsNone: Any
    assertTrue: Any
    assertRaises: Any

    async def test_what_is_committed_is_found(self) -> None:
        """The entry, in every field, and the body, at any offset."""
        entry = entry_for(BODY)
        await keep(self.store, BODY, entry)
        self.assertEqual(self.store.peek(entry.key), entry)
        self.assertEqual(await self.store.find(entry.key), entry)
        self.assertEqual(await read_all(self.store, entry), BODY)
        body = self.store.open(entry)
        piece = body.read(7, 11)
        self.assertEqual(piece if isinstance(piece, bytes) else await piece, BODY[7:18])
        end = body.read(len(BODY), 10)
        self.assertEqual(end if isinstance(end, bytes) else await end, b"")
        body.close()
        body.close()
        self.assertEqual(self.store.usage()[1], 1)

    async def test_a_body_is_examined_before_it_is_committed(self) -> None:
        """Small or large, all of it can be read to and fro, as often as wanted, whoever else reads or leaves."""
        for body in (BODY, BODY * 20):
            entry, partial = entry_for(body), self.store.create()
            await partial.write(body[:100])
            await partial.write(body[100:])
            partial.retain()
            partial.release()
            for _ in range(2):
                ends = await partial.examine(lambda file: (file.seek(-5, 2), file.read(), file.seek(3), file.read()))
                self.assertEqual(ends, (len(body) - 5, body[-5:], 3, body[3:]))
            with self.assertRaises(BadDocument):
                await partial.examine(_refuse)
            await self.store.commit(partial, entry)
            self.assertEqual(await read_all(self.store, entry), body)

    async def test_what_was_never_stored_is_not_found(self) -> None:
        """Neither here nor anywhere."""
        self.assertIsNone(self.store.peek("npm/none"))
        self.assertIsNone(await self.store.find("npm/none"))
        await self.store.drop("npm/none")
        self.store.update(entry_for(BODY, "npm/none"))
        self.assertIsNone(self.store.peek("npm/none"))

    async def test_an_empty_body_is_a_body(self) -> None:
        """Zero bytes are stored like any others."""
        await keep(self.store, b"", entry_for(b""))
        self.assertEqual(await read_all(self.store, entry_for(b"")), b"")

    async def test_a_body_replaces_another(self) -> None:
        """The last commit counts; who has the first open reads on."""
        await keep(self.store, BODY, entry_for(BODY))
        before = self.store.open(entry_for(BODY))
        await keep(self.store, b"new", entry_for(b"new"))
        self.assertEqual(self.store.peek("npm/a"), entry_for(b"new"))
        piece = before.read(0, 9)
        self.assertEqual(piece if isinstance(piece, bytes) else await piece, BODY[:9])
        before.close()
        self.assertEqual(self.store.usage()[1], 1)

    async def test_two_entries_share_a_body(self) -> None:
        """Dropping one leaves the other its bytes."""
        await keep(self.store, BODY, entry_for(BODY, "npm/a"))
        await keep(self.store, BODY, entry_for(BODY, "npm/b"))
        await self.store.drop("npm/a")
        self.assertIsNone(self.store.peek("npm/a"))
        self.assertEqual(await read_all(self.store, entry_for(BODY, "npm/b")), BODY)

    async def test_an_update_changes_the_record(self) -> None:
        """Seen at once, by those who come later too."""
        await keep(self.store, BODY, entry_for(BODY))
        self.store.update(entry_for(BODY, validated_at=2000.0, withdrawn=404))
        self.assertEqual(self.store.peek("npm/a"), entry_for(BODY, validated_at=2000.0, withdrawn=404))

    async def test_its_revision_tells_of_changes(self) -> None:
        """Of an entry that is another, or none, whether it was looked for or not; looking changes nothing."""
        store, known = self.store, [self.store.revision.number]

        def changed() -> bool:
            known.append(store.revision.number)
            return bool(known[-1] != known[-2])

        await keep(store, BODY, entry_for(BODY))
        self.assertTrue(changed())
        self.assertEqual(store.peek("npm/a"), entry_for(BODY))
        self.assertEqual(await store.find("npm/a"), entry_for(BODY))
        store.used("npm/a", 1000.0)
        self.assertFalse(changed())
        store.update(entry_for(BODY))
        self.assertTrue(changed())
        await keep(store, b"new", entry_for(b"new"))
        self.assertTrue(changed())
        await store.put(entry_for(b"more"), b"more")
        self.assertTrue(changed())
        await store.drop("npm/a")
        self.assertTrue(changed())
        await keep(store, BODY, entry_for(BODY, "npm/b"))
        self.assertTrue(changed())

    async def test_children_are_found_by_their_parent(self) -> None:
        """All of one, none of another."""
        for name in ("npm/a", "npm/b"):
            await keep(self.store, BODY, entry_for(BODY, name, parent="npm/index"))
        await keep(self.store, BODY, entry_for(BODY, "npm/c", parent="npm/other"))
        found = await self.store.children("npm/index")
        self.assertEqual(sorted(child.key for child in found), ["npm/a", "npm/b"])

    async def test_a_small_body_that_can_be_made_again(self) -> None:
        """Put in one go."""
        await self.store.put(entry_for(BODY, kind=Kind.DERIVED), BODY)
        self.assertEqual(await read_all(self.store, entry_for(BODY)), BODY)

    async def test_a_body_that_stands_there_is_adopted(self) -> None:
        """Under another name, once it was read and found right; to give it up takes nothing from who has it."""
        entry = entry_for(BODY)
        await keep(self.store, BODY, entry)
        seen: list[bytes] = []
        partial = await self.store.adopt(Digest("sha256", entry.digest), seen.append)
        assert partial is not None
        self.assertEqual((b"".join(seen), partial.written), (BODY, len(BODY)))
        await self.store.commit(partial, entry_for(BODY, "npm/b"))
        self.assertEqual(await read_all(self.store, entry_for(BODY, "npm/b")), BODY)
        again = await self.store.adopt(Digest("sha256", entry.digest))
        assert again is not None
        again.abort()
        self.assertEqual(await read_all(self.store, entry), BODY)
        self.assertEqual(self.store.usage()[1], 2)
        self.assertIsNone(await self.store.adopt(Digest("sha256", "0" * 64)))

    async def test_readers_of_a_growing_body(self) -> None:
        """What is written can be read while more is written, and after an abort by those who hold it."""
        partial = self.store.create()
        partial.retain()
        await partial.write(b"abc")
        partial.abort()
        piece = partial.read(1, 2)
        self.assertEqual(piece if isinstance(piece, bytes) else await piece, b"bc")
        partial.release()


class InMemory(Contract, TestCase):
    """The store in memory."""

    def setUp(self) -> None:
        self.store = MemoryStore()


class OnDisk(Contract, TestCase):
    """The store on disk, with real threads."""

    def setUp(self) -> None:
        # What comes one by one is not waited for so long.
        self.patch(gather, "_PAUSE", 0.002)  # type: ignore[no-untyped-call]
        self.directory = Path(tempfile.mkdtemp(prefix="regcache-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.store = self.started()

    def started(self, **more: Any) -> DiskStore:
        """A store in the directory."""
        store = DiskStore(self.directory, reactor=reactor, min_free=0, **more)
        store.open_directory()
        store.start()
        self.addCleanup(store.stop)
        return store

    def restarted(self, **more: Any) -> Deferred[DiskStore]:
        """The store stopped, and another in the same directory."""
        assert isinstance(self.store, DiskStore)
        return self.store.stop().addCallback(lambda _: self.started(**more))

    async def test_a_restart_keeps_everything(self) -> None:
        """Entries, bodies and totals."""
        await keep(self.store, BODY, entry_for(BODY))
        usage = self.store.usage()
        store = await self.restarted()
        self.assertEqual(store.peek("npm/a"), entry_for(BODY))
        self.assertEqual(await read_all(store, entry_for(BODY)), BODY)
        self.assertEqual(store.usage(), usage)
        self.assertEqual(list((self.directory / "partial").iterdir()), [])

    async def test_nothing_is_readable_by_others(self) -> None:
        """Directories 0700, files 0600."""
        await keep(self.store, BODY, entry_for(BODY))
        for path in [self.directory, *self.directory.rglob("*")]:
            mode = path.stat().st_mode & 0o777
            self.assertEqual(mode, 0o700 if path.is_dir() else 0o600, path)

    async def test_a_body_that_is_damaged_is_no_entry(self) -> None:
        """Missing or of another size: it is dropped, and said so."""
        counts = Counts()
        self.store = await self.restarted(counts=counts)
        for damage in ("missing", "short"):
            await keep(self.store, BODY, entry_for(BODY))
            digest = entry_for(BODY).digest
            path = self.directory / "blobs" / digest[:2] / digest[2:]
            path.unlink() if damage == "missing" else path.write_bytes(BODY[:-1])
            with pytest.raises(BlobDamaged):
                self.store.open(entry_for(BODY))
            self.assertIsNone(self.store.peek("npm/a"))
        self.assertEqual(counts.damaged, 2)

    async def test_eviction_takes_what_can_be_made_again_first(self) -> None:
        """Then artifacts, the least recently used first, and the documents that name them last."""
        counts = Counts()
        store = await self.restarted(max_size=10 * 65536, counts=counts)
        bodies = {name: name.encode() * 20_000 for name in "abcdefgh"}
        await keep(store, bodies["a"], entry_for(bodies["a"], "npm/document", kind=Kind.DOCUMENT))
        await store.put(entry_for(bodies["b"], "npm/derived", kind=Kind.DERIVED), bodies["b"])
        for name in "cdefgh":
            await keep(store, bodies[name], entry_for(bodies[name], f"npm/{name}"))
            store.used("npm/c", 5_000_000_000.0)
        for number in range(20):
            body = bytes([number]) * 50_000
            await keep(store, body, entry_for(body, f"npm/more-{number}"))
            store.used("npm/c", 5_000_000_000.0)
        self.assertIsNone(store.peek("npm/derived"))
        self.assertIsNone(store.peek("npm/d"))
        self.assertEqual(store.peek("npm/document"), entry_for(bodies["a"], "npm/document", kind=Kind.DOCUMENT))
        self.assertEqual(store.peek("npm/c"), entry_for(bodies["c"], "npm/c"))
        self.assertEqual(store.usage()[0] <= 10 * 65536, True)
        self.assertEqual(counts.evicted, 8 + 20 - store.usage()[1])

    async def test_what_was_used_a_moment_ago_does_not_make_room(self) -> None:
        """Not even where it turns out only with the rows that room is needed."""
        block = os.statvfs(self.directory).f_frsize
        store = await self.restarted(max_size=9 * block)
        bodies = {name: name.encode() * block for name in "abcde"}
        for name in "abcd":
            await keep(store, bodies[name], entry_for(bodies[name], f"npm/{name}"))
        store.used("npm/a", 5_000_000_000.0)
        await keep(store, bodies["e"], entry_for(bodies["e"], "npm/e"))
        self.assertEqual({name for name in "abcde" if store.peek(f"npm/{name}")} >= {"a", "e"}, True)
        self.assertIsNone(store.peek("npm/b"))

    async def test_evicted_bodies_stay_for_who_reads_them(self) -> None:
        """The name goes, the bytes stay until they are closed."""
        await keep(self.store, BODY, entry_for(BODY))
        body = self.store.open(entry_for(BODY))
        await self.store.drop("npm/a")
        self.assertEqual(list((self.directory / "blobs").rglob("*/*")), [])
        piece = body.read(0, 3)
        self.assertEqual(piece if isinstance(piece, bytes) else await piece, BODY[:3])
        body.close()

    async def test_a_damaged_index_is_replaced_by_its_backup(self) -> None:
        """What was there at the last clean stop is there again; what came later is adopted when it comes again."""
        await keep(self.store, BODY, entry_for(BODY))
        store = await self.restarted()
        await keep(store, b"later", entry_for(b"later", "npm/later"))
        await store.stop()
        backup = self.directory / "index.backup.sqlite3"
        saved = backup.read_bytes()
        for suffix in ("-wal", "-shm"):
            (self.directory / f"index.sqlite3{suffix}").unlink(missing_ok=True)
        (self.directory / "index.sqlite3").write_bytes(b"no index at all" * 1000)
        backup.write_bytes(saved)
        store = self.started()
        self.assertEqual(store.peek("npm/a"), entry_for(BODY))
        self.assertEqual(await read_all(store, entry_for(BODY)), BODY)

    async def test_a_damaged_index_without_a_backup_is_a_clean_start(self) -> None:
        """Nothing is found, and everything can be stored again."""
        await keep(self.store, BODY, entry_for(BODY))
        assert isinstance(self.store, DiskStore)
        await self.store.stop()
        (self.directory / "index.backup.sqlite3").unlink()
        (self.directory / "index.sqlite3").write_bytes(b"no index at all" * 1000)
        store = self.started()
        self.assertIsNone(store.peek("npm/a"))
        await keep(store, BODY, entry_for(BODY))
        self.assertEqual(await read_all(store, entry_for(BODY)), BODY)

    async def test_damage_within_the_index_does_not_reach_its_backup(self) -> None:
        """The backup stays as it was, and the next start goes on with it."""
        await gatherResults([self.store.put(entry_for(BODY, f"npm/{number}"), BODY) for number in range(300)])
        store = await self.restarted()
        backup = (self.directory / "index.backup.sqlite3").read_bytes()
        await store.stop()
        (self.directory / "index.backup.sqlite3").write_bytes(backup)
        index = self.directory / "index.sqlite3"
        pages = bytearray(index.read_bytes())
        for at in range(4096 * 3, len(pages) - 4096, 4096):
            pages[at : at + 64] = bytes(64)
        index.write_bytes(pages)
        store = self.started()
        self.assertIsNone(store.peek("npm/7"))
        await store.stop()
        self.assertEqual((self.directory / "index.backup.sqlite3").read_bytes(), backup)
        store = self.started()
        self.assertEqual(store.peek("npm/7"), entry_for(BODY, "npm/7"))

    async def test_damage_that_is_found_at_the_stop(self) -> None:
        """The stop is clean, and the next start rebuilds the index without being asked for anything."""
        await gatherResults([self.store.put(entry_for(BODY, f"npm/{number}"), BODY) for number in range(300)])
        store = await self.restarted()
        await store.stop()
        with open(self.directory / "index.sqlite3", "r+b") as file:
            file.seek(4096 * 5)
            file.write(bytes(4096 * 3))
        store = self.started()
        with logged() as lines:
            await store.stop()
        self.assertEqual("the next start rebuilds it" in lines[-1], True)
        with logged() as lines:
            store = self.started()
        self.assertEqual(["it is set aside as" in line for line in lines], [True])
        self.assertEqual(store.usage()[1], 300)

    async def test_a_small_body_is_read_at_once(self) -> None:
        """Whole, if its file has the size of its entry; a large one is not."""
        await keep(self.store, BODY, entry_for(BODY))
        self.assertEqual(self.store.read(entry_for(BODY)), BODY)
        for size in (len(BODY) - 1, len(BODY) + 1, 1 << 20):
            self.assertIsNone(self.store.read(replace(entry_for(BODY), size=size)))
        digest = entry_for(BODY).digest
        (self.directory / "blobs" / digest[:2] / digest[2:]).unlink()
        self.assertIsNone(self.store.read(entry_for(BODY)))

    async def test_what_is_looked_up_next_comes_with_it(self) -> None:
        """One statement for an entry and what is wanted beside it, and none for either later."""
        await keep(self.store, BODY, entry_for(BODY, "npm/b"))
        store = await self.restarted()
        statements: list[str] = []
        assert store._hold.reader is not None
        store._hold.reader.set_trace_callback(lambda one: statements.append(one) if "SELECT" in one else None)
        self.assertIsNone(await store.find("npm/a", ["npm/b", "npm/c"]))
        self.assertEqual(len(statements), 1)
        self.assertEqual(list(await store.find_all(["npm/b", "npm/c"])), ["npm/b"])
        self.assertIsNone(await store.find("npm/a", ["npm/b", "npm/c"]))
        self.assertEqual(len(statements), 1)

    async def test_what_is_glanced_at_pushes_nothing_out(self) -> None:
        """It is found, and forgotten, unless it is to be kept; that there is none is remembered."""
        await keep(self.store, BODY, entry_for(BODY))
        store = await self.restarted()
        found, missing = store.glance(["npm/a", "npm/b"])
        self.assertEqual(found, entry_for(BODY))
        self.assertIsNone(missing)
        self.assertEqual(list(store._records._items), ["npm/b"])
        assert found is not None
        store.keep(found)
        assert store.peek("npm/a") is found
        await store.drop("npm/a")
        self.assertEqual(store.glance(["npm/a"]), [None])

    async def test_several_are_glanced_at_by_one_look(self) -> None:
        """Each is found as if it were the only one, in whatever order, and more than once."""
        await keep(self.store, BODY, entry_for(BODY))
        await keep(self.store, BODY, entry_for(BODY, key="npm/b"))
        store = await self.restarted()
        assert store._hold.reader is not None
        statements: list[str] = []
        store._hold.reader.set_trace_callback(lambda one: statements.append(one) if "SELECT" in one else None)
        keys = ["npm/b", "npm/c", "npm/a", "npm/b", "npm/c"]
        for asks in (1, 2):
            found = store.glance(keys)
            self.assertEqual([one and one.key for one in found], ["npm/b", None, "npm/a", "npm/b", None])
            self.assertEqual(len(statements), asks)
        self.assertEqual(list(store._records._items), ["npm/c"])

    async def test_a_body_that_cannot_be_opened_now_is_not_lost(self) -> None:
        """Out of descriptors: an error for now, and the entry stays."""
        await keep(self.store, BODY, entry_for(BODY))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "Too many open files")))
            with pytest.raises(TooBusy):
                self.store.open(entry_for(BODY))
        self.assertEqual(self.store.peek("npm/a"), entry_for(BODY))
        self.assertEqual(await read_all(self.store, entry_for(BODY)), BODY)

    async def test_bounds_hold_for_bodies_of_unknown_length(self) -> None:
        """What turns out larger than allowed is refused while it comes, and takes nothing else with it."""
        store = await self.restarted(max_size=1_000_000)
        await keep(store, BODY, entry_for(BODY))
        partial = store.create(most=200_000)
        await partial.write(b"x" * 199_999)
        with pytest.raises(CannotStore, match="max-file-size"):
            await partial.write(b"xx")
        partial.abort()
        partial, other = store.create(), store.create()
        await partial.write(b"x" * 600_000)
        with pytest.raises(CannotStore, match="max-size"):
            await other.write(b"x" * 600_000)
        partial.abort()
        other.abort()
        await store.create(expected=900_000).write(b"x" * 900_000)
        self.assertEqual(store.peek("npm/a"), entry_for(BODY))

    async def test_what_waits_is_written_at_the_stop(self) -> None:
        """A commit under way when the store stops is there after the next start."""
        waiting = Deferred.fromCoroutine(keep(self.store, BODY, entry_for(BODY)))
        store = await self.restarted()
        await waiting
        self.assertEqual(await read_all(store, entry_for(BODY)), BODY)

    async def test_the_last_of_two_commits_counts(self) -> None:
        """Of two bodies for one entry in one transaction the later stays, and the other leaves nothing behind."""
        done = [Deferred.fromCoroutine(keep(self.store, body, entry_for(body))) for body in (b"one", b"two")]
        for each in done:
            await each
        self.assertEqual(await read_all(self.store, entry_for(b"two")), b"two")
        self.assertEqual(self.store.usage()[1], 1)
        self.assertEqual(len(list((self.directory / "blobs").rglob("*/*"))), 1)

    async def test_bodies_without_a_name_are_found_by_other_digests(self) -> None:
        """After an index is lost, all bodies are looked at soon; what is changed, or has a name, is not found so."""
        bodies = {f"npm/{n}": bytes([n]) * 5000 for n in range(5)}
        for key, body in bodies.items():
            await self.store.put(entry_for(body, key), body)
        assert isinstance(self.store, DiskStore)
        await self.store.stop()
        for path in self.directory.glob("index.*"):
            path.unlink()
        changed = entry_for(bodies["npm/3"]).digest
        (self.directory / "blobs" / changed[:2] / changed[2:]).write_bytes(b"!" + bodies["npm/3"][1:])
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(upkeep, "_PAUSE", 0)
            store = self.started()
            while store._upkeep._sweeps < 256:
                await deferLater(reactor, 0.01)
        for algorithm in ("sha512", "sha1"):
            partial = await store.adopt(Digest(algorithm, hashlib.new(algorithm, bodies["npm/1"]).hexdigest()))
            assert partial is not None
            self.assertEqual(partial.written, 5000)
            partial.abort()
            self.assertIsNone(await store.adopt(Digest(algorithm, hashlib.new(algorithm, bodies["npm/3"]).hexdigest())))
        await keep(store, bodies["npm/1"], entry_for(bodies["npm/1"]))
        digest = entry_for(bodies["npm/1"]).digest
        await store._write(Writer.sweep, digest[:2])
        self.assertIsNone(await store.adopt(Digest("sha1", hashlib.sha1(bodies["npm/1"]).hexdigest())))
        self.assertEqual(await read_all(store, entry_for(bodies["npm/1"])), bodies["npm/1"])

    async def test_a_large_directory_is_looked_at_in_parts(self) -> None:
        """The writer has other work as well."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(writer, "_MOST_HASHED", 1)
            for n in range(3):
                (self.directory / "blobs" / "ab" / f"{n:062x}").write_bytes(b"x")
            assert isinstance(self.store, DiskStore)
            whole = [await self.store._write(Writer.sweep, "ab") for _ in range(4)]
        self.assertEqual(whole, [False, False, True, True])

    async def test_a_body_that_goes_meanwhile_is_not_adopted(self) -> None:
        """Between the reading and the commit its last entry may go: that commit fails, and leaves nothing."""
        await keep(self.store, BODY, entry_for(BODY))
        partial = await self.store.adopt(Digest("sha256", entry_for(BODY).digest))
        assert partial is not None
        await self.store.drop("npm/a")
        with pytest.raises(CannotStore, match="gone"):
            await self.store.commit(partial, entry_for(BODY, "npm/b"))
        self.assertIsNone(self.store.peek("npm/b"))
        self.assertEqual(list((self.directory / "partial").iterdir()), [])

    async def test_a_body_that_came_after_its_directory_was_looked_through_is_adopted(self) -> None:
        """However it came: a directory is looked through once."""
        assert isinstance(self.store, DiskStore)
        made = entry_for(b"made", "npm/a\tform", kind=Kind.DERIVED)
        for digest in (entry_for(BODY).digest, made.digest):
            self.assertIsNone(await self.store.adopt(Digest("sha256", digest)))
            while digest[:2] not in self.store._there._listed:
                await deferLater(reactor, 0.01)
        await keep(self.store, BODY, entry_for(BODY))
        await self.store.put(made, b"made")
        for entry in (entry_for(BODY), made):
            partial = await self.store.adopt(Digest("sha256", entry.digest))
            assert partial is not None
            partial.abort()

    async def test_a_changed_body_is_not_adopted(self) -> None:
        """Its size is right, its bytes are not."""
        await keep(self.store, BODY, entry_for(BODY))
        digest = entry_for(BODY).digest
        (self.directory / "blobs" / digest[:2] / digest[2:]).write_bytes(b"!" + BODY[1:])
        self.assertIsNone(await self.store.adopt(Digest("sha256", digest)))

    async def test_a_body_that_the_disk_has_changed_is_found(self) -> None:
        """It is no entry any more, whoever reads it sees a failed transfer, and all others stay."""
        bodies = {f"npm/{n}": bytes([n]) * 300_000 for n in range(4)}
        for key, body in bodies.items():
            await keep(self.store, body, entry_for(body, key))
        store = await self.restarted(scrub=0.1)
        victim = entry_for(bodies["npm/2"], "npm/2")
        reader = store.open(victim)
        path = self.directory / "blobs" / victim.digest[:2] / victim.digest[2:]
        with open(path, "r+b") as file:
            file.write(b"!")
        with logged() as lines:
            while store.peek("npm/2") is not None:
                await deferLater(reactor, 0.01)
        self.assertEqual([line for line in lines if "npm/2: the stored body is damaged" in line], lines[:1])
        piece = reader.read(0, 1000)
        self.assertEqual(piece if isinstance(piece, bytes) else await piece, b"")
        reader.close()
        self.assertEqual(path.exists(), False)
        for key in ("npm/0", "npm/1", "npm/3"):
            self.assertEqual(await read_all(store, entry_for(bodies[key], key)), bodies[key])
        self.assertEqual(store.usage()[1], 3)

    async def test_a_disk_that_refuses_is_asked_again(self) -> None:
        """Nothing is stored meanwhile, which is said once; then everything is as it was, without a restart."""
        await keep(self.store, BODY, entry_for(BODY, parent="npm/index"))
        assert isinstance(self.store, DiskStore)
        await self.store.stop()
        refusing, asked = [True], []

        class Refusing(Files):
            def sync_path(self, path: Path) -> None:
                asked.append(path)
                if refusing[0]:
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
                super().sync_path(path)

        with pytest.MonkeyPatch.context() as patched, logged() as lines:
            patched.setattr(disk, "RETRY_EVERY", 0.01)
            store = self.started(files=Refusing())
            self.assertEqual(store.peek("npm/a"), entry_for(BODY, parent="npm/index"))
            self.assertEqual(await read_all(store, entry_for(BODY)), BODY)
            with pytest.raises(CannotStore, match="Read-only file system"):
                store.create()
            store.update(entry_for(BODY, validated_at=2000.0))
            self.assertEqual(store.peek("npm/a"), entry_for(BODY, validated_at=2000.0))
            await store.drop("npm/none")
            self.assertEqual(await store.children("npm/index"), [entry_for(BODY, parent="npm/index")])
            with pytest.raises(CannotStore):
                await store.put(entry_for(BODY, "npm/b"), BODY)
            while len(asked) < 4:
                await deferLater(reactor, 0.01)
            refusing[0] = False
            while store._hold.writer is None:
                await deferLater(reactor, 0.01)
        self.assertEqual(["NOTHING CAN BE STORED" in line for line in lines], [True, False])
        self.assertEqual("is in use again" in lines[1], True)
        await keep(store, b"new", entry_for(b"new", "npm/new"))
        self.assertEqual(await read_all(store, entry_for(b"new", "npm/new")), b"new")
        self.assertEqual(store.peek("npm/a"), entry_for(BODY, parent="npm/index"))

    async def test_a_stop_while_the_disk_refuses(self) -> None:
        """Whether it is being asked again or not; another can take the directory at once."""
        assert isinstance(self.store, DiskStore)
        await self.store.stop()

        class Refusing(Files):
            def sync_path(self, path: Path) -> None:
                del path
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        for asking in (False, True):
            store = self.started(files=Refusing())
            if asking:
                store._hold.retry()
            await store.stop()
        store = self.started()
        await keep(store, BODY, entry_for(BODY))

    async def test_an_index_that_breaks_while_it_is_used(self) -> None:
        """What can be read of it is there again in a moment; until then nothing is found, and nothing fails."""
        entries = [entry_for(BODY, f"npm/{n:02}", url="u" * 300) for n in range(60)]
        await gatherResults([self.store.put(entry, BODY) for entry in entries])
        store = await self.restarted()
        self.assertEqual(store.peek("npm/00"), entry_for(BODY, "npm/00", url="u" * 300))
        writer = store._hold.writer
        assert writer is not None
        writer.index.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with open(self.directory / "index.sqlite3", "r+b") as file:
            for at in range(4096 * 8, 4096 * 12, 4096):
                file.seek(at)
                file.write(bytes(4096))
        with logged() as lines:
            # Both connections keep pages; what is asked for next may be among them.
            store._hold.reader = connect(self.directory / "index.sqlite3", readonly=True)
            for n in range(60):
                store.peek(f"npm/{n:02}")
            with contextlib.suppress(CannotStore):
                store.create()
            while store._hold.writer is None:
                await deferLater(reactor, 0.01)
        self.assertEqual(sum("The index is damaged" in line and "is rebuilt" in line for line in lines), 1)
        self.assertEqual(sum("it is set aside as index.damaged-" in line for line in lines), 1)
        self.assertEqual(sum("is in use again" in line for line in lines), 1)
        self.assertEqual(len(lines), 3, lines)
        while store.usage()[1] < 60:
            await deferLater(reactor, 0.01)
        self.assertEqual(await read_all(store, entry_for(BODY, "npm/59")), BODY)
        await keep(store, b"new", entry_for(b"new", "npm/new"))
        self.assertEqual(await read_all(store, entry_for(b"new", "npm/new")), b"new")

    async def test_orphans_are_swept_when_they_are_old(self) -> None:
        """A body that no entry names goes a week after it was found so; one that is named stays."""
        await keep(self.store, BODY, entry_for(BODY))
        digest = entry_for(BODY).digest
        orphan = self.directory / "blobs" / digest[:2] / ("0" * 62)
        orphan.write_bytes(b"lost")
        assert isinstance(self.store, DiskStore)
        await self.store._write(Writer.sweep, digest[:2])
        self.assertEqual(orphan.exists(), True)
        store = await self.restarted(now=lambda: 5_000_000_000.0)
        await store._write(Writer.sweep, digest[:2])
        self.assertEqual(orphan.exists(), False)
        self.assertEqual(await read_all(store, entry_for(BODY)), BODY)
