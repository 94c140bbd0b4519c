"""What every test can ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.origin import Origin
from tests.service import Running

settings.register_profile("regcache", deadline=None, max_examples=60)
#: For a long search, with ``--hypothesis-profile=long``.
settings.register_profile("long", deadline=None, max_examples=4000)
settings.load_profile("regcache")


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
