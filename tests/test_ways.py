"""The suite goes the way it is told to, and each way is what it is taken for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.web.server import Request

from regcache.config import Config, load
from regcache.lean import LeanRequest
from regcache.registries import factory
from regcache.web import RegCacheResource
from tests.service import Running
from tests.wire import Wire

ASKED = b"GET /generic/ HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_services_of_this_process(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain request is read by whom it is to be, whatever the configuration says."""
    read: list[type] = []
    render = RegCacheResource.render

    def rendering(resource: RegCacheResource, request: Request | LeanRequest) -> int:
        read.append(type(request))
        return render(resource, request)

    monkeypatch.setattr(RegCacheResource, "render", rendering)
    for config in (None, Config(memory_cache=1 << 20)):
        assert Wire(config).connect(ASKED).value().startswith(b"HTTP/1.1 200")
    lean = [issubclass(one, LeanRequest) for one in read]
    assert lean == [pytestconfig.getoption("--way") == "fast"] * 2


def test_services_that_are_started(pytestconfig: pytest.Config, service: Running) -> None:
    """They are told by the environment, as everything else that a test does not say."""
    kept = load({}, {"HOME": "/", **os.environ}, lambda kind: factory(kind).option_names).memory_cache
    told = b"REGCACHE_MEMORY_CACHE=0" in Path(f"/proc/{service.process.pid}/environ").read_bytes().split(b"\0")
    ordinary = pytestconfig.getoption("--way") == "ordinary"
    assert (kept == 0, told) == (ordinary, ordinary)
