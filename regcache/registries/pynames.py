"""How Python's projects and the files of their releases are named."""

from __future__ import annotations

import re

from packaging.utils import InvalidName, canonicalize_name

__all__ = ["ARCHIVES", "SIDECARS", "is_archive", "normal", "projects_of", "version_of"]

#: How the names of package files end: what pip and setuptools install, and what was once uploaded beside it.
ARCHIVES = (
    ".whl",
    ".egg",
    ".zip",
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.lz", ".tlz", ".tar.lzma", ".tar.Z"),
    *(".exe", ".msi", ".rpm", ".deb", ".dmg"),
)
_LOWER_ARCHIVES = tuple(suffix.lower() for suffix in ARCHIVES)
_ENDS = tuple(zip(ARCHIVES, _LOWER_ARCHIVES, strict=True))
#: Files that lie beside a package file, and are named after it.
SIDECARS = (".metadata", ".provenance", ".asc")


def is_archive(path: str) -> bool:
    """Whether a path ends as the names of package files do."""
    return path.lower().endswith(_LOWER_ARCHIVES)


def normal(name: str) -> str:
    """The normalised form of a project's name (PEP 503), or nothing for what is none."""
    if name.isascii() and name.isalnum():
        # There is nothing to replace in it.
        return name.lower()
    try:
        return canonicalize_name(name, validate=True) if name.isascii() else ""
    except InvalidName:
        return ""


#: Archives that were built: they name version, tags and so on behind the first dash.
_BUILT = (".whl", ".egg", ".exe", ".msi", ".rpm", ".deb", ".dmg")


def _stem(file: str) -> tuple[str, str]:
    """The name of a file without its suffix, and that; both empty for what is no archive, nor beside one."""
    if file.endswith(SIDECARS):
        for sidecar in SIDECARS:
            file = file.removesuffix(sidecar)
    lower = file.lower()
    for suffix, end in _ENDS:
        if lower.endswith(end):
            return file[: -len(suffix)], suffix
    return "", ""


def projects_of(file: str) -> list[str]:
    """The projects that a file's name says it may belong to, the likeliest first."""
    stem, suffix = _stem(file)
    if suffix in _BUILT:
        name = normal(stem.partition("-")[0])
        return [name] if name else []
    # In a source archive names may hold a dash, and versions of the first years as well.
    names = [stem.rpartition("-")[0], *re.findall(r"^(.+?)-\d", stem)]
    return list(dict.fromkeys(filter(None, map(normal, names))))


def version_of(file: str, project: str) -> str:
    """The version of a project that a file's name says it is of."""
    stem, suffix = _stem(file)
    if suffix in _BUILT:
        return stem.partition("-")[2].partition("-")[0]
    cuts = (found.start() for found in re.finditer("-", stem))
    return next((stem[cut + 1 :] for cut in cuts if normal(stem[:cut]) == project), stem.rpartition("-")[2])
