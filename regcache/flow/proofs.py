"""
What is known about an artifact, how to find out, and whether a body agrees with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from regcache.errors import BadDocument, CutShort, DigestMismatch, RegCacheError
from regcache.flow.documents import Documents
from regcache.flow.fetching import unpacked
from regcache.flow.upstream import Answer
from regcache.http.messages import Digest
from regcache.interfaces import IRegistry
from regcache.routes import Artifact, Document, Fact

__all__ = ["Proofs", "accept", "verify"]


class Proofs:
    """Finds the facts of artifacts in documents."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def stored(self, registry: IRegistry, route: Artifact) -> Fact | None:
        """What the stored documents say, without asking anybody."""
        return (await self._look(registry, route))[0]

    async def _look(self, registry: IRegistry, route: Artifact) -> tuple[Fact | None, list[Document]]:
        """What the stored documents say, and which they are."""
        named = [*route.indexes, *([route.proof] if route.proof else [])]
        found = await self._documents.stored(registry, named)
        for document, stored in found:
            facts = await self._documents.facts(registry, document, stored)
            if route.key in facts:
                return unpacked(facts[route.key]), []
        return None, [document for document, _ in found]

    async def locate(self, registry: IRegistry, route: Artifact) -> tuple[Fact | None, bool]:
        """
        What is known about the artifact, and whether its index is stored.

        A file that the stored index does not name revalidates that index once.
        """
        fact, silent = await self._look(registry, route)
        if fact is not None:
            return fact, True
        for document in route.indexes:
            if document in silent:
                return await self._fact_from(registry, route, document), True
        return None, False

    async def prove(self, registry: IRegistry, route: Artifact) -> Fact | None:
        """The cheapest proof that can be had beside the artifact, or None."""
        fact = await self._glimpsed(registry, route, route.proof) if route.proof else None
        for document in route.indexes[:1] if route.proof else route.indexes:
            if fact is None:
                fact = await self._fact_from(registry, route, document)
        return fact

    async def _glimpsed(self, registry: IRegistry, route: Artifact, document: Document) -> Fact | None:
        try:
            facts = await self._documents.glimpse(registry, document)
        except (RegCacheError, TimeoutError):
            return None
        return unpacked(facts[route.key]) if route.key in facts else None

    async def _fact_from(self, registry: IRegistry, route: Artifact, document: Document) -> Fact | None:
        try:
            facts = await self._documents.refreshed(registry, document)
        except (RegCacheError, TimeoutError):
            return None
        return unpacked(facts[route.key]) if route.key in facts else None


def verify(route: Artifact, fact: Fact | None, size: int, digests: Iterable[Digest], url: str) -> bool:
    """
    Whether a published digest agrees with the body; False if none was published.

    :param digests: those of the body.
    :raises regcache.errors.DigestMismatch: if one does not agree.
    """
    if fact is not None and fact.size is not None and fact.size != size:
        raise DigestMismatch(f"{url} has {size} bytes; {fact.size} were published.")
    found = {digest.algorithm: digest for digest in digests}
    published = (*route.digests, *(fact.digests if fact is not None else ()))
    strongest = Digest.strongest(digest for digest in published if digest.algorithm in found)
    if strongest is None:
        return False
    if found[strongest.algorithm] != strongest:
        raise DigestMismatch(
            f"{url}: {strongest.algorithm} is {found[strongest.algorithm].value}, published was {strongest.value}."
        )
    return True


def accept(route: Artifact, fact: Fact | None, size: int, digests: Iterable[Digest], answer: Answer) -> bool:
    """
    Whether what came is proven; what is not may still be taken, unless it looks like something else.

    :raises regcache.errors.UpstreamError: if it is not to be taken.
    """
    if verify(route, fact, size, digests, answer.url):
        return True
    if answer.coding:
        raise CutShort(f"It came in the content coding {answer.coding!r}, which was not asked for.")
    if route.content_type and answer.headers.get("content-type").partition(";")[0].strip().lower() == "text/html":
        # A login or an error, with 200 and in place of a package.
        raise BadDocument(f"{answer.url} came as a web page.")
    return False
