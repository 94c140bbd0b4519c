"""A RubyGems registry: the compact index, the Marshal indexes before it, and gems."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import zlib
from collections.abc import Iterator

from zope.interface import implementer

from regcache.errors import BadDocument, MethodNotAllowed, NotFound
from regcache.http.messages import Digest, RequestHead
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.registries.plain import Confined
from regcache.routes import Artifact, Document, Fact, Facts, Release, Route, Source

__all__ = ["RubyGems"]

_TEXT, _JSON, _BINARY = "text/plain; charset=utf-8", "application/json", "application/octet-stream"
_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
#: A version, with a platform behind it if it is not for all.
_VERSION = re.compile(r"[0-9][0-9A-Za-z.]*(?:-[\w.-]+)?", re.ASCII)
_INDEXES = frozenset({"specs.4.8.gz", "latest_specs.4.8.gz", "prerelease_specs.4.8.gz"})
_QUICK = "quick/Marshal.4.8"
_API = re.compile(
    r"api/(?:v1/gems/([\w.-]+)|v1/versions/([\w.-]+?)(?:/latest)?|v2/rubygems/([\w.-]+)/versions/[\w.-]+)\.json",
    re.ASCII,
)
#: How what Ruby has marshalled begins, and what zlib calls the format of gzip.
_MARSHAL, _GZIP_FORMAT, _PIECE = b"\x04\x08", 31, 1 << 20
_LISTS = frozenset({"versions", "names"})
_SEPARATOR = b"---\n"
#: Such as when the list was begun.
_PREAMBLE = re.compile(rb"(?:[a-z_]+:[^\n]*\n)+")
_MOST_PREAMBLE = 4096
_LONGEST_NAME = 255
#: Names that are asked for at most, for a file whose name and version can be told apart in several ways.
_MOST_READINGS = 4
_READ_ONLY = "Gems are pushed to the registry itself."
_NO_DEPENDENCY_API = "The dependency API has gone, as it has at the registry; the compact index has taken its place."


@implementer(IRegistry)
class RubyGems(Confined):
    """
    A RubyGems registry.

    Nothing in it leads anywhere, so nothing is rewritten: Bundler compares the MD5 of what it has with the entity tag,
    and asks for what has been appended since.
    """

    default_url = "https://rubygems.org/"
    option_names: tuple[str, ...] = ()
    version = 1
    algorithms = ("sha256",)

    # Requests.

    def route(self, request: RequestHead) -> Route:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(_READ_ONLY)
        parts = [part for part in segments(request.path) if part]
        path, folder, file = "/".join(parts), "/".join(parts[:-1]), parts[-1] if parts else ""
        if path in _LISTS:
            return self._text(path)
        if folder == "info" and _is_name(file):
            return self._info(file)
        if folder == "gems" and file.endswith(".gem"):
            return self._gem(file)
        if path in _INDEXES:
            return self._as_is(parts, "*/*", _BINARY)
        if folder == _QUICK and _is_file(file, ".gemspec.rz"):
            return self._as_is(parts, "*/*", _BINARY, *_names(file.removesuffix(".gemspec.rz")))
        if path == "api/v1/dependencies" or path.startswith("api/v1/dependencies."):
            raise NotFound(_NO_DEPENDENCY_API)
        told = _API.fullmatch(path)
        if told:
            return self._as_is(parts, _JSON, f"{_JSON}; charset=utf-8", *filter(None, told.groups()))
        raise NotFound("That is no address of a gem registry that this cache serves.")

    def _as_is(self, parts: list[str], accept: str, kind: str, *packages: str) -> Document:
        return Document(
            key="/".join(parts),
            url=self.options.url + "/".join(map(quote, parts)),
            accept=accept,
            representation="as-is",
            content_type=kind,
            packages=packages,
        )

    def _info(self, name: str) -> Document:
        return self._text(f"info/{name}", name)

    def _text(self, path: str, *packages: str) -> Document:
        return Document(
            key=path,
            url=self.options.url + path,
            representation="as-is",
            content_type=_TEXT,
            etag="md5",
            grows=True,
            packages=packages,
        )

    def _gem(self, file: str) -> Artifact:
        if not _is_file(file, ".gem"):
            raise NotFound("That is no file name of a gem.")
        names = _names(file.removesuffix(".gem"))
        return Artifact(
            key=f"gems/{file}",
            url=f"{self.options.url}gems/{quote(file)}",
            content_type=_BINARY,
            indexes=tuple(map(self._info, names[:_MOST_READINGS])),
            packages=tuple(names),
        )

    # Documents.

    def facts(self, document: str, source: Source) -> Facts:
        kind, _, name = document.partition("/")
        if kind == "api":
            _check_json(source)
            return Facts()
        if document.endswith((".gz", ".rz")):
            _check_marshal(document, source)
            return Facts()
        listed = _listed(document, source)
        found = Facts()
        for line in listed.splitlines() if kind == "info" else ():
            file, digest = _gem_of(name, line)
            if file:
                url = f"{self.options.url}gems/{quote(file)}"
                found[f"gems/{file}"] = Fact(url=url, digests=(digest,) if digest is not None else ())
        return found

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        del representation, base
        if not source.body.startswith(_MARSHAL):
            return source.body
        # A server that takes the name's ending for a content coding has had it undone.
        return gzip.compress(source.body, mtime=0) if document.endswith(".gz") else zlib.compress(source.body)

    def release(self, key: str, parent: str) -> Release | None:
        kind, _, name = key.partition("/")
        if kind == "info":
            return Release(name)
        if told := _API.fullmatch(key):
            return Release(next(filter(None, told.groups())))
        full = key.rpartition("/")[2].removesuffix(".gemspec.rz").removesuffix(".gem")
        names = _names(full) if kind in ("gems", "quick") else []
        name = parent.removeprefix("info/") if parent.startswith("info/") else next(iter(names), "")
        return Release(name, full.removeprefix(f"{name}-")) if names else None

    def client_lines(self, base: str) -> list[str]:
        return [
            f"bundle config set --global mirror.{self.default_url} {base}",
            f"gem sources --add {base} --remove {self.default_url}",
            f'source "{base}"   # in a Gemfile, where no mirror is wanted',
        ]


def _is_name(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) is not None


def _is_file(file: str, ending: str) -> bool:
    """Whether it is NAME-VERSION or NAME-VERSION-PLATFORM with that ending."""
    return file.endswith(ending) and any(True for _ in _readings(file.removesuffix(ending)))


def _readings(full: str) -> Iterator[tuple[str, str]]:
    """Each way to tell name and version apart: either may hold hyphens, and a version begins with a digit."""
    for hyphen in re.finditer("-", full):
        name, version = full[: hyphen.start()], full[hyphen.end() :]
        if _is_name(name) and _VERSION.fullmatch(version):
            yield name, version


def _names(full: str) -> list[str]:
    """The names that NAME-VERSION can be of, the likeliest first: versions mostly have a dot, platforms seldom."""
    found = sorted(_readings(full), key=lambda reading: "." not in reading[1].partition("-")[0])
    return [name for name, _ in found]


def _listed(document: str, source: Source) -> bytes:
    """
    What stands below the line of dashes.

    :raises regcache.errors.BadDocument: if there is no such line, or the last line has no end.
    """
    head, dashes, rest = source.body.partition(_SEPARATOR)
    if not dashes or len(head) > _MOST_PREAMBLE or (head and not _PREAMBLE.fullmatch(head)):
        raise BadDocument(f"{source.url} is no {document.partition('/')[0]} of a compact index.")
    if rest and not rest.endswith(b"\n"):
        raise BadDocument(f"{source.url} ends in the middle of a line.")
    return rest


def _gem_of(name: str, line: bytes) -> tuple[str, Digest | None]:
    """
    The file of a version and its checksum, from a line such as ``1.0-java dep:>= 1|checksum:HEX,ruby:>= 2.5``.

    The file is empty for what is no version.
    """
    version, _, rest = line.decode("utf-8", "replace").partition(" ")
    if not _VERSION.fullmatch(version):
        return "", None
    for requirement in rest.partition("|")[2].split(","):
        key, _, value = requirement.partition(":")
        if key == "checksum":
            with contextlib.suppress(ValueError):
                return f"{name}-{version}.gem", Digest("sha256", value.strip().lower())
    return f"{name}-{version}.gem", None


def _check_marshal(document: str, source: Source) -> None:
    """
    See that it is what Ruby marshals, and whole: the packing ends with a checksum.

    :raises regcache.errors.BadDocument: if it is not.
    """
    if source.body.startswith(_MARSHAL):
        return
    unpacking = zlib.decompressobj(_GZIP_FORMAT if document.endswith(".gz") else zlib.MAX_WBITS)
    packed, start = source.body, b""
    try:
        while not unpacking.eof:
            part = unpacking.decompress(packed, _PIECE)
            start = start or part[: len(_MARSHAL)]
            packed = unpacking.unconsumed_tail
            if not part and not packed:
                break
    except zlib.error as error:
        raise BadDocument(f"{source.url} cannot be unpacked: {error}.") from None
    if not unpacking.eof or start != _MARSHAL:
        raise BadDocument(f"{source.url} is no whole index of gems.")


def _check_json(source: Source) -> None:
    try:
        json.loads(source.body)
    except (ValueError, RecursionError):
        raise BadDocument(f"{source.url} is not JSON.") from None
