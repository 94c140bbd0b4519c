"""What every test can ask for."""

from __future__ import annotations

import functools
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import settings

from regcache import registries
from tests import ways
from tests.forks import Forks
from tests.matrix import Matrix
from tests.origin import Origin
from tests.service import Running

# Whoever runs the tests may reach the world through a proxy; the tests reach nothing but loopback.
for _name in [name for name in os.environ if name.upper() in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")]:
    del os.environ[_name]

#: The same examples every time: what lands is not held up by what a search finds by chance, later and elsewhere.
settings.register_profile("regcache", deadline=None, max_examples=40, derandomize=True)
#: For a long search, with ``--hypothesis-profile=long``.
settings.register_profile("long", deadline=None, max_examples=1500)
settings.load_profile("regcache")


def pytest_addoption(parser: pytest.Parser) -> None:
    """By which way the services answer is up to whoever runs the suite."""
    parser.addoption("--way", choices=ways.WAYS, default="fast", help="have all services answer only so (fast)")


def pytest_configure(config: pytest.Config) -> None:
    """What the journeys come to is written to the file that ``REGCACHE_MATRIX`` names."""
    ways.go(config.getoption("--way"))
    if sys.dont_write_bytecode:
        # Nothing compiled is left in the tree then, but dozens of programs need not each compile all of it anew.
        place = tempfile.TemporaryDirectory(prefix="regcache-compiled-")
        config.add_cleanup(place.cleanup)
        os.environ["PYTHONPYCACHEPREFIX"] = place.name
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if named := os.environ.get("REGCACHE_MATRIX"):
        config.pluginmanager.register(Matrix(Path(named).absolute()))


def pytest_sessionstart() -> None:
    """What stands in all the modules of tests is no garbage, and looking through it again and again takes its time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From now on garbage is looked for, among what the tests make."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is about the fast way itself has nothing to say of the other."""
    if config.getoption("--way") != "fast":
        for item in items:
            if item.get_closest_marker("fast"):
                item.add_marker(pytest.mark.skip(reason="it is about the fast way"))


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    """What is installed stays so meanwhile: the types of registry are looked for once, not for each that is made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registries, "entry_points", functools.cache(entry_points))
        yield


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    """Services are forked from one process that has imported all of it, where only their tests count."""
    parent = Forks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Running, "start", parent.start)
        yield
    parent.close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A registry on loopback, closed at the end."""
    made = Origin()
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path, origin: Origin) -> Iterator[Callable[..., Running]]:
    """Starts the service in front of the origin, with more options; whatever still runs at the end is ended."""
    started: list[Running] = []

    def starting(*options: str) -> Running:
        started.append(Running(tmp_path, origin, *options))
        return started[-1]

    yield starting
    for service in started:
        service.kill()


@pytest.fixture(scope="module")
def registry() -> Iterator[Origin]:
    """One registry for all the tests of a module, which leave it as it is."""
    made = Origin()
    made.add_wheel("alpha", "1.0")
    made.add_tarball("left", "1.0.0")
    yield made
    made.close()


@pytest.fixture(scope="module")
def service(registry: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service, likewise; at the end it must not have reported a bug."""
    running = Running(tmp_path_factory.mktemp("service"), registry)
    yield running
    running.stop()
