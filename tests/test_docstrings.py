"""Whatever is public says what it promises; ruff sees to all but methods, which an interface may have promised."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from zope.interface import implementedBy
from zope.interface.interface import InterfaceClass

from tests.test_layers import MODULES

#: How methods are called that others' interfaces want: Twisted's, those of the parsers of HTTP and of HTML.
_OTHERS = re.compile(r"[a-z]+[A-Z]\w*|on_\w+|handle_\w+")


def public(module: str) -> Iterator[type]:
    """The classes that a module makes public, and interfaces."""
    for name, one in list(vars(importlib.import_module(module)).items()):
        if getattr(one, "__module__", "") == module and not name.startswith("_"):
            yield from [one] if isinstance(one, type | InterfaceClass) else []


def methods(one: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class has of its own."""
    for name, found in list(vars(one).items()):
        function = inspect.unwrap(getattr(found, "fget", None) or getattr(found, "__func__", None) or found)
        # What attrs and others add is theirs.
        if inspect.isfunction(function) and function.__module__ == one.__module__ and not name.startswith("_"):
            yield name, function


def is_promised(one: type, name: str) -> bool:
    """Whether a class it is made from, or an interface, ours or another's, says what this method does."""
    inherited = any(name in vars(base) for base in one.__mro__[1:])
    interfaces: Any = implementedBy(one)  # type: ignore[no-untyped-call]
    return inherited or any(name in each.names() for each in interfaces.flattened())


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_public_methods_say_what_they_promise(module: str) -> None:
    """Each does, unless it keeps what is promised elsewhere; and what an interface asks for is told there."""
    silent = []
    for one in public(module):
        if isinstance(one, InterfaceClass):
            silent += [f"{one.__name__}.{name}" for name, found in one.namesAndDescriptions() if not found.__doc__]
            continue
        for name, function in methods(one):
            if not (function.__doc__ or _OTHERS.fullmatch(name) or is_promised(one, name)):
                silent.append(f"{one.__name__}.{name}")
    assert silent == []
