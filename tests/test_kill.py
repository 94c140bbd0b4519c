"""Killed without warning in the middle of downloads and commits, again and again."""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.origin import Origin
from tests.service import Running

FILES = 12


def ask_quietly(service: Running, path: str) -> None:
    """Ask, whatever comes of it."""
    try:
        service.get(path)
    except (OSError, http.client.HTTPException):
        return


@pytest.mark.parametrize("rounds", [3, pytest.param(200, marks=pytest.mark.soak)])
def test_no_wrong_byte_survives_a_kill(
    origin: Origin, start: Callable[..., Running], tmp_path: Path, rounds: int
) -> None:
    """After each kill the next start serves every file whole and right, from the store or from the registry."""
    chance = random.Random(7)
    registries = ("--registries", f"files=generic+{origin.url}", "--max-size", "3M", "--min-free", "0")
    service = start(*registries)
    for number in range(rounds):
        origin.rate = 4 << 20
        bodies = {f"/{number}/{at}.bin": chance.randbytes(chance.randrange(1, 400_000)) for at in range(FILES)}
        for path, body in bodies.items():
            origin.add(path, body)
        threads = [threading.Thread(target=ask_quietly, args=(service, f"files{path}")) for path in bodies]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0, 0.15))
        os.kill(service.process.pid, 9)
        for thread in threads:
            thread.join()
        service.kill()
        origin.rate = 0
        service = start(*registries)
        assert service.url, service.said
        assert list((tmp_path / "cache" / "partial").iterdir()) == []
        for path, body in bodies.items():
            status, headers, got = service.get(f"files{path}")
            assert (status, got) == (200, body), f"{path}: {headers['X-Cache']}"
