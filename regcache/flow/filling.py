"""
Filling the cache with artifacts: one upstream request each at a time, verified, stored, and shared while it lasts.
"""

from __future__ import annotations

import functools
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regcache.errors import CannotStore, Crowded, DigestMismatch, RegCacheError, UpstreamError
from regcache.flow.adopting import adopted
from regcache.flow.context import Context
from regcache.flow.documents import Documents
from regcache.flow.proofs import Proofs, uncomputed, verify
from regcache.flow.transfer import Transfer
from regcache.flow.work import Fill, Work
from regcache.http.messages import Stored
from regcache.interfaces import IRegistry
from regcache.logs import Log
from regcache.routes import Artifact

__all__ = ["Filling"]

_log = Log()


class Filling:
    """
    The requests for artifacts.

    One full request per artifact at a time: ``_fills`` holds it from before it is sent until the body's entry can be
    found in the store, so that whoever asks in between joins it.
    """

    def __init__(self, context: Context, documents: Documents) -> None:
        self.proofs = Proofs(documents)
        self._context = context
        self._fills: dict[str, Fill] = {}
        # Those that nobody joins any more, since a document says otherwise, until they have gone from the store again.
        self._disproved: dict[str, Transfer] = {}
        self._transfers: set[Transfer] = set()
        # Those of which the whole body is not here yet, or not found good.
        self._coming: set[Transfer] = set()
        # Those of the others that wait for the disk and have a file.
        self._behind: set[Transfer] = set()

    @property
    def transfers(self) -> list[Transfer]:
        """The bodies under way."""
        return list(self._transfers)

    def under_way(self, key: str) -> Fill | None:
        """The fill that a request for this artifact would join."""
        fill = self._fills.get(key)
        return fill if fill is not None and fill.transfer.joinable else None

    def fill(self, registry: IRegistry, route: Artifact, key: str, stored: Stored | None) -> Fill:
        """
        The fill under way for this artifact if it can still be joined, or a new one.

        :param key: of its entry.
        :raises regcache.errors.Crowded: if too many others are under way.
        """
        fill = self.under_way(key)
        if fill is None:
            if len(self._coming) >= self._context.limits.transfers:
                raise Crowded(f"{len(self._coming)} artifacts are being fetched.")
            transfer = Transfer(self._context.clock, key, self._context.unstored)
            fill = self._fills[key] = Fill(transfer, transfer.began)
            self._transfers.add(transfer)
            self._coming.add(transfer)
            transfer.done.tell(functools.partial(self._filled, key, fill))
            # While so many wait for the disk, the next ones pass through without being stored.
            storable = len(self._behind) < self._context.limits.transfers
            behind, before = self._behind if storable else None, self._disproved.get(key)
            work = Work(self._context, self.proofs, registry, route, fill, stored, self._coming, behind, before)
            Deferred.fromCoroutine(work.run()).addErrback(self._broken, transfer)
        return fill

    async def recheck(self, registry: IRegistry, route: Artifact, key: str) -> None:
        """
        Nobody joins a body any more that waits for the disk, once a document has come that says otherwise of it.

        Nor one of which it says what the body was not hashed by.
        """
        fill = self.under_way(key)
        entry = None if fill is None else fill.found.value
        if fill is None or entry is None or not route.documents or fill.age == self.proofs.age:
            return
        age = self.proofs.age
        try:
            fact = await self.proofs.stored(registry, route)
            if fact is not None and fact.digests and uncomputed(route, fact, entry.digests):
                raise DigestMismatch(f"{entry.url} is published by another digest now.")
            verify(route, fact, entry.size, entry.digests, entry.url)
            fill.age = age
        except DigestMismatch:
            # It goes as soon as it is stored.
            if self._fills.get(key) is fill:
                del self._fills[key]
                self._disproved[key] = fill.transfer

    async def adopt(self, registry: IRegistry, route: Artifact) -> Stored | None:
        """The entry of an artifact whose body is stored, and is what the stored index says; nobody is asked."""
        return await adopted(self._context, registry, route, await self.proofs.stored(registry, route))

    def _filled(self, key: str, fill: Fill, _none: None, failure: Failure | None) -> None:
        if failure is not None:
            counts = self._context.upstream.counts
            counts.failures.note(self._context.now(), key, failure.value)
            counts.unverified += isinstance(failure.value, DigestMismatch)
        for some in (self._transfers, self._coming, self._behind):
            some.discard(fill.transfer)
        if not fill.found.known:
            fill.found.fail(CannotStore("Nothing that can be stored came of it."))
        if self._fills.get(key) is fill:
            del self._fills[key]
        if self._disproved.get(key) is fill.transfer:
            del self._disproved[key]

    @staticmethod
    def _broken(failure: Any, transfer: Transfer) -> None:
        error = failure.value
        if not isinstance(error, RegCacheError):
            _log.failure("{key}: a bug ended the fetch.", failure=failure, key=transfer.key)
            error = UpstreamError("It could not be fetched.")
        transfer.fail(error)
