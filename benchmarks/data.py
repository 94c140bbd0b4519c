"""What the registries of a measurement publish: the same bytes in every run, as a tree of files."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.origin import tarball, wheel

__all__ = ["Tree"]

_PIECE = 1 << 20


class Tree:
    """
    The files of an upstream, served as they lie; pages have their compressed form beside them.

    :param url: where they are served, with a slash at the end: links in pages are absolute.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self.directory, self.url = directory, url
        self._noise = random.Random(1)

    def noise(self, size: int) -> bytes:
        """Bytes that cannot be compressed."""
        return self._noise.randbytes(size)

    def artifact(self, path: str, size: int) -> str:
        """A body of that size; its path."""
        target = self._place(path)
        piece = self.noise(min(size, _PIECE))
        with target.open("wb") as file:
            for at in range(0, size, _PIECE):
                file.write(piece[: size - at])
        return path

    def again(self, path: str, other: str) -> str:
        """The same body below another path."""
        self._place(other).hardlink_to(self.directory / path)
        return other

    def digest(self, path: str) -> str:
        """The SHA-256 of a body."""
        with (self.directory / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def page(self, path: str, text: bytes, packed: bytes = b"") -> str:
        """A page, plain and compressed, as ``packed`` if that is given."""
        self._place(path).write_bytes(text)
        self._place(f"{path}.gz").write_bytes(packed or gzip.compress(text, 6, mtime=0))
        return path

    def project(self, name: str, files: Mapping[str, bytes]) -> list[str]:
        """A project of pypi with these files, which are published with it; their paths."""
        entries, paths = [], []
        for file, data in files.items():
            blake = hashlib.blake2b(data, digest_size=32).hexdigest()
            path = f"packages/{blake[:2]}/{blake[2:4]}/{blake[4:]}/{file}"
            self._place(path).write_bytes(data)
            entries.append(_entry(file, self.url + path, hashlib.sha256(data).hexdigest(), len(data)))
            paths.append(path)
        self._simple(name, entries)
        return paths

    def long_project(self, name: str, files: int) -> str:
        """A project whose page names so many files, which nobody asks for; the page's path."""
        entries = []
        for number in range(files):
            digest, sha256 = self.noise(32).hex(), self.noise(32).hex()
            file = f"{name}-1.{number}-py3-none-any.whl"
            url = f"{self.url}packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{file}"
            entries.append(_entry(file, url, sha256, 1000 + number))
        return self._simple(name, entries)

    def projects(self, count: int) -> str:
        """The list of all projects, with so many."""
        names = [{"name": f"a-project-of-the-long-list-{number}"} for number in range(count)]
        page = {"meta": {"api-version": "1.1"}, "projects": names}
        return self.page("simple/index.json", json.dumps(page).encode())

    def wheels(self, prefix: str, count: int) -> list[str]:
        """Projects with one wheel that installs each; their names."""
        names = [f"{prefix}{number}" for number in range(count)]
        for name in names:
            self.project(name, {f"{name}-1.0-py3-none-any.whl": wheel(name, "1.0")})
        return names

    def packages(self, prefix: str, count: int) -> dict[str, str]:
        """Packages of npm that install, of 2 to 60 kB; the integrity of each."""
        found = {}
        for number in range(count):
            name = f"{prefix}{number}"
            data = tarball(name, "1.0.0", {"data.bin": self.noise(self._noise.randrange(2_000, 60_000))})
            self._place(f"npm/{name}/-/{name}-1.0.0.tgz").write_bytes(data)
            manifest = self._manifest(name, "1.0.0", data)
            found[name] = manifest["dist"]["integrity"]
            self._packument(name, [manifest])
            self.page(f"npm/{name}/1.0.0.json", json.dumps(manifest).encode())
        return found

    def packument(self, name: str, size: int) -> str:
        """A package with so many versions that its page has about that size, compressible as usual; its path."""
        versions: list[dict[str, Any]] = []
        reached = 0
        while reached < size:
            manifest = self._manifest(name, f"1.0.{len(versions)}", len(versions).to_bytes(8))
            manifest["description"] = f"What the package {name} is for, in a sentence of about the usual length. " * 3
            manifest["dependencies"] = {f"dependency-{number}": f"^1.{number}.0" for number in range(12)}
            manifest["scripts"] = {f"task-{number}": f"node scripts/task-{number}.js --all" for number in range(6)}
            versions.append(manifest)
            reached += len(json.dumps(manifest)) + 60
        return self._packument(name, versions)

    def _manifest(self, name: str, version: str, data: bytes) -> dict[str, Any]:
        dist = {
            "tarball": f"{self.url}npm/{name}/-/{name}-{version}.tgz",
            "shasum": hashlib.sha1(data).hexdigest(),
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
        }
        return {"name": name, "version": version, "dist": dist}

    def _packument(self, name: str, manifests: Iterable[Mapping[str, Any]]) -> str:
        versions = {str(manifest["version"]): manifest for manifest in manifests}
        page: dict[str, Any] = {"name": name, "dist-tags": {"latest": [*versions][-1]}, "versions": versions}
        page["time"] = dict.fromkeys(("created", "modified", *versions), "2024-01-01T00:00:00.000Z")
        self.page(f"npm/{name}/index.json", json.dumps(page).encode())
        return f"npm/{name}"

    def _simple(self, name: str, entries: Iterable[Mapping[str, Any]]) -> str:
        files = list(entries)
        versions = [str(entry["filename"]).split("-")[1] for entry in files]
        page = {"meta": {"api-version": "1.1"}, "name": name, "versions": versions, "files": files}
        self.page(f"simple/{name}/index.json", json.dumps(page).encode())
        return f"simple/{name}/"

    def _place(self, path: str) -> Path:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _entry(file: str, url: str, sha256: str, size: int) -> dict[str, Any]:
    return {"filename": file, "url": url, "hashes": {"sha256": sha256}, "size": size}
