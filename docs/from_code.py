"""
Tables of the documentation that are made from the code.

In a page, ``{from-code} metrics`` in a fence of its own stands for the table of metrics; :data:`TABLES` has all of
them. The table is there when the page is built, so it cannot be older than the code.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import regcache
from regcache import errors, stamps
from regcache.commands import outcome
from regcache.flow.reply import How, Reply, cache_status
from regcache.http.messages import Headers
from regcache.metrics import FAMILIES
from regcache.options import WRONG_USE, Options
from regcache.settings import OPTIONS

__all__ = ["TABLES", "setup", "table_of"]


def _table(*heading: str, rows: Iterable[tuple[str, ...]]) -> list[str]:
    cells = [heading, ("---",) * len(heading), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


def _code(*words: str) -> str:
    return ", ".join(f"`{word}`" for word in words) or "\N{EN DASH}"


def _options() -> list[str]:
    rows = [(f"`--{one.name}`", f"`{one.default}`" if one.default else "", one.help) for one in OPTIONS]
    known = {one.name for one in OPTIONS}
    own = [*Options.optParameters, *Options.optFlags]
    rows += [(f"`--{name}`", "", str(about)) for name, *_, about in own if name not in known]
    return _table("option", "default", "meaning", rows=rows)


def _metrics() -> list[str]:
    rows = [(_code(name), one.kind, _code(*one.labels), one.help) for name, one in FAMILIES.items()]
    return _table("metric", "kind", "labels", "what it says", rows=rows)


def _sentence(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def _errors() -> list[str]:
    classes = [
        one
        for one in map(vars(errors).get, errors.__all__)
        if isinstance(one, type) and issubclass(one, errors.RegCacheError)
    ]
    classes.sort(key=lambda one: (one.status, one.__name__))
    # What the configuration is wrong about ends the program; the rest is told to a client.
    rows = [
        (
            _code(one.__name__),
            str(one.status),
            _sentence(one),
            str(WRONG_USE) if one is errors.ConfigError else "\N{EN DASH}",
        )
        for one in classes
    ]
    return _table("class", "status", "what the client reads first", "exit code", rows=rows)


def _comments(module: str) -> Mapping[str, str]:
    """What stands above each constant of a module, after ``#:``."""
    found = ModuleAnalyzer.for_module(module).find_attr_docs()
    return {name: " ".join(lines).strip() for (owner, name), lines in found.items() if not owner}


def _addresses() -> Iterator[tuple[str, str]]:
    """Every constant of the code that is an address of the service's own, and what is said of it."""
    names = [one.name for one in pkgutil.iter_modules(regcache.__path__, "regcache.") if not one.ispkg]
    for module in names:
        if module == "regcache.__main__":
            continue
        told = _comments(module)
        for name, value in vars(importlib.import_module(module)).items():
            if isinstance(value, str) and value.startswith("/-/") and name in told:
                yield value, told[name]


def _endpoints() -> list[str]:
    rows = [(_code(f"{path}NAME" if path.endswith("/") else path), says) for path, says in sorted(_addresses())]
    return _table("address", "what is there", rows=rows)


def _outcomes() -> list[str]:
    told = {name: " ".join(lines).strip() for (_, name), lines in _attributes("regcache.flow.reply", "How").items()}
    rows = [
        (
            _code(how.value),
            _code(cache_status(Reply(status=200, headers=Headers.of({}), how=how))),
            told.get(how.name, ""),
        )
        for how in How
    ]
    return _table("`X-Cache`", "`Cache-Status` begins", "how the answer came about", rows=rows)


def _attributes(module: str, owner: str) -> Mapping[tuple[str, str], list[str]]:
    found = ModuleAnalyzer.for_module(module).find_attr_docs()
    return {key: lines for key, lines in found.items() if key[0] == owner}


def _browsers() -> list[str]:
    rows = [
        (_code(name.decode().title()), _code(*(one.decode() for one in says))) for name, says in stamps.FOR_BROWSERS
    ]
    return _table("field", "value", rows=rows)


def _codes() -> list[str]:
    rows = [(str(code.value), told) for code, told in outcome.MEANINGS.items()]
    return _table("exit code", "meaning", rows=rows)


#: The tables, by the name that a page asks for.
TABLES: Mapping[str, Callable[[], list[str]]] = {
    "browsers": _browsers,
    "codes": _codes,
    "endpoints": _endpoints,
    "errors": _errors,
    "metrics": _metrics,
    "options": _options,
    "outcomes": _outcomes,
}


def table_of(name: str) -> list[str]:
    """
    The lines of a table in Markdown.

    :raises KeyError: if there is no such table.
    """
    return TABLES[name]()


class _FromCode(SphinxDirective):
    """Puts a table into the page."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in TABLES:
            raise self.error(f"No table {name!r} is made from the code; there are: {', '.join(TABLES)}.")
        made = nodes.Element()
        self.state.nested_parse(StringList(table_of(name), f"from-code:{name}"), 0, made)
        return made.children


def setup(app: Sphinx) -> Mapping[str, Any]:
    """What Sphinx asks an extension for."""
    app.add_directive("from-code", _FromCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
