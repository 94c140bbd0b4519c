"""Whether the service can do all that it is for, for a probe and for whoever is called then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from regcache.config import Config
from regcache.endings import SOON, Ending, endings
from regcache.flow.context import Context
from regcache.flow.reply import Reply
from regcache.flow.upstream import origins_of
from regcache.http.messages import Headers
from regcache.interfaces import IRegistry
from regcache.store.holding import Condition

__all__ = ["READY", "ready"]

#: How the store and the upstreams are, and what ends soon, as JSON; 503 while nothing can be stored.
READY = "/-/health/ready"


async def ready(context: Context, config: Config, condition: Condition, served: Mapping[str, IRegistry]) -> Reply:
    """
    The state of the store, of the upstreams, and of what ends within 14 days, as JSON.

    503 if nothing can be stored, or the index is not whole. An upstream in trouble changes nothing: that is what the
    cache is for.

    :param served: the registries that may be told of.
    """
    ending = await context.in_thread(endings, config, list(served))
    sound = condition.writable and condition.index == "sound"
    state = {
        "status": "ready" if sound else "not ready",
        "store": {"writable": condition.writable, "index": condition.index, "why": condition.why},
        "upstreams": {name: _upstreams(context, config, registry) for name, registry in served.items()},
        "ending": [told for one in ending if (told := _told(one, context.now())) is not None],
    }
    headers = Headers.of({"content-type": "application/json", "cache-control": "no-store"})
    return Reply(status=200 if sound else 503, headers=headers, body=json.dumps(state).encode() + b"\n")


def _upstreams(context: Context, config: Config, registry: IRegistry) -> list[dict[str, Any]]:
    now, found = context.clock.seconds(), []
    for origin in origins_of(registry):
        at = context.upstream.counts.upstream(origin).succeeded_at
        breaker = "open" if context.breaker.is_open(origin) else "closed"
        found.append(
            {
                "origin": origin,
                "breaker": "not asked" if config.offline else breaker,
                "seconds_since_success": None if at is None else round(now - at, 1),
            }
        )
    return found


def _told(one: Ending, now: float) -> dict[str, Any] | None:
    """One that ends soon or has ended, or of which that cannot be known; None for the others."""
    if one.ends is None:
        return {"what": one.what, "ends": None, "days": None}
    if one.ends - now > SOON:
        return None
    days = round((one.ends - now) / 86400, 1)
    try:
        ends = datetime.fromtimestamp(one.ends, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        ends = None
    return {"what": one.what, "ends": ends, "days": days}
