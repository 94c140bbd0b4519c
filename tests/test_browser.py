"""
The page in a real Chromium, with scripts and without, by keyboard, at two widths and in both colour schemes.

Its screenshots are left in the directory that ``REGCACHE_ARTIFACTS`` names, else in ``artifacts``.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clients import environment, program
from tests.origin import Origin
from tests.page_scene import fill, tables
from tests.service import Running

pytestmark = pytest.mark.journey
ARTIFACTS = Path(os.environ.get("REGCACHE_ARTIFACTS") or Path(__file__).parent.parent / "artifacts")


def visited(service: Running, home: Path, name: str) -> dict[str, Any]:
    """What the browser saw."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    chromium, modules = program("chromium"), Path(program("playwright-core")).resolve().parent.parent
    script = Path(__file__).with_name("browse.js")
    told = environment(home) | {"NODE_PATH": str(modules)}
    ran = subprocess.run(
        [program("node"), str(script), chromium, service.url, str(ARTIFACTS), name],
        env=told,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture(scope="module", params=["filled", "empty"])
def visit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A visit to a page with much on it, and to that of a service that nobody has used."""
    directory, origin = tmp_path_factory.mktemp("service"), Origin()
    origin.add_tarball("left", "1.3.0")
    service = Running(directory, origin, tables=tables(origin, "1s"))
    try:
        if request.param == "filled":
            fill(service, origin)
        yield request.param, service.url, visited(service, directory, request.param)
    finally:
        said = service.stop()
        service.kill()
        origin.close()
    assert "bug" not in said


def test_nothing_is_refused_and_nobody_else_is_asked(visit: Any) -> None:
    """The policy fits the page, its script finds all that it looks for, and the browser asks this host alone."""
    _, url, seen = visit
    assert seen["complaints"] == []
    assert {urlsplit(one).netloc for one in seen["requests"]} == {urlsplit(url).netloc}
    paths = {urlsplit(one).path for one in seen["requests"]}
    assert paths >= {"/", "/-/page/style.css", "/-/page/script.js", "/-/page/figures.json"}


def test_it_looks_right_everywhere(visit: Any) -> None:
    """Nothing sticks out at either width; the checker finds contrast, names and landmarks right in both schemes."""
    name, _, seen = visit
    assert sorted(seen["looks"]) == ["1280 dark", "1280 light", "390 dark", "390 light"]
    for look in seen["looks"].values():
        assert look == {"overflow": 0, "violations": []}
    for width in (1280, 390):
        pictures = {(ARTIFACTS / f"page-{name}-{width}-{one}.png").read_bytes() for one in ("light", "dark")}
        assert len(pictures) == 2


def test_by_keyboard(visit: Any) -> None:
    """From the skip link through the sections to the form, and on; one always sees where one is."""
    _, _, seen = visit
    stops = [one["what"] for one in seen["keyboard"]["stops"]]
    assert stops[:6] == ["Skip to the content", "regcache", "Registries", "Packages", "Failures", "Set-up"]
    assert stops[6:9] == ["q", "registry", "stale"]
    assert stops[9] == "Search"
    assert stops[-3:] == ["Health", "Readiness", "Metrics"]
    assert [one for one in seen["keyboard"]["stops"] if not one["visible"]] == []
    assert seen["keyboard"]["skipped"] == "main"


def test_without_scripts(visit: Any) -> None:
    """All but the buttons to copy, and the figures that change by themselves."""
    name, _, seen = visit
    assert seen["plain"]["buttons"] == 0
    assert seen["plain"]["lines"] > 12
    assert seen["plain"]["names"] == (["zope-interface"] if name == "filled" else [])
    assert seen["plain"].get("table", True)


def test_copying(visit: Any) -> None:
    """The line is on the clipboard, also where the browser gives a page none; a screen reader is told."""
    _, url, seen = visit
    for one in seen["copies"]:
        assert one["wanted"].startswith(f"export UV_DEFAULT_INDEX={url}pypi/simple/")
        assert (one["pasted"], one["said"]) == (one["wanted"], "The line for uv is copied.")


def test_figures_change_by_themselves(visit: Any) -> None:
    """What happens while somebody looks is shown."""
    _, _, seen = visit
    before, after = (int(text.partition(" ")[0].replace(",", "")) for text in seen["refreshed"])
    assert after == before + 1
