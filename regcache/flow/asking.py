"""One conditional question to an upstream, and what its status means for the cache."""

from __future__ import annotations

from functools import lru_cache

from attrs import frozen
from msgspec.structs import replace

from regcache.errors import (
    ConnectFailed,
    CutShort,
    NotFound,
    UpstreamBusy,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from regcache.flow.answers import Answer
from regcache.flow.breaker import MOST_HOLD
from regcache.flow.collect import collect, decoded
from regcache.flow.context import Context, Missing
from regcache.flow.lifetimes import accounted, lifetime_fields, missing_for
from regcache.flow.upstream import Ask, origin_of
from regcache.http.fields import seconds
from regcache.http.messages import Headers, Stored
from regcache.http.policy import Decision, Revalidate, Rules, decide
from regcache.interfaces import IRegistry
from regcache.logs import Log

__all__ = ["KEPT_FIELDS", "Unchanged", "question", "revived", "weigh"]

_log = Log()

#: Upstream fields that are stored and sent on.
KEPT_FIELDS = frozenset(
    {"content-type", "etag", "last-modified", "x-pypi-last-serial", "npm-notice", "content-disposition"}
)
_GONE = frozenset({404, 410, 451})
#: What asks for patience (RFC 6585 section 4, RFC 9110 section 15.6.4).
_BUSY = frozenset({429, 503})
_MOST_ERROR_TEXT = 4096


@frozen
class Unchanged:
    """The upstream vouched for what is stored (304)."""

    stored: Stored


def kept(headers: Headers) -> Headers:
    """The fields of an upstream answer that are worth keeping, with what :func:`accounted` has put among them."""
    own = [pair for pair in headers.items if pair[0] in KEPT_FIELDS]
    return Headers((*own, *lifetime_fields(headers).items()))


def revived(stored: Stored, headers: Headers, now: float) -> Stored:
    """An entry that the upstream has vouched for again; its new fields replace the old (RFC 9111 section 3.2)."""
    fresh = {name: value for name, value in kept(headers) if name != "content-type"}
    return replace(stored, headers=stored.headers.replacing(fresh), validated_at=now, withdrawn=0)


@lru_cache(64)
def _said_with(always: Headers, more: Headers, coding: str) -> Headers:
    return always.replacing({**dict(more), "accept-encoding": coding})


def _conditions(stored: Stored) -> dict[str, str]:
    pairs = (("if-none-match", stored.headers.get("etag")), ("if-modified-since", stored.headers.get("last-modified")))
    return {name: value for name, value in pairs if value}


def weigh(
    context: Context, stored: Stored | None, rules: Rules, key: str, url: str, *, mutable: bool
) -> tuple[Decision, bool]:
    """
    What to do for a request, and whether to ask the upstream beside answering, since it was in trouble and may have
    recovered: no client waits for that.
    """
    decision = decide(stored, rules, now=context.now(), mutable=mutable, spared=False)
    if not isinstance(decision, Revalidate):
        return decision, False
    origin = origin_of(url)
    in_trouble = context.breaker.spares(origin, key)
    if not in_trouble and (decision.stale or not context.breaker.is_slow(origin)):
        return decision, False
    spared = decide(stored, rules, now=context.now(), mutable=mutable, spared=True)
    return spared, context.breaker.probe(origin)


async def question(
    context: Context,
    registry: IRegistry,
    key: str,
    ask: Ask,
    stored: Stored | None,
    deadline: float,
    *,
    conditional: bool = True,
) -> Answer | Unchanged:
    """
    Ask the upstream for ``key``, conditionally where something is stored, unless that would prove nothing.

    The breaker learns how it went. A 404, 410 or 451 marks the stored entry withdrawn, or is remembered for a while;
    many of them at once are not believed.

    :returns: a 200, or a 206 where a range was asked for, whose body is to be taken; or that the stored entry holds.
    :raises regcache.errors.NotFound: if the upstream says there is none.
    :raises regcache.errors.UpstreamError: for anything else.
    """
    origin = origin_of(ask.url)
    headers = _said_with(context.request_fields, ask.headers, ask.coding)
    if stored is not None and conditional:
        headers = headers.replacing(_conditions(stored))
    asked_at = context.now()
    try:
        answer = await context.upstream.ask(ask, deadline, headers=headers)
    except (ConnectFailed, UpstreamTimeout, CutShort) as error:
        if context.breaker.broke(origin):
            _log.error("{origin} is in trouble: {why}", origin=origin, why=error.text)
        raise
    answer.headers = accounted(registry, answer.status, answer.headers, asked_at, context.now())
    given = answer.status == 200 or (answer.status == 206 and "range" in ask.headers)
    if given or (answer.status == 304 and stored is not None):
        context.breaker.succeeded(origin)
        context.withdrawals.present(origin)
    if given:
        return answer
    if answer.status == 304 and stored is not None:
        answer.discard()
        entry = revived(stored, answer.headers, context.now())
        context.note(entry)
        return Unchanged(entry)
    if answer.status in _GONE:
        context.breaker.succeeded(origin)
        raise await _gone(context, registry, key, stored, answer, origin)
    raise await _trouble(context, origin, key, answer)


async def _gone(
    context: Context, registry: IRegistry, key: str, stored: Stored | None, answer: Answer, origin: str
) -> NotFound | UpstreamError:
    status = answer.status
    text = await _said(answer) or f"The registry answered {status} for {answer.url}."
    if stored is None:
        until = context.clock.seconds() + missing_for(registry, status, answer.headers, context.now())
        # Names are as long as clients make them.
        context.missing.put(key, Missing(status, until, text), 1 + (2 * len(key) + len(text)) // 1024)
    elif not stored.withdrawn and status == 404 and (again := context.withdrawals.gone(origin, stored)):
        for entry in again:
            context.note(entry)
        _log.error("{n} known names answered 404 within a minute; the stored copies are served.", n=len(again))
        return UpstreamError("It says 404 for everything at once; that is not believed.")
    else:
        context.note(replace(stored, withdrawn=status, validated_at=context.now()))
        _log.warn("{key}: withdrawn by the upstream ({status}).", key=key, status=status)
    return NotFound(text)


async def _said(answer: Answer) -> str:
    """What an answer that is no 200 says to a person, in one line; nothing if that is a page or data."""
    try:
        body = decoded(await collect(answer, _MOST_ERROR_TEXT), answer.coding, _MOST_ERROR_TEXT)
    except UpstreamError:
        return ""
    words = body.decode("utf-8", "replace").split()
    is_text = answer.headers.get("content-type").startswith("text/plain")
    if words and (words[0].startswith(("<", "{")) or not (is_text or set("<{").isdisjoint("".join(words)))):
        return ""
    return answer.hushed(" ".join(words))


async def _trouble(context: Context, origin: str, key: str, answer: Answer) -> UpstreamStatus:
    code = answer.status
    text = ""
    if 400 <= code < 500:
        text = await _said(answer)
    else:
        answer.discard()
    told = f"It was {code} for {answer.url}{answer.way}. {text}".rstrip()
    error = UpstreamStatus(told, code)
    if code in _BUSY:
        wait = seconds(answer.headers.get("retry-after"), context.now())
        error = UpstreamBusy(told, code, None if wait is None else min(wait, MOST_HOLD))
    hold = error.wait if isinstance(error, UpstreamBusy) else None
    if (code >= 500 or code == 429) and context.breaker.erred(origin, key, hold):
        _log.error("{origin} is in trouble: it answered {code} again and again.", origin=origin, code=code)
    return error
