"""
What most registries have in common, to be inherited from: :class:`Confined` is what all share, :class:`Plain` all but
what requests and documents mean, :class:`Tree` is a whole registry out of a table of the kinds of files that lie there.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import field, frozen
from zope.interface import implementer

from regcache.errors import BadDocument, MethodNotAllowed, NotFound
from regcache.http.messages import STRENGTH, Digest, RequestHead
from regcache.http.origins import Origins
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.routes import Artifact, Document, Fact, Facts, RegistryOptions, Release, Route, Source
from regcache.values import items

__all__ = ["Confined", "Named", "Plain", "Reader", "Row", "Tree"]

_TEXT = "text/plain; charset=utf-8"
_GZIP = b"\x1f\x8b"
_PAGE = re.compile(rb"\s*<(?:!doctype html|html)\b", re.IGNORECASE)


class Confined:
    """
    Asks its own hosts alone, and tells errors as plain text: what every registry does that does not say otherwise.

    :param also: URLs of further hosts that are its own.
    """

    def __init__(self, options: RegistryOptions, *also: str) -> None:
        self.options = options
        self._origins = Origins.of([options.url, *also], options.artifact_hosts)

    def allows(self, url: str) -> bool:
        """As :class:`regcache.interfaces.IRegistry` says."""
        return self._origins.allows(url)

    def error(self, status: int, text: str) -> tuple[str, bytes]:
        """As :class:`regcache.interfaces.IRegistry` says."""
        del status
        return _TEXT, text.encode() + b"\n"


@implementer(IRegistry)
class Plain(Confined):
    """
    A registry of which only :meth:`means` has to be said: it has one upstream, rewrites nothing, tells errors as plain
    text, and has no documents until :meth:`facts` is overridden.

    :cvar well_known: URLs of further hosts that belong to the public upstream, ``default_url``.
    :cvar read_only: what whoever wants to publish is told.
    :cvar lines: lines that point clients here; ``{base}`` stands for the mount, which ends with ``/``.
    """

    default_url = ""
    option_names: tuple[str, ...] = ()
    version = 1
    algorithms: tuple[str, ...] = ("sha256",)
    well_known: tuple[str, ...] = ()
    read_only = "Only reading is passed on; publish at the registry itself."
    lines: tuple[str, ...] = ()

    def __init__(self, options: RegistryOptions) -> None:
        super().__init__(options, *(self.well_known if options.url == self.default_url else ()))

    def route(self, request: RequestHead) -> Route:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(self.read_only)
        found = self.means(segments(request.path), request)
        if found is None:
            raise NotFound(f"That is no address of a registry of the type {self.options.type}.")
        return found

    def means(self, parts: tuple[str, ...], request: RequestHead) -> Route | None:
        """
        What a GET or HEAD means; None for what means nothing here.

        :param parts: the decoded segments of the path, none of which climbs or holds a slash; some may be empty.
        """
        raise NotImplementedError

    def place(self, path: str) -> str:
        """The URL upstream of a decoded path below the upstream's."""
        return self.options.url + "/".join(map(quote, path.split("/")))

    def facts(self, document: str, source: Source) -> Facts:
        raise BadDocument(f"{document} of {source.url} is no index.")

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        del representation, base
        # It has been read for its facts already. Some servers take a name that ends so for a content coding, which has
        # been undone then.
        coded = document.endswith(".gz") and not source.body.startswith(_GZIP)
        return gzip.compress(source.body, mtime=0) if coded else source.body

    def release(self, key: str, parent: str) -> Release | None:
        del parent
        return Release(key.partition("?")[0])

    def client_lines(self, base: str) -> list[str]:
        return [line.replace("{base}", base) for line in self.lines]


@frozen
class Named:
    """
    What an index says about one file.

    :ivar path: decoded; below the index's own folder, or with a slash at its beginning below the upstream's URL.
    :ivar digests: in hexadecimal, by algorithm; what is no such digest counts as not published.
    :ivar size: in bytes, if it is told.
    """

    path: str
    digests: Mapping[str, str] = field(factory=dict)
    size: int | None = None


#: Reads an index: whatever goes wrong in it means that the body is no index. It may be called in a helper process.
Reader = Callable[[bytes], Iterable[Named]]


@frozen(kw_only=True)
class Row:
    """
    One kind of file in a :class:`Tree`.

    :ivar path: a regular expression for the whole decoded path, which has no slash at its beginning. What a group named
        after a digest algorithm matches proves the body, as in ``by-hash/(?P<sha256>[0-9a-f]{64})``; what the group
        ``package`` matches is the name of a package, for the option ``names``.
    :ivar mutable: whether the upstream may change the file under its name. An index always may.
    :ivar indexes: the files that name this one, the likeliest first: paths in which ``{group}`` stands for what a group
        of ``path`` has matched, and ``{option}`` for each value of an option of the type. Each is to be one that a row
        with ``reads`` stands for.
    :ivar reads: what reads this file, if it is an index. It is then fetched whole and read before anybody gets it, and
        held against what its own ``indexes`` say by then.
    :ivar content_type: what to serve it as; empty for what the upstream says, or for an index plain text.
    """

    path: str
    mutable: bool = False
    indexes: tuple[str, ...] = ()
    reads: Reader | None = None
    content_type: str = ""


class Tree(Plain):
    """
    A tree of files of known kinds, served as they are.

    The first row of the table that stands for a path counts; there is nothing at a path for which none stands.

    :cvar defaults: of the options in ``option_names`` that ``indexes`` speak of: values separated by commas.
    """

    table: tuple[Row, ...] = ()
    defaults: Mapping[str, str] = {}

    def __init__(self, options: RegistryOptions) -> None:
        super().__init__(options)
        said = {**self.defaults, **options.extra}
        self._values = [[(name, value) for value in items(said[name])] for name in self.option_names if name in said]

    def means(self, parts: tuple[str, ...], request: RequestHead) -> Route | None:
        del request
        return self.file("/".join(part for part in parts if part))

    def file(self, path: str) -> Document | Artifact | None:
        """The file at a decoded path."""
        row, groups = self._row(path)
        if row is None:
            return None
        packages = (groups["package"],) if groups.get("package") else ()
        named = [self.file(index) for index in self._indexes(row, groups)]
        indexes = tuple(one for one in named if isinstance(one, Document))
        if row.reads is not None:
            return Document(
                key=path,
                url=self.place(path),
                representation="as-is",
                content_type=row.content_type or _TEXT,
                sidecars=indexes,
                packages=packages,
            )
        try:
            digests = tuple(Digest(name, groups[name]) for name in STRENGTH if groups.get(name))
        except ValueError:
            return None
        return Artifact(
            key=path,
            url=self.place(path),
            content_type=row.content_type,
            mutable=row.mutable,
            digests=digests,
            indexes=indexes,
            packages=packages,
        )

    def _indexes(self, row: Row, groups: Mapping[str, str]) -> list[str]:
        said = [{**groups, **dict(values)} for values in itertools.product(*self._values)]
        return list(dict.fromkeys(index.format_map(one) for index in row.indexes for one in said))

    def _row(self, path: str) -> tuple[Row | None, dict[str, str]]:
        for row in self.table:
            found = re.fullmatch(row.path, path)
            if found:
                return row, found.groupdict(default="")
        return None, {}

    def release(self, key: str, parent: str) -> Release | None:
        _, groups = self._row(key)
        if groups.get("package"):
            return Release(groups["package"], groups.get("version", ""))
        return super().release(key, parent)

    def facts(self, document: str, source: Source) -> Facts:
        row, _ = self._row(document)
        if row is None or row.reads is None:
            return super().facts(document, source)
        try:
            named = list(row.reads(source.body))
        except Exception as error:
            raise BadDocument(f"{source.url} is no index: {type(error).__name__}: {error}"[:500]) from None
        if not named and _PAGE.match(source.body):
            # A lenient reader finds nothing in it, and an empty index may be one.
            raise BadDocument(f"{source.url} came as a web page.")
        return Facts(dict(self._facts(posixpath.dirname(document), named)))

    def _facts(self, folder: str, named: Iterable[Named]) -> Iterator[tuple[str, Fact]]:
        for one in named:
            path = posixpath.normpath(posixpath.join("/", folder, one.path)).lstrip("/")
            digests = []
            for algorithm, value in one.digests.items():
                with contextlib.suppress(ValueError):
                    digests.append(Digest(algorithm, value.lower()))
            yield path, Fact(url=self.place(path), digests=tuple(digests), size=one.size)
