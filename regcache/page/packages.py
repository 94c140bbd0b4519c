"""The packages that are stored, as people look for them: by name, by registry, or those that are stale."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from attrs import evolve, frozen

from regcache.http.messages import Kind
from regcache.http.policy import Rules, age_of
from regcache.interfaces import IRegistry
from regcache.outlook import guessed, outlook
from regcache.routes import Release
from regcache.store.looking import Look, Seen, looking

__all__ = ["Found", "Package", "Search", "Version", "find"]

#: Characters of what is looked for.
_MOST_TEXT = 100
#: Packages on a page, versions of each there, and of one that is looked at by itself.
_MOST_PACKAGES, _MOST_VERSIONS, _MOST_OF_ONE = 20, 8, 200
#: Pages that have a number.
_MOST_PAGES = 10_000
_PARTS = re.compile(r"(\d+)|([a-z]+)", re.IGNORECASE)
_SEPARATORS = re.compile(r"[-_.:/ ]+")


@frozen(kw_only=True)
class Search:
    """
    What is looked for.

    :ivar text: a part of a name; empty for what was used last.
    :ivar registry: in which registry alone; empty for all.
    :ivar stale: whether only packages whose index page is past its lifetime are meant.
    :ivar page: which part of what is found, from 1.
    :ivar package: the one package of ``registry`` that is looked at by itself; empty for a list.
    """

    text: str = ""
    registry: str = ""
    stale: bool = False
    page: int = 1
    package: str = ""

    @classmethod
    def of(cls, query: str) -> Search:
        """What the query of a URL says; what it says wrong counts as not said."""
        said = {name: values[-1].strip() for name, values in parse_qs(query).items()}
        number = said.get("page", "")
        page = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 1
        registry = said.get("registry", "")[:_MOST_TEXT]
        return cls(
            text=said.get("q", "")[:_MOST_TEXT],
            registry=registry,
            stale=said.get("stale") == "1",
            page=min(max(page, 1), _MOST_PAGES),
            package=said.get("package", "")[: 10 * _MOST_TEXT] if registry else "",
        )

    @property
    def asked(self) -> bool:
        """Whether anything is looked for at all."""
        return bool(self.text or self.registry or self.stale)

    @property
    def query(self) -> str:
        """The query that says this; relative to the page it is a link."""
        pairs = {"q": self.text, "registry": self.registry, "stale": "1" if self.stale else "", "package": self.package}
        said = {name: value for name, value in pairs.items() if value}
        return "?" + urlencode(said | ({"page": str(self.page)} if self.page > 1 else {}))


@frozen(kw_only=True)
class Version:
    """
    The files of one version that are stored.

    :ivar stored_at: of the newest, in seconds since the epoch; ``used_at`` is when one was last served.
    :ivar withdrawn: whether the registry has taken one back.
    """

    number: str
    files: int
    size: int
    stored_at: float
    used_at: float
    hits: int
    withdrawn: bool


@frozen(kw_only=True)
class Package:
    """
    A package of which something is stored.

    :ivar versions: of those with files the newest, first.
    :ivar number: of all versions with files that were found.
    :ivar checked: seconds since the registry last vouched for its index page; None where none is stored, or where a
        clock was wrong.
    :ivar state: ``fresh``, ``stale``, ``withdrawn``, or ``stored`` where no index page is.
    """

    registry: str
    name: str
    versions: tuple[Version, ...]
    number: int
    size: int
    used_at: float
    checked: float | None
    state: str


@frozen
class Found:
    """
    What a search came to.

    :ivar packages: those on the page asked for.
    :ivar number: of all that were found.
    :ivar more: whether there may be some beyond those, which were not looked at.
    :ivar why: why it came to nothing; empty if it did not fail.
    """

    packages: tuple[Package, ...] = ()
    number: int = 0
    more: bool = False
    why: str = ""

    @property
    def pages(self) -> int:
        """How many pages they make."""
        return max(1, -(-self.number // _MOST_PACKAGES))


@frozen
class _Finder:
    look: Look
    registries: Mapping[str, IRegistry]
    rules: Rules
    now: float

    def lifetimes(self) -> dict[str, float]:
        return {name: one.options.ttl for name, one in self.registries.items()}

    def release(self, one: Seen) -> Release | None:
        registry = self.registries[one.registry]
        # Keys of a further upstream begin with its place.
        members = [registry.options, *registry.options.further]
        prefix = max((each.prefix for each in members if one.key.startswith(each.prefix)), key=len)
        return registry.release(one.key.removeprefix(prefix), one.parent.removeprefix(prefix))

    def grouped(self, seen: Iterable[Seen]) -> dict[tuple[str, str], list[Seen]]:
        """What is of some package, by registry and name, in the order in which it comes."""
        groups: dict[tuple[str, str], list[Seen]] = {}
        for one in seen:
            release = self.release(one)
            if release is not None and release.package:
                groups.setdefault((one.registry, release.package), []).append(one)
        return groups

    def candidates(self, search: Search) -> list[Seen]:
        names = list(self.registries)
        if search.package:
            return self.look.alike(search.package, names)
        if search.stale:
            return self.look.stale(self.lifetimes(), self.now, search.text)
        return self.look.alike(search.text, names) if search.text else self.look.recent(names)

    def package(self, registry: str, name: str, seeds: Sequence[Seen], most: int) -> Package:
        around = self.look.around(seeds, filter(None, map(self._prefix, seeds)))
        own = [(one, release) for one in around if (release := self.release(one)) and release.package == name]
        files: dict[str, list[Seen]] = {}
        for one, release in own:
            if one.kind is Kind.ARTIFACT:
                files.setdefault(release.version, []).append(one)
        versions = [_version(number, some) for number, some in files.items()]
        versions.sort(key=lambda one: _order(one.number), reverse=True)
        checked, state = self._state(
            [one.key for one, release in own if one.kind is Kind.DOCUMENT and not release.version]
        )
        return Package(
            registry=registry,
            name=name,
            versions=tuple(versions[:most]),
            number=len(versions),
            size=sum(one.size for one, _ in own),
            used_at=max(one.used_at for one in seeds),
            checked=checked,
            state=state,
        )

    def _prefix(self, one: Seen) -> str:
        """
        What the keys of all versions of a package begin with, if this one ends with its version; empty where a document
        names them all.
        """
        release = None if one.parent else self.release(one)
        if release is None or not release.version:
            return ""
        at = one.key.rfind(f"/{release.version}/") + 1 or one.key.find(release.version, one.key.rfind("/"))
        return one.key[:at] if at > len(one.registry) + 1 else ""

    def _state(self, pages: Sequence[str]) -> tuple[float | None, str]:
        """How long ago the index page was vouched for, and what it would be called if nobody could be asked now."""
        newest = max(self.look.entries(pages), key=lambda entry: entry.validated_at, default=None)
        meant = None if newest is None else guessed(self.registries, newest)
        if newest is None or meant is None:
            return None, "stored"
        word, _ = outlook(meant, newest, evolve(self.rules, offline=True), self.now)
        age = age_of(newest, self.now)
        return None if math.isinf(age) else age, {"hit": "fresh", "blocked": "withdrawn"}.get(word, word)


def find(directory: Path, registries: Mapping[str, IRegistry], rules: Rules, search: Search, now: float) -> Found:
    """
    The packages that are looked for. It blocks, for a second or so where there are a million entries.

    :param registries: those of which may be told.
    """
    if search.registry:
        registries = {name: one for name, one in registries.items() if name == search.registry}
    if not registries:
        return Found()
    try:
        with looking(directory) as look:
            return _found(_Finder(look, registries, rules, now), search)
    except OSError as error:
        return Found(why=str(error))


def _found(finder: _Finder, search: Search) -> Found:
    seen = finder.candidates(search)
    groups = finder.grouped(seen)
    if search.package:
        one = (search.registry, search.package)
        if one not in groups:
            return Found()
        return Found((finder.package(*one, groups[one], _MOST_OF_ONE),), 1)
    names = list(groups)
    if search.text:
        wanted = _folded(search.text)
        names = [one for one in names if wanted in _folded(one[1])]
        names.sort(key=lambda one: (_folded(one[1]) != wanted, not _folded(one[1]).startswith(wanted), one[1], one[0]))
    elif not search.stale:
        names.sort(key=lambda one: max(each.used_at for each in groups[one]), reverse=True)
    start = (search.page - 1) * _MOST_PACKAGES
    shown = names[start : start + _MOST_PACKAGES]
    packages = (finder.package(*one, groups[one], _MOST_VERSIONS) for one in shown)
    return Found(tuple(packages), len(names), finder.look.cut)


def _version(number: str, files: Sequence[Seen]) -> Version:
    return Version(
        number=number,
        files=len(files),
        size=sum(one.size for one in files),
        stored_at=max(one.stored_at for one in files),
        used_at=max(one.used_at for one in files),
        hits=sum(one.hits for one in files),
        withdrawn=any(one.withdrawn for one in files),
    )


def _folded(name: str) -> str:
    return _SEPARATORS.sub("-", name).lower()


def _order(version: str) -> list[tuple[int, int, str]]:
    """By which versions are sorted: numbers as such, and what ends with a word, as most candidates do, before it."""
    parts = [(2, int(number[:18]), "") if number else (0, 0, word.lower()) for number, word in _PARTS.findall(version)]
    return [*parts, (1, 0, "")]
