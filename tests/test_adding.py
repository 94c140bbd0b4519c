"""A registry that another package brings, as the documentation's example does."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from pathlib import Path

import pytest

from tests.origin import Origin
from tests.service import Running

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def test_another_package_brings_a_registry(tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry point is found by the service and by the helper process that reads large indexes."""
    place = tmp_path / "installed"
    made = tomllib.loads((EXAMPLES / "shelf-package.toml").read_text("utf-8"))
    told = place / "regcache_shelf-1.0.dist-info"
    told.mkdir(parents=True)
    for module in made["tool"]["setuptools"]["py-modules"]:
        shutil.copy(EXAMPLES / f"{module}.py", place)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {made['project']['name']}\nVersion: 1.0\n")
    ((group, points),) = made["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (told / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", str(place))
    box, other = b"nails", hashlib.sha256(b"screws").hexdigest()
    lines = [f"{hashlib.sha256(box).hexdigest()} 5 nails-1.0.box", f"{other} 5 screws-1.0.box"]
    lines += [f"{other} 6 screws-1.{number}.box" for number in range(1, 400)]
    catalog = "\n".join(lines).encode()
    origin.add("/top/catalog.txt", catalog, "text/plain")
    origin.add("/top/nails-1.0.box", box)
    origin.add("/top/screws-1.0.box", box)
    service = Running(tmp_path, origin, tables=f'[registries.shelf]\nurl = "{origin.url}"\n')
    try:
        assert service.get("-/clients/shelf")[2] == f"box config warehouse {service.url}shelf/\n".encode()
        assert service.get("shelf/top/catalog.txt")[2] == catalog
        assert service.get("shelf/top/nails-1.0.box")[2] == box
        assert "immutable" in service.until("shelf/top/nails-1.0.box", "HIT")[1]["Cache-Control"]
        assert service.get("shelf/top/screws-1.0.box")[0] == 502
        service.stop()
    finally:
        service.kill()
