"""Which stored response a request selects (RFC 9111 section 4.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from regcache.http.fields import members
from regcache.http.messages import Headers

__all__ = ["Selecting", "normal", "selecting", "vary_names"]

#: The names of the fields that select a response, each with its value in normal form; None for a field that was not
#: there, which is not the same as an empty one.
Selecting = tuple[tuple[str, str | None], ...]

_BLANKS = re.compile(r"[ \t]+")
_QUALITY = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def vary_names(headers: Headers) -> tuple[str, ...]:
    """The names in a response's Vary, in lower case, sorted; ``*`` among them if nothing stored can be selected."""
    names = (name.strip().lower() for name in headers.get("vary").split(","))
    return tuple(sorted({name for name in names if name}))


def _members(text: str) -> list[str]:
    return [member.strip(" \t") for member in members(text) if member.strip(" \t")]


def _listed(text: str) -> str:
    """Blanks around commas mean nothing, nor do several lines in place of one list."""
    return ",".join(_BLANKS.sub(" ", member) for member in _members(text))


def _preferred(text: str) -> str:
    """A list of preferences: case and order mean nothing, the qualities do (RFC 9110 section 12.4.2)."""
    if '"' in text:
        # In quoted strings they may mean something.
        return _listed(text)
    found = set()
    for member in _members(text):
        name, *parameters = (part.strip(" \t").lower() for part in member.split(";"))
        quality, others = "1", []
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "q" and _QUALITY.fullmatch(value):
                quality = f"{float(value):g}"
            else:
                others.append(parameter)
        found.add(";".join([name, *others, f"q={quality}"]))
    return ",".join(sorted(found))


_FORMS: Mapping[str, Callable[[str], str]] = {
    "accept": _preferred,
    "accept-charset": _preferred,
    "accept-encoding": _preferred,
    "accept-language": _preferred,
}


def normal(name: str, text: str) -> str:
    """A field's value in a form that is the same for all values that mean the same."""
    return _FORMS.get(name, _listed)(text)


def selecting(names: tuple[str, ...], request: Headers) -> Selecting:
    """What of a request selects among responses that vary by these fields."""
    return tuple((name, normal(name, request.get(name)) if name in request else None) for name in names)
