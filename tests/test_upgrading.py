"""Stores of other versions, and directories of other programs."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from regcache.errors import ConfigError
from regcache.store.index import FORMAT
from tests.origin import Origin
from tests.service import Running
from tests.stores import let_go, opened, put, rows

DATA = Path(__file__).parent / "data"
#: What the store of each format holds: paths below the service, of which an artifact's body is known.
HELD = {
    1: (
        "npm/left",
        "npm/left/-/left-1.0.0.tgz",
        "pypi/simple/left/",
        "pypi/packages/c7/1a/d73bf5d1d7d77b969ce48f181369773ca9b10797ece2a0f18f20b12d9781/left-1.0-py3-none-any.whl",
    )
}


def test_a_store_of_every_format_is_kept() -> None:
    """Whoever changes the format leaves a store of the one before for the test below."""
    assert set(HELD) == set(range(1, FORMAT + 1))
    assert {path.name for path in DATA.glob("store-*")} == {f"store-format-{number}.tar.gz" for number in HELD}


@pytest.mark.parametrize("number", HELD)
def test_a_store_of_an_older_version_opens(number: int, tmp_path: Path, origin: Origin) -> None:
    """What the first version of a format has left on disk is served as it was, without a registry."""
    with tarfile.open(DATA / f"store-format-{number}.tar.gz") as archive:
        archive.extractall(tmp_path / "cache", filter="data")
    service = Running(tmp_path, origin, "--offline", "--min-free", "0")
    try:
        answers = [service.get(path) for path in HELD[number]]
        assert [(answer[0], answer[1]["X-Cache"]) for answer in answers] == [(200, "HIT"), (200, "HIT")] * 2
        assert all(answer[2] for answer in answers)
        rest = service.stop()
    finally:
        service.kill()
    for word in ("damaged", "NOTHING CAN BE STORED", "newer"):
        assert word not in service.said + rest


def database(path: Path) -> None:
    """One of another program."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE pictures (name TEXT)")
        connection.commit()


def written(path: Path) -> None:
    """A file of another program."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("dear")


FOREIGN: dict[str, Callable[[Path], object]] = {
    "letter.txt": lambda place: written(place / "letter.txt"),
    "photos": lambda place: (place / "photos").mkdir(),
    "partial/film": lambda place: written(place / "partial" / "film"),
    "blobs/sha256": lambda place: (place / "blobs" / "sha256").mkdir(parents=True),
    "index.sqlite3": lambda place: database(place / "index.sqlite3"),
}


def state(place: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in it: modes and contents."""
    return {
        str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in (place, *place.rglob("*"))
    }


@pytest.mark.parametrize("name", FOREIGN)
def test_a_directory_of_another_program_is_refused(name: str, tmp_path: Path) -> None:
    """One line names what is in the way, and nothing has changed: no mode, no file."""
    tmp_path.chmod(0o755)
    FOREIGN[name](tmp_path)
    before = state(tmp_path)
    with pytest.raises(ConfigError, match=rf"something else than a cache \({name}\).*--cache-dir") as caught:
        opened(tmp_path)
    assert "\n" not in caught.value.detail
    assert state(tmp_path) == before


def test_of_many_strangers_some_are_named(tmp_path: Path) -> None:
    """A home directory does not fill the screen."""
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("")
    with pytest.raises(ConfigError, match=r"\(0\.txt, 1\.txt, 2\.txt, …\)"):
        opened(tmp_path)


def test_what_is_often_beside_a_cache_is_welcome(tmp_path: Path) -> None:
    """A mount point, the configuration, a log, a socket, hidden files: the cache begins among them."""
    (tmp_path / "lost+found").mkdir()
    for name in (".profile", "regcache.toml", "access.log", "twistd.pid"):
        (tmp_path / name).write_text("")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "listening"))
        let_go(opened(tmp_path))


@pytest.mark.parametrize("lost", ["index.sqlite3", "index*", "blobs"])
def test_a_cache_that_has_lost_a_part_is_still_one(lost: str, tmp_path: Path) -> None:
    """Whatever else somebody keeps in it: it is made whole as before."""
    store = opened(tmp_path)
    put(store, "npm/a", b"a")
    let_go(store)
    (tmp_path / "notes.txt").write_text("")
    for path in tmp_path.glob(lost):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    store = opened(tmp_path)
    assert set(rows(store)) <= {"npm/a"}
    let_go(store)
