"""One registry with several upstreams."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from zope.interface import implementer

from regcache.errors import NotFound
from regcache.http.messages import RequestHead
from regcache.interfaces import IOrdered, IRegistry
from regcache.routes import Facts, Release, Route, Source

__all__ = ["InOrder"]


@implementer(IOrdered)
class InOrder:
    """
    Several registries of one type and name, in the order in which they are asked.

    :param members: at least one.
    """

    def __init__(self, members: Sequence[IRegistry]) -> None:
        self.members = tuple(members)
        first = self.members[0]
        self.options = evolve(first.options, further=tuple(one.options for one in self.members[1:]))
        self.version: int = first.version
        self.algorithms: tuple[str, ...] = first.algorithms

    def route(self, request: RequestHead) -> Route:
        """What the first member makes of it to which it means anything."""
        for member in self.members[:-1]:
            try:
                return member.route(request)
            except NotFound:
                continue
        return self.members[-1].route(request)

    def facts(self, document: str, source: Source) -> Facts:
        return self.members[0].facts(document, source)

    def represent(self, document: str, source: Source, representation: str, base: str) -> bytes:
        return self.members[0].represent(document, source, representation, base)

    def release(self, key: str, parent: str) -> Release | None:
        return self.members[0].release(key, parent)

    def allows(self, url: str) -> bool:
        return any(member.allows(url) for member in self.members)

    def error(self, status: int, text: str) -> tuple[str, bytes]:
        return self.members[0].error(status, text)

    def client_lines(self, base: str) -> list[str]:
        return self.members[0].client_lines(base)
