"""
A stored response with all that HTTP says of it, and the rules that it brings along: what makes
:func:`regcache.http.policy.decide` a cache that follows its upstream (RFC 9111).

In the store it is an entry as all are; what an entry has no place for lies among its fields, under names that no field
can have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from regcache.http.directives import Directives, of_response
from regcache.http.freshness import date_of, initial_age, lifetime
from regcache.http.messages import Headers, Stored
from regcache.http.policy import Rules
from regcache.http.ranges import Part, Unsatisfiable, content_range, wanted_part
from regcache.http.variants import Selecting, selecting, vary_names

__all__ = ["FOLLOWED", "Followed", "Held", "chosen", "demanded", "held", "is_held", "rules_of", "slot_of"]

_STATUS, _AGE, _SELECTING, _ABSENT = ":status", ":age", ":selecting", ":without"
_CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range")
#: An age that nothing has.
_NEVER = -math.inf


@frozen(kw_only=True)
class Followed:
    """
    How an upstream's own word is followed, where that is left to the operator.

    :ivar targets: the fields that are meant for this cache (RFC 9213), in lower case.
    :ivar longest_guess: the most seconds for which what says nothing of it counts as fresh.
    :ivar stale_if_error: for how many seconds past its lifetime a response answers when the upstream does not, where
        neither of them forbids or limits it.
    """

    targets: tuple[str, ...] = ("cdn-cache-control",)
    longest_guess: float = 86400.0
    stale_if_error: float = math.inf


FOLLOWED = Followed()


@frozen(kw_only=True)
class Held:
    """
    A response that can be used again.

    :ivar status: of the response.
    :ivar headers: its fields.
    :ivar selecting: what of a request has selected it.
    :ivar age: how old it was when it came, in seconds.
    :ivar received: when it came, or was validated last, by the wall clock.
    :ivar size: of its body, in bytes.
    """

    status: int
    headers: Headers
    selecting: Selecting
    age: float
    received: float
    size: int | None = None

    @classmethod
    def of(cls, status: int, headers: Headers, request: Headers, asked: float, received: float) -> Held:
        """
        A response as it came.

        :param headers: those to keep.
        :param request: the fields that went upstream.
        """
        return cls(
            status=status,
            headers=headers,
            selecting=selecting(vary_names(headers), request),
            age=initial_age(headers, asked, received),
            received=received,
        )

    @property
    def packed(self) -> Headers:
        """All of it as the fields of an entry."""
        own = [(_STATUS, str(self.status)), (_AGE, f"{self.age:.3f}")]
        own += [(_ABSENT, name) if value is None else (_SELECTING, f"{name}:{value}") for name, value in self.selecting]
        return Headers((*own, *self.headers))

    @property
    def part(self) -> tuple[Part, int] | None:
        """The bytes that it holds, and the length of the whole; None for a whole."""
        return content_range(self.headers.get("content-range")) if self.status == 206 else None

    def matches(self, request: Headers) -> bool:
        """Whether a request selects it (RFC 9111 section 4.1)."""
        return self.selecting == selecting(tuple(name for name, _ in self.selecting), request)

    def age_at(self, now: float) -> float:
        """Its current age (RFC 9111 section 4.2.3)."""
        return self.age + max(now - self.received, 0.0)


def is_held(stored: Stored) -> bool:
    """Whether an entry is one of these."""
    return _STATUS in stored.headers


def held(stored: Stored) -> Held:
    """The response that an entry is."""
    named: dict[str, str] = {}
    fields: list[tuple[str, str]] = []
    chosen: list[tuple[str, str | None]] = []
    for name, value in stored.headers:
        if not name.startswith(":"):
            fields.append((name, value))
        elif name == _SELECTING:
            key, _, text = value.partition(":")
            chosen.append((key, text))
        elif name == _ABSENT:
            chosen.append((value, None))
        else:
            named[name] = value
    return Held(
        status=int(named[_STATUS]),
        headers=Headers(tuple(fields)),
        selecting=tuple(sorted(chosen, key=lambda pair: pair[0])),
        age=float(named[_AGE]),
        received=stored.validated_at,
        size=stored.size,
    )


def slot_of(new: Held, there: Sequence[Held | None]) -> int:
    """
    Where among so many places a response is kept: in place of one that it replaces, where there is none, or in place of
    the oldest.
    """
    for number, old in enumerate(there):
        if old is not None and old.selecting == new.selecting and (old.part is None) == (new.part is None):
            return number
    if None in there:
        return there.index(None)
    return min(range(len(there)), key=lambda number: getattr(there[number], "received", 0.0))


def chosen(candidates: Iterable[Held], request: Headers) -> Held | None:
    """
    The response that a request selects: of several the latest by its Date (RFC 9111 section 4). A part is one for
    whoever asks for bytes that it has, and never for the whole (section 3.3).
    """
    fitting = [one for one in candidates if one.matches(request) and (one.part is None or _covers(one, request))]
    return max(
        fitting, key=lambda one: (one.part is None, date_of(one.headers, one.received), one.received), default=None
    )


def _covers(one: Held, request: Headers) -> bool:
    assert one.part is not None
    there, size = one.part
    if any(name in request for name in _CONDITIONS):
        # Who has bytes of another version would join these to them.
        return False
    wanted = wanted_part(request.get("range"), size)
    if wanted is None or isinstance(wanted, Unsatisfiable):
        return False
    return there.start <= wanted.start and wanted.stop <= there.stop


def rules_of(rules: Rules, one: Held, followed: Followed = FOLLOWED) -> Rules:
    """
    The rules for a response by its own account.

    Ages are counted from when it came, so what it had by then is taken off.
    """
    said = of_response(one.headers, followed.targets)
    life = lifetime(one.status, one.headers, said, one.received, followed.longest_guess).seconds
    return evolve(
        rules,
        ttl=_NEVER if said.unqualified("no-cache") else life - one.age,
        refresh_after=None,
        beside_for=_beside(said, life) - one.age,
        usable_for=_usable(said, life, followed) - one.age,
    )


def _forbids_stale(said: Directives) -> bool:
    """Whether a response may not answer past its lifetime, come what may (RFC 9111 section 4.2.4)."""
    return said.unqualified("no-cache") or not {"must-revalidate", "proxy-revalidate", "s-maxage"}.isdisjoint(
        said.found
    )


def _beside(said: Directives, life: float) -> float:
    seconds = said.seconds("stale-while-revalidate")
    return _NEVER if seconds is None or _forbids_stale(said) else life + seconds


def _usable(said: Directives, life: float, followed: Followed) -> float:
    if _forbids_stale(said):
        return _NEVER
    seconds = said.seconds("stale-if-error")
    return life + (followed.stale_if_error if seconds is None else seconds)


def demanded(rules: Rules, said: Directives, age: float) -> Rules:
    """
    A response's rules, with what a client asks of it put in (RFC 9111 section 5.2.1).

    :param said: the directives of the request.
    :param age: how old the response was when it came.
    """
    ttl = rules.ttl
    if "max-stale" in said and rules.usable_for > rules.ttl:
        # Without a number any will do.
        ttl += math.inf if said.unqualified("max-stale") else said.seconds("max-stale") or 0.0
    most = said.seconds("max-age")
    if most is not None:
        ttl = min(ttl, most - age)
    ttl -= said.seconds("min-fresh") or 0.0
    if "no-cache" in said:
        ttl = _NEVER
    return evolve(rules, ttl=ttl, beside_for=min(rules.beside_for, ttl) if ttl < rules.ttl else rules.beside_for)
