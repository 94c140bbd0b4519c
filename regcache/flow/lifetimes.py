"""
By whose word a copy is fresh: the operator's, or for a registry that follows its upstream what came with the copy.

Both are rules for the same decisions (:func:`regcache.http.policy.decide`).
"""

from __future__ import annotations

import math
from functools import lru_cache

from attrs import evolve

from regcache.http.directives import of_request, of_response
from regcache.http.freshness import dated, lifetime
from regcache.http.held import Followed, Held, demanded, held, is_held, rules_of
from regcache.http.messages import Headers, RequestHead, Stored
from regcache.http.policy import Rules
from regcache.http.storing import may_store
from regcache.interfaces import IRegistry
from regcache.routes import RegistryOptions

__all__ = [
    "accounted",
    "age_told",
    "cache_control_of",
    "followed",
    "lifetime_fields",
    "missing_for",
    "rules_for",
    "storable",
    "vouched_at",
]

#: What a copy is kept with to know how long it is fresh.
_LIFETIME_FIELDS = ("cache-control", "expires", "date", "age")


def followed(options: RegistryOptions) -> Followed:
    """How a registry's upstream is followed."""
    seconds = options.stale_if_error
    return Followed(
        targets=options.targets,
        longest_guess=options.ttl,
        stale_if_error=math.inf if seconds is None else seconds or -math.inf,
    )


def rules_for(
    rules: Rules,
    registry: IRegistry,
    ttl: float | None,
    stored: Stored | None = None,
    request: RequestHead | None = None,
) -> Rules:
    """
    The operator's rules with a registry's and a route's own lifetimes put in.

    :param stored: the copy that they are for: where the upstream is followed, they are its own.
    :param request: of a client, whose demands count if the registry lets them.
    """
    options = registry.options
    if not options.follows:
        return _forced(rules, options.ttl if ttl is None else ttl, options.refresh_after, options.negative_ttl)
    rules = evolve(rules, ttl=0.0, refresh_after=None, negative_ttl=options.negative_ttl)
    if stored is None or not is_held(stored):
        return rules
    one = held(stored)
    rules = rules_of(rules, one, followed(options))
    if request is not None and options.client_directives:
        rules = demanded(rules, of_request(request.headers), one.age)
    return rules


@lru_cache(256)
def _forced(rules: Rules, ttl: float, refresh_after: float | None, negative_ttl: float) -> Rules:
    return evolve(rules, ttl=ttl, refresh_after=refresh_after, negative_ttl=negative_ttl)


def accounted(registry: IRegistry, status: int, headers: Headers, asked: float, received: float) -> Headers:
    """
    An answer's fields with what is to be known of when it came; as they are where the upstream is not followed.

    :param asked: when it was asked for, by the wall clock.
    :param received: when it came.
    """
    if not registry.options.follows:
        return headers
    one = Held.of(200 if status == 304 else status, dated(headers, received), Headers(), asked, received)
    return one.packed


def lifetime_fields(headers: Headers) -> dict[str, str]:
    """Those of the fields of :func:`accounted` that a copy is kept with."""
    if ":status" not in headers:
        return {}
    # A targeted field is called after Cache-Control, as all that are registered are.
    names = [name for name, _ in headers if name in _LIFETIME_FIELDS or name.endswith("cache-control")]
    return {name: headers.get(name) for name in (":status", ":age", *names)}


def storable(registry: IRegistry, headers: Headers) -> bool:
    """Whether a 200 may be kept: always, but where the upstream is followed and forbids it."""
    options = registry.options
    return not options.follows or may_store("GET", Headers(), 200, headers, of_response(headers, options.targets))


def missing_for(registry: IRegistry, status: int, headers: Headers, now: float) -> float:
    """For how many seconds "there is none" holds."""
    options = registry.options
    if not options.follows:
        return float(options.negative_ttl)
    said = of_response(headers, options.targets)
    if not may_store("GET", Headers(), status, headers, said) or said.unqualified("no-cache"):
        return 0.0
    return max(lifetime(status, headers, said, now, options.ttl).seconds, 0.0)


def cache_control_of(registry: IRegistry, stored: Headers, usual: str) -> str:
    """What clients are told of the lifetime of what was made of a copy: the upstream's own word, where it counts."""
    options = registry.options
    if not options.follows:
        return usual
    if "cache-control" in stored:
        return stored.get("cache-control")
    life = lifetime(200, stored, of_response(stored, options.targets), 0.0, options.ttl)
    return f"max-age={int(life.seconds)}" if "date" in stored else usual


def age_told(registry: IRegistry, stored: Stored, now: float) -> str:
    """The Age of a copy: what it had when it came counts, where the upstream is followed (RFC 9111 section 5.1)."""
    return str(max(int(now - vouched_at(registry, stored)), 0))


def vouched_at(registry: IRegistry, stored: Stored) -> float:
    """Since when a copy ages, by the wall clock: from before it came, if it was old then and that counts."""
    counts = registry.options.follows and is_held(stored)
    return stored.validated_at - (held(stored).age if counts else 0.0)
