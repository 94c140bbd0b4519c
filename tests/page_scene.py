"""A service with something to show on its page: packages of several registries, failures, stale index pages."""

from __future__ import annotations

from tests.origin import Origin
from tests.service import Running

__all__ = ["fill", "tables"]


def tables(origin: Origin, ttl: str = "1d") -> str:
    """The registries' tables."""
    down = "http://127.0.0.1:9/"
    return (
        f'[registries.pypi]\nurl = "{origin.url}simple/"\nfiles = "{origin.url}"\nttl = "{ttl}"\n'
        f'[registries.npm]\nurl = "{origin.url}"\n[registries.maven]\nurl = "{down}"\n'
        f'[registries.tools]\ntype = "generic"\nurl = "{origin.url}tools/"\n'
    )


def fill(service: Running, origin: Origin) -> None:
    """Have packages fetched, some of them again, and some that cannot be had."""
    paths = []
    for name, version in (("demo", "1.0"), ("zope.interface", "7.2"), ("requests", "2.32.5"), ("attrs", "25.4.0")):
        paths += [f"pypi/simple/{name.replace('.', '-')}/", f"pypi{origin.add_wheel(name, version)}"]
    for name, version in (("left", "1.3.0"), ("left", "1.2.0"), ("@deep/right", "2.0.0-rc.1"), ("lodash", "4.17.21")):
        tarball = origin.add_tarball(name, version)
        paths += [f"npm/{name}", f"npm{tarball}"]
    origin.add("/tools/compiler-14.2.tar.xz", b"tool" * 2_000_000)
    paths.append("tools/compiler-14.2.tar.xz")
    for path in paths:
        assert service.get(path)[0] == 200, path
    files = [path for path in paths if "-" in path and not path.endswith("/")]
    for path in files:
        service.until(path, "HIT")
    for path in files * 20:
        assert service.get(path)[1]["X-Cache"] == "HIT"
    for path in ("maven/org/example/tool/1.0/tool-1.0.jar", "maven/org/example/tool/maven-metadata.xml"):
        assert service.get(path)[0] >= 500
