"""Which package, and which version of it, a key is of, as people are shown it."""

from __future__ import annotations

import pytest

from regcache.registries import make, names
from regcache.routes import RegistryOptions, Release
from tests.wire import sample_of

_PEP = "packages/aa/bb/" + "c" * 60
#: By type: keys, the keys of their documents, and what they are of.
KNOWN: dict[str, list[tuple[str, str, Release | None]]] = {
    "npm": [
        ("packument/left", "", Release("left")),
        ("abbreviated/@deep/left", "", Release("@deep/left")),
        ("manifest/@deep/left/1.2.3-rc.1", "", Release("@deep/left", "1.2.3-rc.1")),
        ("@deep/left/-/left-1.2.3.tgz", "abbreviated/@deep/left", Release("@deep/left", "1.2.3")),
        ("-/v1/search?text=left", "", None),
    ],
    "pypi": [
        ("simple", "", None),
        ("simple/zope-interface", "", Release("zope-interface")),
        ("json/demo/1.0", "", Release("demo", "1.0")),
        (f"{_PEP}/zope_interface-5.0-cp311-none-any.whl", "", Release("zope-interface", "5.0")),
        (f"{_PEP}/zope_interface-5.0-cp311-none-any.whl.metadata", "", Release("zope-interface", "5.0")),
        (f"{_PEP}/zope.interface-5.0rc1.tar.gz", "simple/zope-interface", Release("zope-interface", "5.0rc1")),
        (f"{_PEP}/py-2-1.0-1.tar.gz", "simple/py-2", Release("py-2", "1.0-1")),
        (f"{_PEP}/what.txt", "", None),
    ],
    "maven": [
        ("org/example/deep/tool/1.0/tool-1.0.jar", "", Release("org.example.deep:tool", "1.0")),
        ("org/example/tool/1.0/tool-1.0.pom.sha1", "", Release("org.example:tool", "1.0")),
        ("org/example/tool/maven-metadata.xml", "", Release("org.example:tool")),
        ("org/example/tool/1-SNAPSHOT/maven-metadata.xml", "", Release("org.example:tool", "1-SNAPSHOT")),
        ("archetype-catalog.xml", "", None),
        ("maven-metadata.xml", "", None),
    ],
    "go": [
        ("example.org/!big/tool/@v/v1.2.3.zip", "", Release("example.org/Big/tool", "v1.2.3")),
        ("example.org/tool/@v/list", "", Release("example.org/tool")),
        ("example.org/tool/@latest", "", Release("example.org/tool")),
        ("sumdb/sum.example/lookup/example.org/!big@v1.0.0", "", Release("example.org/Big", "v1.0.0")),
        ("sumdb/sum.example/latest", "", None),
    ],
    "cargo": [
        ("index/tool", "", Release("tool")),
        ("config.json", "", None),
        (f"dl/{'a' * 64}/https://files.example/crates/Tool/1.0.0/download", "", Release("tool", "1.0.0")),
        (
            f"dl/{'a' * 64}/https://files.example/crates/x/my-tool-1.0.0-rc.1.crate",
            "",
            Release("my-tool", "1.0.0-rc.1"),
        ),
        (f"dl/{'a' * 64}/https://files.example/{'a' * 64}", "index/tool", Release("tool")),
        (f"dl/{'a' * 64}/https://files.example/{'a' * 64}", "", None),
    ],
    "nuget": [
        ("package/demo.tool/1.0.0", "", Release("demo.tool", "1.0.0")),
        ("package/demo.tool/1.0.0\tv3/other/~/v3-flat", "", Release("demo.tool", "1.0.0")),
        ("json/v3/registration5-gz-semver2/demo.tool/index.json", "", Release("demo.tool")),
        ("json/v3/registration5-gz-semver2/demo.tool/page/1.0.0/2.0.0.json", "", Release("demo.tool")),
        ("json/v3/registration5-gz-semver2/demo.tool/1.0.0.json", "", Release("demo.tool", "1.0.0")),
        ("json/v3-flatcontainer/demo.tool/index.json", "", Release("demo.tool")),
        ("file/v3-flatcontainer/demo.tool/1.0.0/demo.tool.nuspec", "", Release("demo.tool", "1.0.0")),
        ("service", "", None),
        ("search/query?q=demo", "", None),
    ],
    "rubygems": [
        ("info/demo-tool", "", Release("demo-tool")),
        ("gems/demo-tool-1.0.0.gem", "", Release("demo-tool", "1.0.0")),
        ("gems/demo-2-1.0.0-java.gem", "info/demo-2", Release("demo-2", "1.0.0-java")),
        ("quick/Marshal.4.8/demo-tool-1.0.0.gemspec.rz", "", Release("demo-tool", "1.0.0")),
        ("api/v1/gems/demo-tool.json", "", Release("demo-tool")),
        ("versions", "", None),
        ("specs.4.8.gz", "", None),
    ],
    "generic": [("deep/file.zip?x=1", "", Release("deep/file.zip"))],
}


def test_every_type_is_here() -> None:
    """A type of registry that is added says what its keys are of."""
    assert sorted(KNOWN) == sorted(names())


@pytest.mark.parametrize("name", names())
def test_releases(name: str) -> None:
    """Keys are read as the people of each ecosystem name packages and versions."""
    registry = make(RegistryOptions(name=name, type=name, url="http://index.example/", **sample_of(name)[1].options))
    for key, parent, release in KNOWN[name]:
        assert registry.release(key, parent) == release, key
