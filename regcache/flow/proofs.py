"""
What is known about an artifact, how to find out, and whether a body agrees with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace

from regcache.errors import (
    BadDocument,
    CutShort,
    DigestMismatch,
    NotFound,
    RegCacheError,
    UpstreamError,
)
from regcache.flow.answers import Answer
from regcache.flow.dirhash import WHOLE
from regcache.flow.documents import Documents
from regcache.flow.facts import PackedFact, unpacked
from regcache.http.messages import STRENGTH, Digest, Headers, Stored
from regcache.interfaces import IRegistry
from regcache.routes import Artifact, Document, Fact

__all__ = ["Proofs", "accept", "compared", "place_of", "published", "uncomputed", "verify"]

#: Algorithms by which two bodies that have the same digest can be made: they say nothing beside a stronger one.
_FORGEABLE = frozenset({"md5", "sha1"})


class Proofs:
    """Finds the facts of artifacts in documents."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        # How often one could not be read.
        self._unread = 0

    @property
    def age(self) -> int:
        """
        What the stored documents say of anything is the same as long as this is.

        It is another after one that could not be read: next time it may be.
        """
        return self._documents.age + self._unread

    async def stored(self, registry: IRegistry, route: Artifact) -> Fact | None:
        """What the stored documents say, the newest of them first, without asking anybody."""
        for document, stored in await self._documents.stored(registry, route.documents):
            try:
                facts = self._documents.facts_at_hand(registry, stored)
                if facts is None:
                    facts = await self._documents.facts(registry, document, stored)
                fact = _named(facts, route)
                if fact is None:
                    continue
                return fact if fact.digests or fact.proof is None else await self._completed(registry, route, fact)
            except RegCacheError:
                # It says nothing now; if it is damaged, it is fetched again when it is asked for.
                self._unread += 1
        return None

    async def _completed(self, registry: IRegistry, route: Artifact, fact: Fact) -> Fact:
        """A fact with the digests of the document that it points to, if that is stored."""
        assert fact.proof is not None
        for document, stored in await self._documents.stored(registry, (fact.proof,)):
            try:
                fact = _joined(fact, _named(await self._documents.facts(registry, document, stored), route))
            except RegCacheError:
                # As above.
                self._unread += 1
        return fact

    async def _followed(self, registry: IRegistry, route: Artifact, fact: Fact | None) -> Fact | None:
        """A fact with the digests of the document that it points to, which is asked for; without, if it is not had."""
        if fact is not None and fact.proof is not None and not fact.digests:
            with contextlib.suppress(RegCacheError, TimeoutError):
                fact = _joined(fact, _named(await self._documents.glimpse(registry, fact.proof), route))
        return fact

    async def asked_again(self, registry: IRegistry, route: Artifact) -> Fact | None:
        """What the stored index says once it has been revalidated; None if none is stored, or it cannot be asked."""
        for document, _ in await self._documents.stored(registry, (*route.indexes, *route.sidecars)):
            with contextlib.suppress(RegCacheError, TimeoutError):
                fact = _named(await self._documents.refreshed(registry, document), route)
                return await self._followed(registry, route, fact)
        return None

    async def prove(
        self, registry: IRegistry, route: Artifact, known: Fact | None, wanted: Callable[[], bool] = lambda: True
    ) -> Fact | None:
        """
        The cheapest proof that can be had beside the artifact; None if its index names none.

        :param known: what is known without a proof.
        :param wanted: whether the artifact is there to be proven; nobody is asked any more if it is not.
        :raises regcache.errors.UpstreamError: if nobody could be asked.
        """
        followed = await self._followed(registry, route, known)
        if followed is not None and followed.digests:
            return followed
        fact, trouble = None, None
        if route.proof is not None:
            try:
                fact = _named(await self._documents.glimpse(registry, route.proof), route)
                fact = await self._followed(registry, route, fact)
            except NotFound:
                pass
            except (RegCacheError, TimeoutError) as error:
                trouble = _unasked(error)
        for document in route.indexes[:1] if route.proof else route.indexes:
            if fact is None:
                fact = await self._from_index(registry, route, document)
        if fact is None and route.sidecars:
            fact = await self._documents.beside(registry, route, wanted)
        if fact is None and trouble is not None:
            # An index that is in several parts need not name all that there is.
            raise trouble
        return known if fact is None else fact

    async def _from_index(self, registry: IRegistry, route: Artifact, document: Document) -> Fact | None:
        try:
            fact = _named(await self._documents.refreshed(registry, document), route)
            return await self._followed(registry, route, fact)
        except NotFound:
            return None
        except (RegCacheError, TimeoutError) as error:
            raise _unasked(error) from None


def _unasked(error: Exception) -> UpstreamError:
    return UpstreamError(getattr(error, "detail", "") or "Its index does not come in time.")


def _named(facts: Mapping[str, PackedFact], route: Artifact) -> Fact | None:
    found = facts.get(route.named)
    return None if found is None else unpacked(found)


def _joined(fact: Fact, further: Fact | None) -> Fact:
    """What two documents say of one artifact: the first where it is, the second what it is."""
    if further is None:
        return fact
    return replace(fact, digests=further.digests, size=fact.size if further.size is None else further.size)


def place_of(registry: IRegistry, route: Artifact, fact: Fact | None) -> str:
    """Where an artifact is upstream, as far as it is known."""
    told = "" if fact is None or route.fixed else fact.url
    return told if told and (told == route.url or registry.allows(told)) else route.url


def published(route: Artifact, fact: Fact | None) -> list[Digest]:
    """The published digests of the strongest algorithm among them."""
    told = _told(route, fact)
    strongest = Digest.strongest(told)
    return [] if strongest is None else [digest for digest in told if digest.algorithm == strongest.algorithm]


def _told(route: Artifact, fact: Fact | None) -> tuple[Digest, ...]:
    return route.digests if fact is None else (*route.digests, *fact.digests)


def compared(registry: IRegistry, route: Artifact, fact: Fact | None, *, kept: bool) -> set[str]:
    """
    The algorithms by which to hash a body as it comes: those by which it may be held against what is published.

    What its address proves of it counts only where its index states nothing stronger.

    :param fact: what is known of it beforehand.
    :param kept: whether it is written: it is named by its SHA-256 then, and can be read again should a digest of
        another algorithm turn out to be published.
    """
    told = [digest.algorithm for digest in fact.digests] if fact is not None else []
    own = [digest.algorithm for digest in route.digests]
    strongest = min([name for name in (*told, *own) if name not in WHOLE], key=STRENGTH.index, default="")
    if not kept:
        return set(told) - WHOLE.keys() if strongest in told else set(STRENGTH)
    if not own:
        return {"sha256", *told, *registry.algorithms}
    return {"sha256", *told} if strongest in told else {"sha256", *told, *own}


def uncomputed(route: Artifact, fact: Fact | None, digests: Iterable[Digest], *, kept: bool = True) -> str:
    """
    The algorithm of the strongest published digest, if that is not among those computed; else nothing.

    :param kept: whether the body can be read again; if not, any that is computed, that the index states as well, and
        that nobody can forge, will do.
    """
    told, computed = published(route, fact), {digest.algorithm for digest in digests}
    if not told or told[0].algorithm in computed:
        return ""
    if kept or fact is None:
        return told[0].algorithm
    others = {digest.algorithm for digest in fact.digests} - _FORGEABLE
    return told[0].algorithm if computed.isdisjoint(others) else ""


def verify(route: Artifact, fact: Fact | None, size: int, digests: Iterable[Digest], url: str) -> bool:
    """
    Whether a published digest agrees with the body; False if none was published.

    :param digests: those of the body.
    :raises regcache.errors.DigestMismatch: if one does not agree.
    """
    if fact is not None and fact.size is not None and fact.size != size:
        raise DigestMismatch(f"{url} has {size} bytes; {fact.size} were published.")
    found = {digest.algorithm: digest for digest in digests}
    told = _told(route, fact)
    strongest = Digest.strongest([digest for digest in told if digest.algorithm in found])
    if strongest is None:
        return False
    own = found[strongest.algorithm]
    if own not in told:
        # Of several digests of one algorithm any will do (W3C SRI section 3.3.4).
        raise DigestMismatch(f"{url}: {own.algorithm} is {own.value}, published was {strongest.value}.")
    return True


def accept(
    route: Artifact, fact: Fact | None, size: int, digests: Iterable[Digest], answer: Answer, stored: Stored | None
) -> bool:
    """
    Whether what came is proven; what is not may still be taken, unless it looks like something else.

    :param stored: what was stored for it before, if anything.
    :raises regcache.errors.UpstreamError: if it is not to be taken.
    """
    if verify(route, fact, size, digests, answer.url):
        return True
    if answer.coding:
        raise CutShort(f"It came in the content coding {answer.coding!r}, which was not asked for.")
    # A login or an error, with 200 and in place of a package.
    elsewhere = bool(route.content_type) or (stored is not None and _kind(stored.headers) != "text/html")
    if elsewhere and _kind(answer.headers) == "text/html":
        raise BadDocument(f"{answer.url} came as a web page.")
    if route.content_type and "json" not in route.content_type and _kind(answer.headers) == "application/json":
        raise BadDocument(f"{answer.url} came as JSON.")
    return False


def _kind(headers: Headers) -> str:
    return headers.get("content-type").partition(";")[0].strip().lower()
