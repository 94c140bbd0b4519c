"""The stored copies of artifacts as answers: their fields, for how long they stand, and which were sent last."""

from __future__ import annotations

import math

from attrs import define

from regcache.errors import BlobDamaged
from regcache.flow.context import JUST_NOW, Bounded, Context
from regcache.flow.lifetimes import age_told, cache_control_of, vouched_at
from regcache.flow.reply import How, Reply, Standing
from regcache.http.fields import date_as_sent, format_date
from regcache.http.messages import Headers, Stored
from regcache.interfaces import IBody, IRegistry
from regcache.logs import Log
from regcache.routes import Artifact

__all__ = ["AtHand", "Copies", "fields_of"]

_log = Log()
_MOST_SERVED = 2_000
_FOREVER, _NAME = "public, max-age=31536000, immutable", "content-disposition"


def fields_of(registry: IRegistry, route: Artifact, upstream: Headers, *, lasting: bool) -> list[tuple[str, str]]:
    """
    The fields that each answer with an artifact has.

    :param upstream: those that its upstream answered with.
    :param lasting: whether the body is found good, and so is the same for ever unless the route says otherwise.
    """
    return [*_alike(registry, route, upstream, lasting=lasting), *_named(upstream)]


def _alike(registry: IRegistry, route: Artifact, upstream: Headers, *, lasting: bool) -> tuple[tuple[str, str], ...]:
    """Those that most answers with artifacts of a registry have alike."""
    kind = route.content_type or upstream.get("content-type") or "application/octet-stream"
    for_ever = lasting and not route.mutable
    return (
        ("content-type", kind),
        ("cache-control", _FOREVER if for_ever else cache_control_of(registry, upstream, "max-age=0")),
        ("accept-ranges", "bytes"),
    )


def _named(upstream: Headers) -> list[tuple[str, str]]:
    """How it is to be called, if its upstream says so."""
    return [(_NAME, upstream.get(_NAME))] if _NAME in upstream else []


@define(eq=False)
class AtHand:
    """
    A small stored copy with its body, which is the answer: what it says is only put together for whoever wants that.

    :ivar until: how long it will surely be the answer, by the wall clock.
    """

    _copies: Copies
    _registry: IRegistry
    route: Artifact
    stored: Stored
    body: bytes
    until: float

    @property
    def alike(self) -> tuple[tuple[str, str], ...]:
        """The fields, the first of its answer, that many others have as well."""
        return _alike(self._registry, self.route, self.stored.headers, lasting=self.stored.verified)

    def own(self, now: float) -> list[tuple[str, str]]:
        """All others that its answer has, in their order, at that time by the wall clock."""
        return _own(self._registry, self.route, self.stored, now)

    def given(self) -> None:
        """It is sent to a client now, without :meth:`reply`."""
        self._copies.noted(self.route, self.stored)

    def reply(self) -> Reply:
        """The whole answer; nobody is told that it is sent."""
        return self._copies.reply(self._registry, self.route, self.stored, self.body, How.HIT, self.until)


class Copies:
    """The answers that are stored copies."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # The copy of a mutable one that was sent last, and when.
        self._served: Bounded[str, tuple[Stored, float]] = Bounded(_MOST_SERVED)

    def just_served(self, key: str) -> Stored | None:
        """The copy that was sent a moment ago; of what may change only."""
        entry, when = self._served.get(key) or (None, 0.0)
        return entry if self._context.clock.seconds() - when < JUST_NOW else None

    def forget(self, key: str) -> None:
        """Another body than the stored one is sent now."""
        self._served.drop(key)

    def given(
        self, registry: IRegistry, route: Artifact, stored: Stored, how: How, until: float = -math.inf
    ) -> Reply | None:
        """
        The stored copy, which is sent to a client now; None if it is damaged.

        :param until: how long it will surely be the answer, by the wall clock.
        """
        try:
            body = self._context.store.open(stored)
        except BlobDamaged as error:
            _log.error("{key}: {why} It is fetched again.", key=stored.key, why=error.text)
            return None
        self._context.store.used(stored.key, self._context.now())
        self.noted(route, stored)
        return self.reply(registry, route, stored, body, how, until)

    def reply(
        self, registry: IRegistry, route: Artifact, stored: Stored, body: bytes | IBody, how: How, until: float
    ) -> Reply:
        """
        The stored copy with that body. Nobody is told that it is sent.

        :param until: as for :meth:`given`.
        """
        now = self._context.now()
        alike = _alike(registry, route, stored.headers, lasting=stored.verified)
        standing = self._standing(registry, route, stored, until) if stored.validated_at <= now < until else None
        return Reply(
            status=200,
            headers=Headers((*alike, *_own(registry, route, stored, now))),
            body=body,
            stop=stored.size,
            how=how,
            detail="" if stored.verified else "unverified",
            standing=standing,
            packages=route.packages,
        )

    def _standing(self, registry: IRegistry, route: Artifact, stored: Stored, until: float) -> Standing:
        return Standing(
            until=until,
            entries=((stored.key, stored),),
            vouched_at=vouched_at(registry, stored),
            used=stored.key,
            given=lambda: self.noted(route, stored),
        )

    def noted(self, route: Artifact, stored: Stored) -> None:
        """A stored copy is sent: where it may change, a checksum that is asked for next is to be that of this one."""
        if route.sidecars and route.mutable:
            self._served.put(stored.key, (stored, self._context.clock.seconds()), 1)


def _own(registry: IRegistry, route: Artifact, stored: Stored, now: float) -> list[tuple[str, str]]:
    """The fields that an answer with a stored copy has beside those of :func:`_alike`."""
    told = stored.headers.get("last-modified")
    modified = date_as_sent(told) if told else None
    return [
        *_named(stored.headers),
        ("etag", f'"{stored.digest[:40]}"'),
        ("last-modified", format_date(stored.stored_at) if modified is None else modified),
        ("age", age_told(registry, stored, now)),
        *(_told_digests(route, stored) if route.digest_fields else ()),
    ]


def _told_digests(route: Artifact, stored: Stored) -> list[tuple[str, str]]:
    """The fields that tell the digests of a copy that is known to be good."""
    found = {digest.algorithm: digest.value for digest in stored.digests} if stored.verified else {}
    return [(name, found[algorithm]) for name, algorithm in route.digest_fields if algorithm in found]
