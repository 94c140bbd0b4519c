"""What of an upstream's responses may be kept, and what is changed by others (RFC 9111 sections 3 and 4.4)."""

from __future__ import annotations

from urllib.parse import urljoin

from regcache.http.directives import Directives
from regcache.http.fields import etags, hop_by_hop, same_strong
from regcache.http.freshness import HEURISTIC_STATUSES
from regcache.http.messages import Headers
from regcache.http.origins import Origin
from regcache.http.ranges import content_range
from regcache.http.variants import vary_names

__all__ = [
    "SAFE_METHODS",
    "answers_for",
    "changes",
    "confirms",
    "end_to_end",
    "may_store",
    "same_version",
    "speaks_of",
    "storable_fields",
    "travelling",
    "updated",
]

#: Methods that change nothing (RFC 9110 section 9.2.1).
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
#: The final statuses that this cache understands: those of RFC 9110 section 15, and of RFC 6585, 7725 and 8470.
_UNDERSTOOD = frozenset({*range(200, 207), *range(300, 304), 307, 308, *range(400, 418), 421, 422, 425, 426, 428, 429})
_UNDERSTOOD |= {431, 451, *range(500, 506), 511}
#: What is said of the fields of one request, by which nothing stored is selected, and not of what it asks for: kept, it
#: would be the answer to everybody.
_OF_ONE_REQUEST = frozenset({304, 412, 416, 417, 431})
#: Fields that a client says of itself, of its connection or of its way here: they end with this cache.
_PRIVATE_FIELDS = frozenset({"host", "cookie", "cookie2", "forwarded", "content-length", "expect", "via"})
_PRIVATE_FIELDS |= {"x-client-ip", "x-cluster-client-ip", "x-originating-ip", "x-remote-ip", "x-remote-addr"}
_PRIVATE_FIELDS |= {"true-client-ip", "cf-connecting-ip", "fastly-client-ip", "client-ip"}
#: By these some upstreams take a request for one of another method, path or host, or ask by another's proxy. The answer
#: would be kept as that to what the request itself says.
_PRIVATE_FIELDS |= {"x-http-method-override", "x-http-method", "x-method-override", "x-original-method"}
_PRIVATE_FIELDS |= {"x-original-url", "x-original-uri", "x-rewrite-url", "x-original-host", "x-host", "proxy"}
#: What a 304 says of these is not taken over: they describe the stored bytes (RFC 9111 section 3.2).
_OF_THE_BODY = frozenset({"content-length", "content-encoding", "content-range"})
_PROXY_FIELDS = frozenset({"proxy-authentication-info"})


def end_to_end(headers: Headers) -> Headers:
    """The fields of a message that are not of one connection only (RFC 9110 section 7.6.1)."""
    return headers.without(*hop_by_hop(headers), *_PROXY_FIELDS)


def travelling(headers: Headers, *, authorization: bool) -> Headers:
    """
    The fields of a client's request that go on to the upstream.

    :param authorization: whether Authorization does.
    """
    dropped = _PRIVATE_FIELDS if authorization else _PRIVATE_FIELDS | {"authorization"}

    def travels(name: str) -> bool:
        # To what runs by CGI or WSGI both signs are one.
        name = name.replace("_", "-")
        return name not in dropped and not name.startswith(("x-forwarded", "x-real-ip"))

    return Headers(tuple(pair for pair in end_to_end(headers) if travels(pair[0])))


def may_store(method: str, request: Headers, status: int, headers: Headers, said: Directives) -> bool:
    """
    Whether a shared cache may keep a response for other requests (RFC 9111 section 3).

    :param request: the fields that went upstream.
    :param headers: those of the response.
    :param said: its directives.
    """
    if method != "GET" or status < 200 or status in _OF_ONE_REQUEST:
        return False
    if "must-understand" in said and status not in _UNDERSTOOD:
        return False
    # Whoever understands the status may pass over no-store beside must-understand (section 5.2.2.3).
    if "no-store" in said and "must-understand" not in said:
        return False
    if said.unqualified("private") or "*" in vary_names(headers):
        return False
    if "authorization" in request and not {"public", "s-maxage", "must-revalidate"} & said.found.keys():
        return False
    if status == 206 and content_range(headers.get("content-range")) is None:
        return False
    lasting = {"public", "max-age", "s-maxage"} & said.found.keys()
    return bool(lasting) or "expires" in headers or status in HEURISTIC_STATUSES


def storable_fields(headers: Headers, said: Directives) -> Headers:
    """The fields of a response that are kept: not those that it says are for one client, or not to be used again."""
    return end_to_end(headers).without(*said.fields("private"), *said.fields("no-cache"))


def updated(stored: Headers, new: Headers, said: Directives) -> Headers:
    """The fields of a stored response once a 304 or a HEAD has brought new ones (RFC 9111 section 3.2)."""
    fresh = [pair for pair in storable_fields(new, said) if pair[0] not in _OF_THE_BODY]
    # An Age is of one answer: the next that says nothing of it has none.
    replaced = {name for name, _ in fresh} | {"age"}
    return Headers((*[pair for pair in stored if pair[0] not in replaced], *fresh))


def confirms(stored: Headers, new: Headers) -> bool:
    """Whether a 304 is of the stored response: not if it names another strong validator (RFC 9111 section 4.3.4)."""
    tag = new.get("etag").strip()
    return not tag.startswith('"') or same_strong(tag, stored.get("etag").strip())


def speaks_of(stored: Headers, size: int, new: Headers) -> bool:
    """Whether a 200 to HEAD speaks of the stored bytes, so that its fields are theirs (RFC 9111 section 4.3.5)."""
    for name in ("etag", "last-modified"):
        if name in new and new.get(name) != stored.get(name):
            return False
    length = new.get("content-length").strip()
    return not length or (length.isdecimal() and int(length) == size)


def changes(method: str, status: int, headers: Headers, url: str) -> tuple[str, ...]:
    """
    The URLs of which nothing stored holds any more after a response to an unsafe method (RFC 9111 section 4.4).

    :param url: the one that was asked for.
    """
    if method in SAFE_METHODS or not 200 <= status < 400:
        return ()
    others = []
    for name in ("location", "content-location"):
        if name in headers:
            other = _resolved(url, headers.get(name))
            if other and Origin.of(other) == Origin.of(url):
                others.append(other)
    return tuple(dict.fromkeys((url, *others)))


def _resolved(url: str, reference: str) -> str:
    try:
        return urljoin(url, reference.strip()).partition("#")[0]
    except ValueError:
        return ""


def answers_for(method: str, status: int, headers: Headers, said: Directives, url: str) -> bool:
    """
    Whether a response to POST may be kept as what GET would bring (RFC 9110 section 9.3.3): it says for how long, and
    that it is a representation of that very URL.
    """
    stated = {"max-age", "s-maxage"} & said.found.keys() or "expires" in headers
    if method != "POST" or status != 200 or not stated or "content-location" not in headers:
        return False
    return _resolved(url, headers.get("content-location")) == url


def same_version(one: Headers, other: Headers) -> bool:
    """Whether two responses hold parts of the same bytes: both say so by the same strong validator."""
    tag = etags(one.get("etag"))
    return len(tag) == 1 and same_strong(tag[0], other.get("etag").strip())
