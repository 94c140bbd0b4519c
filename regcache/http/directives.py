"""
Cache directives: those of Cache-Control (RFC 9111 section 5.2) and of fields that are meant for some caches only
(RFC 9213).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from regcache.http.fields import members
from regcache.http.messages import Headers

__all__ = ["MOST_SECONDS", "Directives", "of_request", "of_response"]

#: What a larger number of seconds counts as (RFC 9111 section 1.2.2).
MOST_SECONDS = 2**31
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE = re.compile(rf"({_TOKEN})(?:\s*=\s*(.*))?", re.DOTALL)
_DELTA = re.compile(r"[0-9]+", re.ASCII)
_NAMES = re.compile(_TOKEN)
#: One member of a structured dictionary (RFC 8941 section 3.2), of the kinds that directives have; parameters are read
#: over.
_SF_KEY = r"[a-z*][a-z0-9_.*-]*"
_SF_STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_SF_BARE = rf"(?:-?\d{{1,15}}(?:\.\d{{1,3}})?|{_SF_STRING}|[A-Za-z*][!#$%&'*+.^_`|~:/0-9A-Za-z-]*|\?[01])"
_SF_PARAMETERS = rf"(?:; *{_SF_KEY}(?:={_SF_BARE})?)*"
_SF_MEMBER = re.compile(rf"({_SF_KEY})(?:=({_SF_BARE}))?{_SF_PARAMETERS}[ \t]*(,[ \t]*(?=\S)|\Z)", re.ASCII)
#: The directives whose value is a number, and those that have none or names of fields.
_TIMED = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
_PLAIN = frozenset({"no-store", "must-revalidate", "proxy-revalidate", "public", "immutable", "must-understand"})


@frozen
class Directives:
    """
    The directives of one message: each with its values, in the order they came, quotes undone.

    :ivar found: by name in lower case; a directive without a value has None.
    :ivar targeted: whether they came in a field that is meant for this cache, and alone count then.
    """

    found: dict[str, tuple[str | None, ...]]
    targeted: bool = False

    def __contains__(self, name: object) -> bool:
        return name in self.found

    def seconds(self, name: str) -> float | None:
        """
        The number of seconds that a directive states; None if it is not there.

        What is malformed, or said twice and not alike, counts as none at all, so that the message is stale (RFC 9111
        section 4.2.1).
        """
        said = set(self.found.get(name, ()))
        if not said:
            return None
        text = said.pop()
        if said or text is None or not _DELTA.fullmatch(text):
            return 0.0
        return float(min(int(text[:20]), MOST_SECONDS))

    def unqualified(self, name: str) -> bool:
        """Whether a directive is there that speaks of the whole message (RFC 9111 sections 5.2.2.4 and 5.2.2.7)."""
        return any(not value for value in self.found.get(name, ()))

    def fields(self, name: str) -> frozenset[str]:
        """The names of the fields, in lower case, that such a directive speaks of instead."""
        return frozenset(
            field.lower() for value in self.found.get(name, ()) if value for field in _NAMES.findall(value)
        )


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def _listed(text: str) -> Directives:
    """The directives of a Cache-Control field; what is no directive is passed over, as are unknown ones later."""
    found: dict[str, tuple[str | None, ...]] = {}
    for member in members(text):
        match = _DIRECTIVE.fullmatch(member.strip())
        if match is not None:
            value = None if match[2] is None else _unquoted(match[2])
            if match[2] is not None and match.start(2) != match.end(1) + 1:
                # Blanks around the sign are no part of the grammar: what they are in has no value.
                value = ""
            found[match[1].lower()] = (*found.get(match[1].lower(), ()), value)
    return Directives(found)


def _dictionary(text: str) -> Directives | None:
    """
    The directives of a targeted field, which is a structured dictionary; None if it is empty or not well formed, and is
    to be passed over then (RFC 9213 section 2.1).
    """
    found: dict[str, tuple[str | None, ...]] = {}
    text, at = text.strip(" \t"), 0
    while at < len(text):
        match = _SF_MEMBER.match(text, at)
        if match is None:
            return None
        at, name, value = match.end(), match[1], match[2]
        if name in _TIMED and (value is None or not _DELTA.fullmatch(value)):
            return None
        if name in _PLAIN and value == "?0":
            found.pop(name, None)
            continue
        # The last of several counts (RFC 8941 section 4.2.2).
        found[name] = (None if value in (None, "?1") else _unquoted(value or ""),)
    return Directives(found, targeted=True) if found else None


def of_request(headers: Headers) -> Directives:
    """The directives of a request; an old client's ``Pragma: no-cache`` counts where there is no Cache-Control."""
    if "cache-control" not in headers and "no-cache" in headers.get("pragma").lower():
        return Directives({"no-cache": (None,)})
    return _listed(headers.get("cache-control"))


def of_response(headers: Headers, targets: Sequence[str] = ()) -> Directives:
    """
    The directives of a response.

    :param targets: the names, in lower case, of the fields that are meant for this cache: the first that is there and
        well formed counts, and Cache-Control and Expires do not then (RFC 9213 section 2.2).
    """
    for name in targets:
        found = _dictionary(headers.get(name)) if name in headers else None
        if found is not None:
            return found
    return _listed(headers.get("cache-control"))
