"""The example of a configuration file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from regcache import registries
from regcache.config import REGISTRY_KEYS, Config, load
from regcache.example import KEYS, OWN_KEYS, Key, example
from regcache.options import Options
from regcache.settings import OPTIONS
from tests.own import own_names

PATH = Path(__file__).parent.parent / "docs" / "examples" / "regcache.toml"


def uncommented() -> str:
    """The file with every default said."""
    return re.sub(r"^#(?=[a-z\[])", "", PATH.read_text("utf-8"), flags=re.MULTILINE)


def test_it_is_current() -> None:
    """It is what the program's own tables make: ``python -m regcache.example > docs/examples/regcache.toml``."""
    assert PATH.read_text("utf-8") == example()


def test_it_names_every_key() -> None:
    """Each option, each key of a table, and each that only one type knows."""
    said = tomllib.loads(uncommented())
    assert list(said) == [option.name for option in OPTIONS if option.name != "registries"] + ["registries"]
    assert list(said["registries"]) == ["npm", "pypi"]
    assert set(KEYS) == set(REGISTRY_KEYS)
    own = {kind: set(registries.factory(kind).option_names) for kind in own_names()}
    assert {kind: set(keys) for kind, keys in OWN_KEYS.items()} == {kind: keys for kind, keys in own.items() if keys}


@pytest.mark.parametrize("text", ["as it is", "uncommented"])
def test_it_says_the_defaults(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied as it is, and with every default said, it comes to what the program does without a file."""
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    path = tmp_path / "regcache.toml"
    path.write_text(uncommented() if text == "uncommented" else PATH.read_text("utf-8"))
    environ = {"HOME": "/home/someone"}
    assert load({"config": str(path)}, environ, lambda kind: registries.factory(kind).option_names) == Config()


@pytest.mark.parametrize("table", [KEYS, *OWN_KEYS.values()])
def test_every_key_has_a_default_or_a_sample(table: dict[str, Key]) -> None:
    """A reader sees how each is written; samples are TOML as well."""
    for name, key in table.items():
        assert bool(key.default) != bool(key.sample), name
        assert tomllib.loads(f"{name} = {key.default or key.sample}")
        assert key.default or "Default: " in key.help, name


def test_the_service_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A check of it, with every default said, finds it sound and warns of nothing."""
    path = tmp_path / "regcache.toml"
    path.write_text(uncommented())
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--check-config", "--config", str(path)])
    said = capsys.readouterr()
    assert (caught.value.code, said.err) == (0, "")
    assert said.out.startswith("The configuration is sound: npm, pypi; on port 8650 on loopback; ")
