"""Bodies that stand in the store already and are what an index states: nobody has to be asked for them."""

from __future__ import annotations

from regcache.errors import CannotStore, DigestMismatch
from regcache.flow.context import Context
from regcache.flow.hashing import Hashing
from regcache.flow.proofs import published, verify
from regcache.http.messages import Headers, Kind, Stored
from regcache.interfaces import IRegistry
from regcache.logs import Log
from regcache.routes import Artifact, Fact

__all__ = ["adopted", "entry_of"]

_log = Log()


def entry_of(
    context: Context,
    registry: IRegistry,
    route: Artifact,
    hashing: Hashing,
    *,
    url: str,
    headers: Headers,
    size: int,
    proven: bool,
) -> Stored:
    """The record of an artifact that was accepted."""
    now, digests = context.now(), hashing.digests()
    options = registry.options
    return Stored(
        key=options.prefix + route.key,
        registry=options.name,
        kind=Kind.ARTIFACT,
        parent=options.prefix + route.family if route.family else "",
        url=url,
        headers=headers,
        digest=next(digest.value for digest in digests if digest.algorithm == "sha256"),
        size=size,
        digests=digests,
        verified=proven,
        stored_at=now,
        validated_at=now,
    )


async def adopted(context: Context, registry: IRegistry, route: Artifact, fact: Fact | None) -> Stored | None:
    """
    The entry of an artifact whose body stood in the store, without this name or any, and is the one that is published.

    So is what a damaged index had lost, and what another registry of this cache has brought.
    """
    if route.mutable or route.sound_by or (fact is not None and not route.is_there(fact)):
        return None
    for digest in published(route, fact):
        hashing = Hashing({"sha256", digest.algorithm, *registry.algorithms})
        partial = await context.store.adopt(digest, hashing.feed)
        if partial is None:
            continue
        url = route.url if fact is None else fact.url
        size = partial.written
        try:
            verify(route, fact, size, hashing.digests(), url)
            entry = entry_of(context, registry, route, hashing, url=url, headers=Headers(), size=size, proven=True)
            await context.store.commit(partial, entry)
        except DigestMismatch:
            partial.abort()
            continue
        except CannotStore:
            return None
        _log.info("{key}: its body was stored already; the registry is not asked for it.", key=entry.key)
        return entry
    return None
