"""Go modules as a proxy has them, and a checksum database in its real format, signed by a key of its own."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from urllib.parse import quote

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Database", "Module", "escaped", "h1"]

#: Of a tile, in levels of the tree.
_HEIGHT = 8


def escaped(text: str) -> str:
    """A path or version as it stands in a URL and on a disk that does not tell upper from lower case."""
    return "".join(f"!{char.lower()}" if char.isupper() else char for char in text)


def h1(files: Mapping[str, bytes]) -> str:
    """The sum of some files as go.sum has it."""
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


@define
class Module:
    """
    One version of a module.

    :ivar files: by name; go.mod among them, if it has one.
    """

    path: str
    version: str
    files: Mapping[str, bytes]
    listed: bool = True

    @property
    def mod(self) -> bytes:
        """Its go.mod, which a proxy makes where there is none."""
        return self.files.get("go.mod", f"module {self.path}\n".encode())

    @property
    def packed(self) -> dict[str, bytes]:
        """Its files as they are named in its zip."""
        return {f"{self.path}@{self.version}/{name}": data for name, data in self.files.items()}

    @property
    def zip(self) -> bytes:
        """Its files, packed."""
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in sorted(self.packed.items()):
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        return sink.getvalue()

    @property
    def info(self) -> bytes:
        """What a proxy says of the version."""
        return json.dumps({"Version": self.version, "Time": "2023-09-01T12:00:00Z"}).encode()

    @property
    def sums(self) -> str:
        """Its lines of go.sum."""
        name = f"{self.path} {self.version}"
        return f"{name} {h1(self.packed)}\n{name}/go.mod {h1({'go.mod': self.mod})}\n"

    def pages(self) -> dict[str, bytes]:
        """What a proxy has of this version alone, by the path of the URL."""
        base = f"{escaped(self.path)}/@v"
        version = quote(escaped(self.version), safe="!")
        return {
            f"{base}/list": f"{self.version}\n".encode() if self.listed else b"",
            f"{base}/{version}.info": self.info,
            f"{base}/{version}.mod": self.mod,
            f"{base}/{version}.zip": self.zip,
            f"{escaped(self.path)}/@latest": self.info,
        }


@define
class Database:
    """
    A checksum database (golang.org/x/mod/sumdb): a tree of records, its tiles, and notes signed by its key.

    :ivar modules: whose sums it has, in order.
    """

    name: str
    modules: list[Module]
    _key: Ed25519PrivateKey = field(factory=Ed25519PrivateKey.generate, init=False)

    @property
    def key(self) -> str:
        """The value of GOSUMDB by which clients trust it."""
        public = self._public()
        return f"{self.name}+{self._key_hash().hex()}+{base64.b64encode(public).decode()}"

    def _public(self) -> bytes:
        return b"\x01" + self._key.public_key().public_bytes_raw()

    def _key_hash(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + self._public()).digest()[:4]

    def _leaves(self) -> list[bytes]:
        return [hashlib.sha256(b"\0" + module.sums.encode()).digest() for module in self.modules]

    def tree(self) -> bytes:
        """The signed head of the tree."""
        leaves = self._leaves()
        root = base64.b64encode(_root(leaves)).decode()
        text = f"go.sum database tree\n{len(leaves)}\n{root}\n"
        signature = base64.b64encode(self._key_hash() + self._key.sign(text.encode())).decode()
        return f"{text}\n\N{EM DASH} {self.name} {signature}\n".encode()

    def pages(self) -> dict[str, bytes]:
        """What a proxy passes on of it, by the path of the URL below ``sumdb/NAME/``."""
        made = {"supported": b"", "latest": self.tree()}
        for number, module in enumerate(self.modules):
            version = quote(escaped(module.version), safe="!")
            record = f"{number}\n{module.sums}\n".encode()
            made[f"lookup/{escaped(module.path)}@{version}"] = record + self.tree()
        leaves, level = self._leaves(), 0
        while leaves:
            for start in range(0, len(leaves), 1 << _HEIGHT):
                part = leaves[start : start + (1 << _HEIGHT)]
                for width in range(1, len(part) + 1):
                    partial = f".p/{width}" if width < 1 << _HEIGHT else ""
                    made[f"tile/{_HEIGHT}/{level}/{start >> _HEIGHT:03d}{partial}"] = b"".join(part[:width])
            whole = len(leaves) >> _HEIGHT
            leaves = [_root(leaves[at << _HEIGHT : (at + 1) << _HEIGHT]) for at in range(whole)]
            level += 1
        return made


def _root(leaves: list[bytes]) -> bytes:
    """The hash of a tree (RFC 6962 section 2.1)."""
    if len(leaves) == 1:
        return leaves[0]
    left = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + _root(leaves[:left]) + _root(leaves[left:])).digest()
