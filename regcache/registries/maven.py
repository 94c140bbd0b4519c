"""Maven repositories (Maven, Gradle, sbt, Ivy, coursier): artifacts, their checksums, and what lists them."""

from __future__ import annotations

import re
from urllib.parse import unquote
from xml.parsers import expat

from zope.interface import implementer

from regcache.errors import BadDocument, MethodNotAllowed, NotFound
from regcache.http.messages import Digest, RequestHead
from regcache.http.paths import quote, segments
from regcache.interfaces import IRegistry
from regcache.registries.plain import Confined
from regcache.routes import Artifact, Checksum, Document, Fact, Facts, RegistryOptions, Release, Route, Source

__all__ = ["Maven"]

#: The checksums that may lie beside every file, by the end of their names; the strongest first.
_SUMS = {".sha512": "sha512", ".sha256": "sha256", ".sha1": "sha1", ".md5": "md5"}
_LENGTHS = {"sha512": 128, "sha256": 64, "sha1": 40, "md5": 32}
_METADATA = "maven-metadata.xml"
_SIGNATURE = ".asc"
_SNAPSHOT = "SNAPSHOT"
#: What stands in place of SNAPSHOT in the name of a file that was deployed under a time of its own.
_TIMED = re.compile(r"\d{8}\.\d{6}-\d+(?=[-.])")
_TYPES = {
    "asc": "text/plain",
    "jar": "application/java-archive",
    "module": "application/vnd.org.gradle.module+json",
    "pom": "text/xml",
    "xml": "text/xml",
}
_PLAIN, _BINARY = "text/plain", "application/octet-stream"
#: Bytes; what is longer, or a web page, is no checksum.
_MOST_SUM = 4096
#: Where well-known upstreams send those who ask them.
_SERVED_FROM = {
    "https://maven.google.com/": ("https://dl.google.com/",),
    "https://plugins.gradle.org/m2/": (
        "https://plugins-artifacts.gradle.org/",
        "https://repo.maven.apache.org/",
        "https://repo1.maven.org/",
    ),
}
#: Directories above a file that may end the group that it is of, if its name tells nothing.
_MOST_GROUPS = 20
_READ_ONLY = "Deploying goes to the repository itself."


@implementer(IRegistry)
class Maven(Confined):
    """
    A Maven 2 repository.

    Nothing links to anything, so nothing is rewritten. A released file never changes; metadata, files of a SNAPSHOT
    that carry no time in their name, and whatever else lies there may.
    """

    default_url = "https://repo1.maven.org/maven2/"
    option_names: tuple[str, ...] = ()
    version = 1
    algorithms = ("sha512", "sha1", "md5")

    def __init__(self, options: RegistryOptions) -> None:
        super().__init__(options, *_SERVED_FROM.get(options.url, ()))

    # Requests.

    def route(self, request: RequestHead) -> Route:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(_READ_ONLY)
        parts = tuple(part for part in segments(request.path) if part)
        if not parts or request.path.endswith("/"):
            raise NotFound("Directories are not listed here.")
        path = "/".join(map(quote, parts))
        of, algorithm = _split(path)
        if not algorithm:
            return self._file(path)
        if _split(of)[1]:
            raise NotFound("A checksum has no checksum.")
        file = self._file(of)
        published = None if isinstance(file, Document) else self._sum(path, file.family)
        return Checksum(of=file, algorithm=algorithm, published=published)

    def _file(self, path: str) -> Document | Artifact:
        name = path.rpartition("/")[2]
        if name == _METADATA:
            return Document(
                key=path,
                url=self.options.url + path,
                representation="as-is",
                content_type=_TYPES["xml"],
                packages=_packages(path),
                sidecars=tuple(self._sum(path + end, path) for end in _SUMS),
            )
        family = path.rpartition("/")[0] or "."
        of = path.removesuffix(_SIGNATURE)
        signed = self._file(of) if of != path and not of.endswith(("/", _SIGNATURE)) else None
        suffix = name.rpartition(".")[2].lower()
        return Artifact(
            key=path,
            url=self.options.url + path,
            content_type="" if suffix in ("html", "htm") else _TYPES.get(suffix, _BINARY),
            mutable=not _is_fixed(path),
            sidecars=tuple(self._sum(path + end, family) for end in _SUMS),
            family=family,
            beside=signed if isinstance(signed, Artifact) else None,
            digest_fields=(("x-checksum-sha1", "sha1"),),
            packages=_packages(path),
        )

    def _sum(self, path: str, family: str) -> Document:
        return Document(
            key=path, url=self.options.url + path, representation="as-is", content_type=_PLAIN, family=family
        )

    # Documents.

    def facts(self, document: str, source: Source) -> Facts:
        of, algorithm = _split(document)
        if not algorithm:
            _check_metadata(source)
            return Facts()
        found = None
        if len(source.body) <= _MOST_SUM and not source.body.lstrip().startswith(b"<"):
            text = source.body.decode("ascii", "replace").lower()
            found = re.search(rf"(?<![0-9a-f])[0-9a-f]{{{_LENGTHS[algorithm]}}}(?![0-9a-f])", text)
        if found is None:
            raise BadDocument(f"{source.url} holds no {algorithm}.")
        return Facts({of: Fact(url=self.options.url + of, digests=(Digest(algorithm, found[0]),))})

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        del representation, base
        self.facts(document, source)
        return source.body

    def release(self, key: str, parent: str) -> Release | None:
        del parent
        *folders, file = map(unquote, _split(key)[0].split("/"))
        if file == _METADATA and not "".join(folders[-1:]).endswith(_SNAPSHOT):
            # It may be a group's as well, for its plugins; an artifact's is by far the commonest.
            folders.append("")
        if len(folders) < 3:
            return None
        *group, artifact, version = folders
        return Release(f"{'.'.join(group)}:{artifact}", version)

    def client_lines(self, base: str) -> list[str]:
        mirror = f"<mirror><id>regcache</id><mirrorOf>*</mirrorOf><url>{base}</url></mirror>"
        insecure = "; allowInsecureProtocol = true" if base.startswith("http:") else ""
        return [
            f"{mirror}   <!-- Maven: in <mirrors> of ~/.m2/settings.xml -->",
            f"maven {{ url '{base}'{insecure} }}   // Gradle: in repositories {{ }}, also of pluginManagement",
        ]


def _split(path: str) -> tuple[str, str]:
    """What a checksum is of, and its algorithm; the path itself and nothing if it is none."""
    of, dot, end = path.rpartition(".")
    algorithm = _SUMS.get(dot + end, "")
    return (of, algorithm) if algorithm and not of.endswith("/") and of else (path, "")


def _packages(path: str) -> tuple[str, ...]:
    """
    ``GROUP:ARTIFACT`` of a path, or what it may be, if that cannot be told from the groups above it.

    For a group alone it is ``GROUP:``.
    """
    *directories, file = map(unquote, path.split("/"))
    count = len(directories)
    told = count > 2 and (
        file.startswith("-".join(directories[-2:]).removesuffix(_SNAPSHOT))
        or (file == _METADATA and directories[-1].endswith(_SNAPSHOT))
    )
    # Metadata may be a version's, an artifact's or a group's; another file may lie at whatever depth.
    depth = 2 if file == _METADATA else _MOST_GROUPS
    begins = [count - 2] if told else range(max(count - depth, 1), count + 1)
    return tuple(f"{'.'.join(directories[:at])}:{''.join(directories[at : at + 1])}" for at in begins)


def _is_fixed(path: str) -> bool:
    """Whether a file is one of a released version, or of a SNAPSHOT with the time of its deployment in the name."""
    parts = path.split("/")
    if len(parts) < 4:
        return False
    artifact, version, file = parts[-3:]
    begin = f"{artifact}-{version}"
    if not version.endswith(_SNAPSHOT):
        return file.startswith((f"{begin}.", f"{begin}-"))
    before = f"{artifact}-{version.removesuffix(_SNAPSHOT)}"
    return file.startswith(before) and _TIMED.match(file, len(before)) is not None


def _check_metadata(source: Source) -> None:
    """
    See that it is whole and is metadata.

    :raises regcache.errors.BadDocument: if it is not.
    """
    roots: list[str] = []

    def started(name: str, _attributes: object) -> None:
        if not roots:
            roots.append(name.rpartition(" ")[2])

    def declared(*_: object) -> None:
        # Entities can be made to grow without end, and no metadata has any.
        raise BadDocument(f"{source.url} declares entities.")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = started
    parser.EntityDeclHandler = declared
    try:
        parser.Parse(source.body, True)
    except expat.ExpatError as error:
        raise BadDocument(f"{source.url} is not XML: {error}.") from None
    if roots != ["metadata"]:
        raise BadDocument(f"{source.url} is no metadata of a repository.")
