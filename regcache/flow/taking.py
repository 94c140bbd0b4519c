"""
Taking index documents that come: unpacked, joined to what is stored where only the end came, hashed, and held against
the digests that came with them.
"""

from __future__ import annotations

from attrs import evolve, frozen
from twisted.internet.defer import DeferredSemaphore

from regcache.errors import DigestMismatch, TooLarge
from regcache.flow.answers import Answer
from regcache.flow.asking import kept
from regcache.flow.collect import collect, decoded
from regcache.flow.context import Context
from regcache.flow.growing import Misfit, agrees, joined, published, tagged
from regcache.flow.hashing import Hashing
from regcache.http.messages import Digest, Headers
from regcache.routes import Document, Source

__all__ = ["Taken", "Taking"]

#: Bytes of a document that are unpacked and hashed at once; larger ones go to a thread, a few at a time.
_AT_ONCE = 1 << 18
_MOST_IN_THREADS = 2


@frozen
class Taken:
    """
    A document that has come.

    :ivar headers: the fields worth keeping.
    :ivar digest: its SHA-256, in hexadecimal.
    :ivar digests: further digests of it.
    :ivar proven: whether one that was published with it agrees.
    """

    source: Source
    headers: Headers
    digest: str
    digests: tuple[Digest, ...] = ()
    proven: bool = False


class Taking:
    """Takes documents."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._unpacking = DeferredSemaphore(_MOST_IN_THREADS)

    async def take(self, route: Document, answer: Answer, before: Source | None = None) -> Taken:
        """
        A document as it came, not read yet.

        :param before: what is stored, where the answer is only its new end.
        :raises regcache.errors.UpstreamError: if it does not come whole, or not as it was published.
        :raises Misfit: if the end that came does not belong to what is stored.
        """
        most, there = self._context.max_index_size, len(before.body) if before is not None else 0
        raw = await collect(answer, max(most - there, 1), self._context.in_thread)

        def made(most: int) -> Taken:
            if before is None:
                return _proven(route, answer, raw, decoded(raw, answer.coding, most))
            return _grown(route, answer, raw, before)

        try:
            if len(raw) + there > _AT_ONCE:
                raise TooLarge()
            return made(_AT_ONCE)
        except TooLarge:
            taken: Taken = await self._unpacking.run(self._context.in_thread, made, most)
            return taken


def _proven(route: Document, answer: Answer, raw: bytes, body: bytes) -> Taken:
    """
    :param raw: the body as it was sent, of which the digests may be if it was coded.
    """
    told = published(answer.headers) if route.grows else ()
    tags = tagged(route, answer.headers) if route.grows else ()
    algorithms = {"sha256", *([route.etag] if route.etag else []), *(digest.algorithm for digest in told)}
    found = _digests(body, algorithms)
    proven = agrees(told or tags, found)
    if told and not proven:
        # RFC 9530 speaks of the coded form; those who append to what they have can only use digests of the other.
        proven = bool(answer.coding) and agrees(told, _digests(raw, algorithms))
        if not proven and answer.status == 200:
            raise DigestMismatch(f"{answer.url} does not match the digest that came with it.")
    return Taken(
        source=Source(body=body, content_type=answer.headers.get("content-type"), url=answer.url),
        headers=kept(answer.headers),
        digest=next(digest.value for digest in found if digest.algorithm == "sha256"),
        digests=tuple(digest for digest in found if digest.algorithm == route.etag),
        proven=proven,
    )


def _grown(route: Document, answer: Answer, raw: bytes, before: Source) -> Taken:
    taken = _proven(route, answer, raw, joined(before.body, raw, answer))
    if not taken.proven:
        raise Misfit(f"{answer.url}: nothing proves that the end that came belongs to what is stored.")
    if "content-type" in taken.headers or not before.content_type:
        return taken
    # A part need not say again what the whole is.
    return evolve(
        taken,
        source=evolve(taken.source, content_type=before.content_type),
        headers=taken.headers.replacing({"content-type": before.content_type}),
    )


def _digests(body: bytes, algorithms: set[str]) -> tuple[Digest, ...]:
    hashing = Hashing(algorithms)
    hashing.feed(body)
    return hashing.digests()
