"""Answers for the page: itself, the figures that change, and what a browser needs beside."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.python.filepath import FilePath
from twisted.web.template import XMLFile

from regcache.errors import NotFound, TooBusy
from regcache.flow.reply import Reply
from regcache.flow.waiting import Outcome, spawn, within
from regcache.http.messages import Headers
from regcache.interfaces import IRegistry
from regcache.page.figures import figures
from regcache.page.packages import Found, Search, find
from regcache.page.parts import filled
from regcache.page.view import Scene, live, view
from regcache.store.looking import Total, looking

if TYPE_CHECKING:
    from regcache.house import House

__all__ = ["PLACE", "Page"]

#: Below this is what belongs to the page.
PLACE = "/-/page/"
#: Searches under way; the next is refused.
_MOST_SEARCHES = 4
#: Seconds for which what is stored of each registry is not counted again; a count may take a second where there are a
#: million entries. The longest that a page waits for the first.
_COUNTED_FOR, _LONGEST_COUNT = 30.0, 2.0
_TYPES = {"style.css": "text/css; charset=utf-8", "script.js": "text/javascript; charset=utf-8"}
_TYPES["icon.svg"] = "image/svg+xml"
#: Nothing from elsewhere, nothing in the markup, and nothing that leads others' pages here.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_FOR_BROWSERS = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
_HTML = {"content-type": "text/html; charset=utf-8", "cache-control": "no-store", "vary": "Accept", **_FOR_BROWSERS}
_JSON = {"content-type": "application/json", "cache-control": "no-store"}


class Page:
    """
    The page of one service.

    What it says takes no more than a few bounded looks at the index, in a thread, and few of them at a time.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._searches = 0
        self._totals: dict[str, Total] = {}
        self._counted_at: float | None = None
        self._counting: Outcome[None] | None = None
        # What they are made with is an extra, and its import costs memory.
        self._measured = find_spec("prometheus_client") is not None
        folder = files(__package__)
        self._assets = {name: (folder / name).read_bytes() for name in _TYPES}
        self._loader = XMLFile(FilePath(str(folder / "template.xml")))
        self._links = {
            name.partition(".")[0]: f"{PLACE[1:]}{name}?v={hashlib.sha256(body).hexdigest()[:12]}"
            for name, body in self._assets.items()
        }
        self._links["live"] = f"{PLACE[1:]}figures.json"

    async def shown(self, query: str, served: Mapping[str, IRegistry], base: Callable[[str], str]) -> Reply:
        """
        The page.

        :param served: the registries that may be told of.
        :param base: the URL of a registry's mount, by its name.
        :raises regcache.errors.TooBusy: if many look for something already.
        """
        if self._searches >= _MOST_SEARCHES:
            raise TooBusy(f"{self._searches} searches are under way.")
        search = Search.of(query)
        self._searches += 1
        # A search goes on in its thread, whoever leaves meanwhile; so it counts until it is over.
        found = await spawn(self._found(search, served)).wait()
        await self._count()
        scene = self._scene(served)
        body = await self._house.cache.context.in_thread(
            lambda: filled(self._loader, view(scene, search, found, base, self._links))
        )
        return Reply(status=200, headers=Headers.of(_HTML), body=b"<!DOCTYPE html>\n" + body + b"\n")

    async def beside(self, path: str, served: Mapping[str, IRegistry]) -> Reply:
        """
        What belongs to the page.

        :param path: below :data:`PLACE`.
        :raises regcache.errors.NotFound: if nothing does.
        """
        if path == "figures.json":
            await self._count()
            body = json.dumps(live(self._scene(served))).encode()
            return Reply(status=200, headers=Headers.of(_JSON), body=body)
        if path not in self._assets:
            raise NotFound(f"Beside the page there are {', '.join(self._assets)} and figures.json.")
        # Its link has another query once it is another one.
        fields = {"content-type": _TYPES[path], "cache-control": "private, max-age=31536000, immutable"}
        return Reply(status=200, headers=Headers.of(fields | _FOR_BROWSERS), body=self._assets[path])

    async def _found(self, search: Search, served: Mapping[str, IRegistry]) -> Found:
        context = self._house.cache.context
        try:
            found: Found = await context.in_thread(find, self._directory, served, context.rules, search, context.now())
            return found
        finally:
            self._searches -= 1

    @property
    def _directory(self) -> Path:
        return Path(self._house.config.cache_dir)

    async def _count(self) -> None:
        """See that what is stored of each registry was counted lately, or will be soon."""
        clock = self._house.cache.context.clock
        old = self._counted_at is None or clock.seconds() - self._counted_at >= _COUNTED_FOR
        if old and (self._counting is None or self._counting.known):
            self._counting = spawn(self._count_now())
        if self._counted_at is None and self._counting is not None:
            with contextlib.suppress(TimeoutError):
                await within(clock, _LONGEST_COUNT, self._counting.wait())

    async def _count_now(self) -> None:
        context = self._house.cache.context
        lifetimes = {name: one.options.ttl for name, one in self._house.registries.items()}

        def work() -> dict[str, Total]:
            with looking(self._directory) as look:
                return look.totals(lifetimes, context.now())

        try:
            self._totals = await context.in_thread(work)
        except OSError:
            # The page says so where it lists the packages.
            self._totals = {}
        finally:
            self._counted_at = context.clock.seconds()

    def _scene(self, served: Mapping[str, IRegistry]) -> Scene:
        house = self._house
        context = house.cache.context
        return Scene(
            registries=served,
            now=context.now(),
            since=house.since,
            offline=house.config.offline,
            condition=house.condition(),
            usage=context.store.usage(),
            limit=house.config.max_size,
            totals=self._totals,
            figures=figures(context, served),
            measured=self._measured,
            busy=(house.answering, house.cache.fetching),
            failures=context.upstream.counts.failures.of(served),
        )
