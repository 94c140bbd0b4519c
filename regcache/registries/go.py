"""The module proxy of Go: versions, their files, and the checksum databases that the proxy passes on."""

from __future__ import annotations

import re

from msgspec.structs import replace
from zope.interface import implementer

from regcache.errors import BadDocument, ConfigError, MethodNotAllowed, NotFound
from regcache.http.messages import Digest, RequestHead
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.ownership import matches
from regcache.registries.jsontext import read_object
from regcache.registries.plain import Confined
from regcache.routes import Artifact, Document, Fact, Facts, RegistryOptions, Release, Route, Source

__all__ = ["Go", "is_canonical"]

_PUBLIC_DATABASE = "sum.golang.org"
#: Where the public proxy redirects to for zip files, and might for sums.
_WELL_KNOWN = ("https://storage.googleapis.com/", f"https://{_PUBLIC_DATABASE}/")
_TEXT, _JSON, _BINARY = "text/plain; charset=utf-8", "application/json", "application/octet-stream"
_AS_IS, _FIRST = "as-is", "first"
#: Escaped, in lower case; no element begins or ends with a dot (golang.org/x/mod/module, CheckPath).
_ELEMENT = re.compile(r"(?!\.)(?:[a-z0-9._~+-]|![a-z])+(?<!\.)")
#: Escaped; a version, or what a branch or a tag may be called.
_VERSION = re.compile(r"""(?:[^A-Z!"'*<>?`|/:@]|![a-z])+""")
_NUMBER = r"(?:0|[1-9][0-9]*)"
_MARK = rf"(?:{_NUMBER}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMANTIC = re.compile(rf"(v{_NUMBER})\.{_NUMBER}\.{_NUMBER}(?:-{_MARK}(?:\.{_MARK})*)?(\+incompatible)?")
_MAJOR = re.compile(r".*/(v(?:[2-9]|[1-9][0-9]+))")
_GOPKG_MAJOR = re.compile(rf"gopkg\.in/.*\.(v{_NUMBER})(?:-unstable)?")
_FILES = {"info": _JSON, "mod": _TEXT, "zip": "application/zip"}
_DATABASE = re.compile(r"[a-z0-9.-]+(?::[0-9]+)?")
#: A tile of a checksum database: its height, its level, its number and, of one not full yet, its width.
_TILE = re.compile(
    r"tile/(?P<height>[1-9]|[12][0-9]|30)/(?P<level>data|[0-9]{1,2})/(?:x[0-9]{3}/)*[0-9]{3}"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,9}))?"
)
_MOST_ELEMENTS = 100
_HASH_SIZE = 32
_HINT = "An upper-case letter is written as an exclamation mark and its lower-case letter, as !a for A."


@implementer(IRegistry)
class Go(Confined):
    """
    A module proxy (https://go.dev/ref/mod#goproxy-protocol).

    A module's zip and go.mod files are proven by the sums that the checksum database has of them, which is asked
    by way of the upstream: the option ``sumdb`` names the database, or is ``off``. The public one is never asked for
    modules that belong to the upstream alone (``names``).
    """

    default_url = "https://proxy.golang.org/"
    option_names: tuple[str, ...] = ("sumdb",)
    version = 1
    algorithms: tuple[str, ...] = ()

    def __init__(self, options: RegistryOptions) -> None:
        super().__init__(options, *(_WELL_KNOWN if options.url == self.default_url else ()))
        self._database = options.extra.get("sumdb", _PUBLIC_DATABASE)
        if self._database != "off" and not _DATABASE.fullmatch(self._database):
            raise ConfigError("sumdb wants the name of a checksum database, without its key, or off.")

    # Requests.

    def route(self, request: RequestHead) -> Route:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("Modules are published where their source is.")
        parts = [part for part in segments(request.path) if part]
        if parts[:1] == ["sumdb"] and len(parts) > 2:
            return self._checksums(parts[1], "/".join(parts[2:]))
        if parts[-1:] == ["@latest"]:
            module = _checked(parts[:-1])
            return self._document(f"{module}/@latest", _JSON, packages=_named(module))
        if parts[-2:-1] == ["@v"]:
            return self._file(_checked(parts[:-2]), parts[-1])
        raise NotFound("A module proxy has MODULE/@v/list, MODULE/@v/VERSION.info, .mod and .zip, and MODULE/@latest.")

    def _url(self, key: str) -> str:
        return self.options.url + "/".join(map(quote, key.split("/")))

    def _document(
        self, key: str, content_type: str, *, mutable: bool = True, packages: tuple[str, ...] = ()
    ) -> Document:
        return Document(
            key=key,
            url=self._url(key),
            representation=_AS_IS,
            content_type=content_type,
            mutable=mutable,
            packages=packages,
        )

    def _file(self, module: str, file: str) -> Route:
        if file == "list":
            return self._document(f"{module}/@v/list", _TEXT, packages=_named(module))
        version, _, kind = file.rpartition(".")
        if kind not in _FILES or not _VERSION.fullmatch(version):
            raise NotFound(f"{file!r} is no file of a version: there are .info, .mod and .zip. {_HINT}")
        lasting = is_canonical(_unescaped(module), _unescaped(version))
        key = f"{module}/@v/{file}"
        if kind == "info":
            return self._document(key, _JSON, mutable=not lasting, packages=_named(module))
        return Artifact(
            key=key,
            url=self._url(key),
            content_type=_FILES[kind],
            mutable=not lasting,
            indexes=self._sums(module, version) if lasting else (),
            packages=_named(module),
            sound_by=f"{kind}_h1",
        )

    def _sums(self, module: str, version: str) -> tuple[Document, ...]:
        """What the checksum database knows of a version, if it may be asked."""
        if self._database == "off" or (self._database == _PUBLIC_DATABASE and self._is_own(module)):
            return ()
        return (self._lookup(self._database, module, version),)

    def _is_own(self, module: str) -> bool:
        """Whether it belongs to this upstream alone."""
        return any(matches(pattern, name) for name in _named(module) for pattern in self.options.names)

    def _lookup(self, database: str, module: str, version: str) -> Document:
        key = f"sumdb/{database}/lookup/{module}@{version}"
        return self._document(key, _TEXT, mutable=False, packages=_named(module))

    def _checksums(self, database: str, path: str) -> Document:
        if not _DATABASE.fullmatch(database):
            raise NotFound("That is no name of a checksum database.")
        operation, _, rest = path.partition("/")
        if path in ("supported", "latest"):
            return self._document(f"sumdb/{database}/{path}", _TEXT)
        if operation == "lookup":
            module, _, version = rest.rpartition("@")
            if not _VERSION.fullmatch(version):
                raise NotFound(f"{version!r} is no version. {_HINT}")
            module = _checked(module.split("/"))
            if database == _PUBLIC_DATABASE and self._is_own(module):
                raise NotFound(f"{module} is this upstream's alone, and is not told to {database}: set GONOSUMDB.")
            return self._lookup(database, module, version)
        tile = _TILE.fullmatch(path)
        if tile is None:
            raise NotFound("A checksum database has supported, latest, lookup/MODULE@VERSION and tile/H/L/N.")
        made = self._document(f"sumdb/{database}/{path}", _BINARY, mutable=False)
        if tile["width"] is None or tile["level"] == "data":
            return made
        # A tile only grows: the full one begins with all that it was before.
        full = self._document(f"sumdb/{database}/{path.partition('.p/')[0]}", _BINARY, mutable=False)
        serves = replace(full, representation=f"{_FIRST} {tile['width']}")
        return replace(made, instead=serves, spares=(serves,))

    # Documents.

    def facts(self, document: str, source: Source) -> Facts:
        if source.content_type.partition(";")[0].strip().lower() == "text/html":
            raise BadDocument(f"{source.url} came as a web page.")
        kind, _, rest = document.partition("/")
        if kind != "sumdb":
            self._read_version(document, source)
            return Facts()
        path = rest.partition("/")[2]
        tile = _TILE.fullmatch(path)
        if path.startswith("lookup/"):
            return self._sums_of(path.removeprefix("lookup/"), source)
        if tile is not None and tile["level"] != "data":
            width = tile["width"] or 1 << int(tile["height"])
            if len(source.body) != int(width) * _HASH_SIZE:
                raise BadDocument(f"{source.url} has {len(source.body)} bytes, which is not the size of that tile.")
        elif path == "latest" and not source.body.startswith(b"go.sum database tree\n"):
            raise BadDocument(f"{source.url} is no signed tree of a checksum database.")
        return Facts()

    @staticmethod
    def _read_version(document: str, source: Source) -> None:
        """See that a list, or what is known of one version, is that."""
        path, _, file = document.rpartition("/")
        if file == "list":
            # It may be empty; a line may say more behind the version.
            if any(not line.startswith(b"v") for line in source.body.split()[:1]):
                raise BadDocument(f"{source.url} is no list of versions.")
            return
        found = read_object(source).get("Version")
        asked = _unescaped(file.removesuffix(".info"))
        wrong = is_canonical(_unescaped(path.removesuffix("/@v")), asked) and found != asked
        if not isinstance(found, str) or not found or wrong:
            raise BadDocument(f"{source.url} does not describe {asked}.")

    def _sums_of(self, version: str, source: Source) -> Facts:
        """What a record of a checksum database says of the files of a version."""
        module, _, number = version.rpartition("@")
        record = source.body.decode("utf-8", "replace").partition("\n\n")[0].split("\n")[1:]
        found = Facts()
        for kind, name in (("zip", ""), ("mod", "/go.mod")):
            begin = f"{_unescaped(module)} {_unescaped(number)}{name} h1:"
            for line in record:
                if line.startswith(begin):
                    digest = _digest(f"{kind}_h1", line.removeprefix(begin), source)
                    key = f"{module}/@v/{number}.{kind}"
                    found[key] = Fact(url=self._url(key), digests=(digest,))
        if not found:
            raise BadDocument(f"{source.url} says nothing of that version.")
        return found

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        del base
        self.facts(document, source)
        form, _, width = representation.partition(" ")
        return source.body[: int(width) * _HASH_SIZE] if form == _FIRST else source.body

    def release(self, key: str, parent: str) -> Release | None:
        del parent
        if key.startswith("sumdb/"):
            module, at, version = key.partition("/lookup/")[2].rpartition("@")
        else:
            module, at, version = key.rpartition("/@")
            version = version.removeprefix("v/").rpartition(".")[0]
        return Release(_unescaped(module), _unescaped(version)) if at else None

    def client_lines(self, base: str) -> list[str]:
        return [f"go env -w GOPROXY={base.rstrip('/')}"]


def is_canonical(module: str, version: str) -> bool:
    """
    Whether this is the one name of a version, which never changes, or a question such as for a branch, ``v1`` or a
    commit (golang.org/x/mod/module, Check).

    :param module: its path, unescaped.
    :param version: unescaped.
    """
    found = _SEMANTIC.fullmatch(version)
    if found is None:
        return False
    major, incompatible = found[1], found[2]
    gopkg, path_major = _GOPKG_MAJOR.fullmatch(module), _MAJOR.fullmatch(module)
    if gopkg is not None:
        return not incompatible and (major == gopkg[1] or (gopkg[1] == "v1" and version.startswith("v0.0.0-")))
    if path_major is not None:
        return not incompatible and major == path_major[1]
    return major in ("v0", "v1") or bool(incompatible)


def _checked(parts: list[str]) -> str:
    """The escaped path of a module."""
    if not parts or len(parts) > _MOST_ELEMENTS or not all(map(_ELEMENT.fullmatch, parts)):
        raise NotFound(f"{'/'.join(parts)!r} is no path of a module as proxies are asked for it. {_HINT}")
    return "/".join(parts)


def _named(module: str) -> tuple[str, ...]:
    """What an escaped path of a module tells: its name, and those of the modules that it may be a package of."""
    parts = _unescaped(module).split("/")
    return tuple("/".join(parts[:number]) for number in range(len(parts), 0, -1))


def _unescaped(text: str) -> str:
    return re.sub("!([a-z])", lambda found: found[1].upper(), text)


def _digest(algorithm: str, text: str, source: Source) -> Digest:
    try:
        return Digest.from_base64(algorithm, text.strip())
    except ValueError:
        raise BadDocument(f"{source.url} holds a sum that is none.") from None
