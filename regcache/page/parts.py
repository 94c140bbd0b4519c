"""A template filled with plain values: everything that is markup stands in the template, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from twisted.python.failure import Failure
from twisted.web.error import MissingRenderMethod
from twisted.web.iweb import IRequest, ITemplateLoader
from twisted.web.template import Element, Flattenable, Tag, TagLoader, flattenString

__all__ = ["Value", "Values", "filled"]

#: What a place in the template is filled with: text; whether it is there at all; values for what stands within it; or
#: those of a list, for each of which it is repeated.
Value = str | bool | Mapping[str, "Value"] | Sequence["Value"]
Values = Mapping[str, Value]


class _Part(Element):
    """
    What is rendered by ``t:render="name"`` becomes what the values say of that name; ``t:slot`` is their text. On such
    a tag, an attribute with the value ``if:name`` is there if that value is true. ``here`` is always there.

    A tag with a slot has a ``t:render`` of its own, if only ``here``: Twisted keeps what the slots of one tag are
    filled with for all that follow it. All text is escaped by Twisted as it is written.
    """

    def __init__(self, loader: ITemplateLoader, values: Values) -> None:
        super().__init__(loader)
        self._values = values

    def lookupRenderMethod(self, name: str) -> Callable[[IRequest | None, Tag], Flattenable]:
        if name == "here":
            return partial(self._render, True)
        if name not in self._values:
            raise MissingRenderMethod(self, name)
        return partial(self._render, self._values[name])

    def _render(self, value: Value, _request: IRequest | None, tag: Tag) -> Flattenable:
        if isinstance(value, bool):
            return self._within(tag, self._values) if value else ""
        if isinstance(value, str):
            return self._within(tag, self._values)(value)
        if isinstance(value, Mapping):
            return _Part(TagLoader(self._within(tag, value)), value)
        return [self._render(one, None, tag.clone()) for one in value]

    @staticmethod
    def _within(tag: Tag, values: Values) -> Tag:
        for name, said in list(tag.attributes.items()):
            if isinstance(said, str) and said.startswith("if:"):
                tag.attributes[name] = name
                if not values[said.removeprefix("if:")]:
                    del tag.attributes[name]
        return tag.fillSlots(**{name: value for name, value in values.items() if isinstance(value, str)})


def filled(loader: ITemplateLoader, values: Values) -> bytes:
    """
    The whole page. Nothing in it is waited for, so it may be made in a thread.

    :raises Exception: if the template asks for what the values do not hold.
    """
    made: list[bytes] = []
    flattening = flattenString(None, _Part(loader, values))
    flattening.addCallback(made.append)
    failures: list[Failure] = []
    flattening.addErrback(failures.append)
    for failure in failures:
        failure.raiseException()
    return made[0]
