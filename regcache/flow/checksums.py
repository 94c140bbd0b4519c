"""Answers for checksums, which are computed from the bytes that they are of."""

from __future__ import annotations

import hashlib

from regcache.errors import NotFound, Offline, UpstreamError
from regcache.flow.artifacts import Artifacts
from regcache.flow.context import Context
from regcache.flow.documents import Documents
from regcache.flow.reply import How, Reply
from regcache.http.fields import format_date
from regcache.http.messages import Headers, RequestHead, Stored
from regcache.interfaces import IRegistry
from regcache.routes import Artifact, Checksum, Document

__all__ = ["Checksums"]

#: Bytes that are hashed at once; more go to a thread.
_AT_ONCE = 1 << 18


class Checksums:
    """
    Answers for checksums.
    """

    def __init__(self, context: Context, documents: Documents, artifacts: Artifacts) -> None:
        self._context, self._documents, self._artifacts = context, documents, artifacts

    async def answer(self, registry: IRegistry, route: Checksum, request: RequestHead) -> Reply:
        """
        The digest of what this client is sent, or was sent a moment ago, for the address that the checksum is of.

        A stored copy that nobody has vouched for gets the upstream's own checksum, so that the client sees whether it
        is good; while the upstream cannot say, it gets one of its own like any other.

        :raises regcache.errors.RegCacheError: if there is none to be had.
        """
        if isinstance(route.of, Document):
            return await self._of_document(registry, route, route.of, request)
        entry = await self._artifacts.entry(registry, route.of, request)
        computed = None if entry is None else self._computed(route, route.of, entry)
        if entry is not None and computed is not None and entry.verified:
            return computed
        try:
            if route.published is None:
                raise NotFound(f"No {route.algorithm} of it is published.")
            return await self._documents.answer(registry, route.published, request)
        except (UpstreamError, Offline):
            if computed is None:
                raise
            return computed

    async def _of_document(
        self, registry: IRegistry, route: Checksum, document: Document, request: RequestHead
    ) -> Reply:
        body, how = await self._documents.sent(registry, document, request)

        def hashed() -> str:
            return hashlib.new(route.algorithm, body).hexdigest()

        value = hashed() if len(body) <= _AT_ONCE else await self._context.in_thread(hashed)
        return _reply(value, how, {})

    def _computed(self, route: Checksum, of: Artifact, entry: Stored) -> Reply | None:
        values = [digest.value for digest in entry.digests if digest.algorithm == route.algorithm]
        if not values:
            return None
        self._context.store.used(entry.key, self._context.now())
        fields = {"last-modified": entry.headers.get("last-modified") or format_date(entry.stored_at)}
        if entry.verified and not of.mutable:
            fields["cache-control"] = "public, max-age=31536000, immutable"
        return _reply(values[0], How.HIT, fields)


def _reply(value: str, how: How, fields: dict[str, str]) -> Reply:
    own = {"content-type": "text/plain", "etag": f'"{value}"', "cache-control": "max-age=0", **fields}
    return Reply(status=200, headers=Headers.of(own), body=value.encode(), how=how)
