"""
The public test kit.

:mod:`regcache.testing.kit` is a cache that needs no disk, no network and no waiting; :mod:`regcache.testing.contract`
is what every registry must pass, regcache's own and others'.
"""

from regcache.testing.contract import RegistryContract
from regcache.testing.kit import BASE, FakeRegistry, FakeUpstream, Kit, Page, body_of, make_cache
from regcache.testing.memory import MemoryStore
from regcache.testing.samples import Ask, Sample

__all__ = [
    "BASE",
    "Ask",
    "FakeRegistry",
    "FakeUpstream",
    "Kit",
    "MemoryStore",
    "Page",
    "RegistryContract",
    "Sample",
    "body_of",
    "make_cache",
]
