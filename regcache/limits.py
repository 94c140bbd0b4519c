"""How much goes on at the same time: numbers from which memory and descriptors are never used up."""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from regcache.errors import ConfigError

__all__ = ["Limits"]

#: Descriptors for the index, the helper, threads, ports, logs and the connections to registries that are kept for
#: later, and a rest for what is not counted.
RESERVED = 192
#: The fewest and the most of each, and the part of the descriptors in between: one of so many.
_PARTS = {
    "requests": (8, 4096, 4),
    "transfers": (8, 1024, 8),
    "bodies": (4, 256, 16),
    "documents": (2, 128, 32),
    "refusals": (2, 128, 32),
    "files": (2, 1024, 32),
}
#: Descriptors that one of each may hold: a request its file; a body under way a file, and a connection while it comes;
#: a document a connection and then a file; the rest a connection.
_COSTS = {"requests": 1, "transfers": 1, "bodies": 1, "documents": 2, "refusals": 1, "files": 1}
_MOST_CONNECTIONS, _FEWEST_CONNECTIONS = 16384, 8


@frozen(kw_only=True)
class Limits:
    """
    What may be at the same time, in all of one service.

    :ivar connections: of clients; of one address half as many. 0 for any.
    :ivar requests: under way; of one address half as many. 0 for any.
    :ivar transfers: artifacts being fetched, those that wait for their turn included.
    :ivar bodies: artifacts that come.
    :ivar documents: index pages that come.
    :ivar waiting: requests to registries that wait for their turn.
    :ivar refusals: refused clients that are given time to read why.
    :ivar files: that are kept open for answers that are ready.
    :ivar shared: whether addresses tell clients apart, so that none may have it all.
    """

    connections: int = 0
    requests: int = 0
    transfers: int = 1024
    bodies: int = 256
    documents: int = 128
    waiting: int = 2048
    refusals: int = 128
    files: int = 1024
    shared: bool = True

    @classmethod
    def of(cls, descriptors: int, connections: int = 0, shared: bool = True) -> Limits:
        """
        What a process may do that has so many descriptors.

        :param connections: how many there may be, if not as many as the rest leaves room for.
        :raises regcache.errors.ConfigError: if there is no room for them.
        """
        spare = max(descriptors - RESERVED, 0)
        parts: dict[str, Any] = {
            name: min(max(spare // part, least), most) for name, (least, most, part) in _PARTS.items()
        }
        room = spare - sum(parts[name] * cost for name, cost in _COSTS.items())
        if connections > room or room < _FEWEST_CONNECTIONS:
            wanted = connections or _FEWEST_CONNECTIONS
            raise ConfigError(
                f"{wanted} connections are too many where a process may have {descriptors} descriptors, which leaves"
                f" {max(room, 0)} for them: raise the limit (ulimit -n, LimitNOFILE=), or lower --max-connections."
            )
        most = connections or min(room, _MOST_CONNECTIONS)
        return evolve(cls(shared=shared), connections=most, **parts)

    def share(self, most: int) -> int:
        """What one address may have of so many, so that nobody alone keeps all others out."""
        return (most + 1) // 2 if self.shared else most
