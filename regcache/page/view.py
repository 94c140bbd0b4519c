"""What stands on the page, as the values that its template is filled with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import evolve, frozen

from regcache._version import __version__
from regcache.errors import shown
from regcache.failures import Failed
from regcache.interfaces import IRegistry
from regcache.page.figures import STATES, Figures, Outcomes, Upstream
from regcache.page.packages import Found, Package, Search, Version
from regcache.page.parts import Value, Values
from regcache.store.holding import Condition
from regcache.store.looking import Total
from regcache.words import aged, ago, counted, sized, stamped

__all__ = ["Scene", "live", "view"]

#: How the lines of registries say for which client they are.
_LABELLED = re.compile(r"(.+?) {3}(?:#|//|<!--) (.+?)(?: -->)?")
_NO_SHARE = "\N{EN DASH}"


@frozen(kw_only=True)
class Scene:
    """
    How the service is now, for whoever may know it.

    :ivar registries: those of which may be told, by name.
    :ivar since: when the service started, in seconds since the epoch, as ``now``.
    :ivar usage: bytes and entries in the store; ``limit`` the most bytes, 0 for any.
    :ivar totals: what is stored of each registry, as far as that was counted by now.
    :ivar busy: requests and fetches under way.
    :ivar measured: whether there are numbers for Prometheus.
    :ivar failures: the last ones, the last first.
    """

    registries: Mapping[str, IRegistry]
    now: float
    since: float
    offline: bool
    condition: Condition
    usage: tuple[int, int]
    limit: int
    totals: Mapping[str, Total]
    figures: Figures
    busy: tuple[int, int]
    measured: bool
    failures: Sequence[Failed]


def live(scene: Scene) -> dict[str, str]:
    """The figures that change while somebody looks, by the names under which they stand on the page."""
    size, entries = scene.usage
    answering, fetching = scene.busy
    every = sum(scene.figures.outcomes.values(), Outcomes())
    found = {
        "share": _share(every),
        "requests": counted(every.number, "request"),
        "spared": sized(every.spared),
        "size": sized(size),
        "full": f"{min(100.0, 100 * size / scene.limit):.1f}" if scene.limit else "0",
        "limit": f"of {sized(scene.limit)}" if scene.limit else "no limit is set",
        "entries": f"{entries:,}",
        # Whoever looks is no client.
        "busy": _busy(max(answering - 1, 0), fetching),
    }
    for name in scene.registries:
        told = _of_registry(scene, name)
        found.update({f"{name}.{key}": text for key, text in told.items()})
        for number, upstream in enumerate(scene.figures.upstreams[name]):
            told = _of_upstream(upstream)
            found.update({f"{name}.{number}.{key}": text for key, text in told.items()})
    return found


def _busy(answering: int, fetching: int) -> str:
    if not answering and not fetching:
        return "nothing under way"
    return f"{counted(answering, 'request')} under way, {counted(fetching, 'fetch', 'fetches')}"


def _share(outcomes: Outcomes) -> str:
    return _NO_SHARE if outcomes.share is None else f"{100 * outcomes.share:.0f} %"


def _of_registry(scene: Scene, name: str) -> dict[str, str]:
    outcomes, total = scene.figures.outcomes[name], scene.totals.get(name, Total(0, 0, 0, 0))
    return {
        "share": _share(outcomes),
        "bar": f"{100 * (outcomes.share or 0):.1f}",
        "requests": f"{outcomes.number:,}",
        "spared": sized(outcomes.spared),
        "entries": f"{total.entries:,}",
        "size": sized(total.size),
        "stale": f"{total.stale:,} of {total.documents:,}" if total.documents else "0",
    }


def _of_upstream(one: Upstream) -> dict[str, str]:
    told = [f"answered {ago(one.succeeded)}"] if one.succeeded is not None else []
    if one.failed is not None:
        told.append(f"failed {ago(one.failed)}, {counted(one.errors, 'time')} in all")
    return {"state": one.state, "word": STATES[one.state], "told": ", ".join(told)}


def view(scene: Scene, search: Search, found: Found, base: Callable[[str], str], assets: Mapping[str, str]) -> Values:
    """
    All of it.

    :param base: the URL of a registry's mount, by its name.
    :param assets: the links to what else belongs to the page.
    """
    figures = live(scene)
    name = next(iter(scene.registries), "")
    place = base(name).removesuffix(f"{name}/").rstrip("/").partition("://")[2] if name else ""
    started = f"Running for {aged(max(scene.now - scene.since, 0))}, in front of {_listed(scene.registries)}."
    return {
        **assets,
        **{key: text for key, text in figures.items() if "." not in key},
        "title": f"regcache at {place}" if place else "regcache",
        "place": f"at {place}" if place else "",
        "lead": started,
        "notice": _notice(scene),
        "registries": [_card(scene, name, figures) for name in scene.registries],
        **_packages(scene, search, found),
        "healthy": not scene.failures,
        "troubled": bool(scene.failures),
        "failures": [_failure(scene, one) for one in scene.failures],
        "setups": list(_setups(scene, base)),
        "metrics": scene.measured,
        "version": f"regcache {__version__}",
    }


def _listed(names: Mapping[str, object]) -> str:
    *others, last = names or ["no registry"]
    return f"{', '.join(others)} and {last}" if others else last


def _notice(scene: Scene) -> Sequence[Values]:
    condition = scene.condition
    told = []
    if not condition.writable:
        told.append(("Nothing new can be stored.", shown(condition.why)))
    if condition.index != "sound":
        told.append(("The index is not whole.", f"It is {condition.index}; what is missing is fetched again."))
    if scene.offline:
        told.append(("Offline.", "No registry is asked; only what is stored is answered."))
    return [{"head": head, "text": text} for head, text in told]


def _card(scene: Scene, name: str, figures: Mapping[str, str]) -> Values:
    upstreams = scene.figures.upstreams[name]
    own = {key.removeprefix(f"{name}."): text for key, text in figures.items() if key.startswith(f"{name}.")}
    told: list[Value] = [
        {
            "id": f"{name}.{number}",
            "origin": one.origin,
            **{key: own[f"{number}.{key}"] for key in ("state", "word", "told")},
        }
        for number, one in enumerate(upstreams)
    ]
    kind: str = scene.registries[name].options.type
    kinds: list[Value] = [] if kind == name else [kind]
    return {**own, "name": name, "kind": kinds, "upstreams": told}


def _packages(scene: Scene, search: Search, found: Found) -> dict[str, Value]:
    options: list[Value] = [{"name": name, "chosen": name == search.registry} for name in scene.registries]
    page: dict[str, Value] = {
        "text": search.text,
        "stale": search.stale,
        "options": options,
        "result": _result(search, found),
        "clear": search.asked or bool(search.package),
        "empty": _nothing(scene, search, found),
        "list": bool(found.packages),
        "packages": [_package(scene, search, one) for one in found.packages],
        "pager": found.pages > 1,
        "where": f"Page {search.page:,} of {found.pages:,}",
    }
    last = min(search.page - 1, found.pages)
    page["previous"] = [{"href": f"{evolve(search, page=last).query}#packages"}] if search.page > 1 else []
    further = search.page < found.pages
    page["next"] = [{"href": f"{evolve(search, page=search.page + 1).query}#packages"}] if further else []
    return page


def _result(search: Search, found: Found) -> str:
    if not found.packages:
        return ""
    if search.package:
        return "All that is stored of one package."
    number = ("At least " if found.more else "") + counted(found.number, "package")
    if not search.text and not search.stale:
        return f"{number}, what was used last first."
    return f"{number} found." + (" A longer name finds fewer." if found.more and search.text else "")


def _nothing(scene: Scene, search: Search, found: Found) -> Sequence[Values]:
    """Why no package is listed, and what to do."""
    if found.packages:
        return []
    if found.why:
        return [{"head": "The packages cannot be listed now.", "text": shown(found.why), "action": False}]
    if not search.asked and not search.package and search.page == 1:
        text = "Point a client here: what it installs is kept, and listed here with its versions."
        return [{"head": "Nothing is cached yet.", "text": text, "action": True}]
    if search.stale and not search.text:
        text = "Every index page was vouched for by its registry within its lifetime."
        return [{"head": "Nothing is stale.", "text": text, "action": False}]
    del scene
    text = "Look for a shorter part of the name, or in all registries."
    return [{"head": "No such package is stored.", "text": text, "action": False}]


def _package(scene: Scene, search: Search, one: Package) -> Values:
    newest = one.versions[0].number if one.versions else ""
    told = [counted(one.number, "version" if newest else "file")] if one.number else []
    told.append(sized(one.size))
    if one.checked is not None:
        told.append(f"checked {ago(one.checked)}")
    hidden = one.number > len(one.versions)
    link = {
        "href": f"{evolve(search, package=one.name, registry=one.registry, page=1).query}#packages",
        "link": f"All {one.number:,} versions of {shown(one.name)}",
    }
    more = f"The newest {len(one.versions):,} are shown; regcache ls {one.registry}/{one.name} has them all."
    return {
        "name": shown(one.name),
        "registry": one.registry,
        "state": one.state,
        "word": one.state,
        "told": " · ".join(told),
        "newest": [shown(newest)] if newest else [],
        "open": bool(search.package),
        "none": not one.versions,
        "table": bool(one.versions),
        "caption": shown(one.name),
        "versions": [_version(scene, each) for each in one.versions],
        "all": [{"link": link}] if hidden and not search.package else [],
        "rest": [shown(more)] if hidden and search.package else [],
    }


def _version(scene: Scene, one: Version) -> Values:
    return {
        "number": shown(one.number) or "without a version",
        "withdrawn": one.withdrawn,
        "size": sized(one.size),
        "stored": [{"stamp": stamped(one.stored_at), "ago": ago(max(scene.now - one.stored_at, 0))}],
        "hits": f"{one.hits:,}",
    }


def _failure(scene: Scene, one: Failed) -> Values:
    registry = scene.registries[one.registry]
    release = registry.release(one.key.removeprefix(registry.options.prefix), "")
    what = one.key
    if release is not None and release.package:
        what = f"{release.package} {release.version}".strip()
    return {
        "when": [{"stamp": stamped(one.when), "ago": ago(max(scene.now - one.when, 0))}],
        "registry": one.registry,
        "times": [counted(one.times, "time")] if one.times > 1 else [],
        "what": shown(what),
        "why": one.why,
    }


def _setups(scene: Scene, base: Callable[[str], str]) -> Iterator[Values]:
    empty, few = not scene.usage[1], len(scene.registries) < 3
    for place, (name, registry) in enumerate(scene.registries.items()):
        lines = []
        for number, line in enumerate(registry.client_lines(base(name))):
            told = _LABELLED.fullmatch(line)
            code, label = told.groups() if told else (line, name)
            lines.append({"id": f"line-{place}-{number}", "label": label, "code": code})
        yield {"name": name, "base": base(name), "open": few or (empty and place == 0), "lines": lines}
