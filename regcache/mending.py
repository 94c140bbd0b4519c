"""Asking registries again for what is stored: because somebody wants it current, or because it was found damaged."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from regcache.errors import RegCacheError
from regcache.house import House
from regcache.http.messages import Kind, Stored
from regcache.outlook import as_it_was, document_of, route_of
from regcache.routes import Artifact, Document
from regcache.store.disk import DiskStore
from regcache.store.listing import named_in
from regcache.store.scrub import Reading

__all__ = ["Mending"]

#: Entries of one damaged body that are fetched again at once.
_MOST_NAMES = 20
_LATER = "fetched when it is next wanted"


class Mending:
    """The refresh path of a running service; every outcome is a few words for a person."""

    def __init__(self, house: House, store: DiskStore) -> None:
        self._house, self._store = house, store

    async def refreshed(self, entry: Stored) -> str:
        """Have a document asked for now."""
        cache = self._house.cache
        meant = document_of(self._house.registries, entry)
        if meant is None:
            cache.context.note(replace(entry, validated_at=0.0))
            return "asked for when it is next wanted"
        failed = await self._failure(cache.refreshed(meant.registry, meant.route))  # type: ignore[arg-type]
        if failed:
            return failed
        now = await cache.context.find(entry.key)
        return "unchanged" if now is not None and now.digest == entry.digest else "changed"

    async def mended(self, reading: Reading) -> dict[str, str]:
        """Have a damaged body dropped, and what it was the body of fetched again; what came of each, by key."""
        house = self._house
        directory = Path(house.config.cache_dir)
        named: list[Stored] = await house.cache.context.in_thread(named_in, directory, reading.digest, _MOST_NAMES)
        await self._store.condemn(reading)
        return {entry.key: await self._refetched(entry) for entry in named}

    async def _refetched(self, entry: Stored) -> str:
        cache = self._house.cache
        meant = None
        if entry.kind is not Kind.DERIVED:
            served = self._house.registries
            meant = route_of(served, entry) or as_it_was(served, entry)
        # A resource is asked for with the fields of whoever wants it.
        if meant is None or not isinstance(meant.route, Document | Artifact):
            return _LATER
        failed = await self._failure(cache.refetched(meant.registry, meant.route))
        if failed:
            return failed
        await cache.settled()
        return "fetched again" if await cache.context.find(entry.key) is not None else _LATER

    @staticmethod
    async def _failure(asking: Coroutine[Any, Any, None]) -> str:
        try:
            await asking
        except RegCacheError as error:
            return f"failed: {error.text}"
        except TimeoutError:
            return "failed: The registry is slow; the asking goes on."
        return ""
