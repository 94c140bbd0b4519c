"""The clients of Python package indexes, each from end to end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import clients
from tests.journey import Journey
from tests.origin import Origin

pytestmark = pytest.mark.journey

#: Whether what was installed is there, and what it requires.
_USED = "import alpha, beta_two; assert alpha.__version__ == beta_two.__version__ == '1.0'"


class _PythonJourney(Journey):
    """A project and the one that it requires, whose name has other spellings."""

    registry = "pypi"

    def publish(self, origin: Origin) -> str:
        origin.add_wheel("alpha", "1.0", ["Beta_Two>=1"], sidecar=True)
        return origin.add_wheel("beta_two", "1.0", sidecar=True)

    def table(self, origin: Origin) -> str:
        return f'url = "{origin.url}simple/"\nfiles = "{origin.url}"\n'

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        place.mkdir(exist_ok=True)
        index = f"{url}simple/"
        for command in self.commands(index, place, locked):
            done = clients.run(command, place, **self.variables(index, place))
            if done.returncode:
                break
        return done

    def commands(self, index: str, place: Path, locked: bool) -> list[list[str]]:
        """Write the project; what is run there one after the other, what uses the packages last."""
        raise NotImplementedError

    def variables(self, index: str, place: Path) -> dict[str, str]:
        """What the client is told by its environment."""
        del index, place
        return {}


def _project(place: Path, more: str) -> None:
    text = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["alpha"]\n'
    (place / "pyproject.toml").write_text(text + more)


def _inside(place: Path) -> list[str]:
    """What uses the packages in the environment that the client has made."""
    return [str(place / ".venv" / "bin" / "python"), "-c", _USED]


class TestPip(_PythonJourney):
    """The lock is ``requirements.txt`` with hashes, made from what pip says it has installed."""

    client = "pip"
    locks = ("requirements.txt",)

    def commands(self, index: str, place: Path, locked: bool) -> list[list[str]]:
        target = place / "installed"
        pip = [clients.program(self.client), "install", "--no-cache-dir", "--retries", "0", "--index-url", index]
        pip += ["--target", str(target)]
        use = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(target)!r}); {_USED}"]
        if locked:
            return [[*pip, "--require-hashes", "-r", "requirements.txt"], use]
        report = place / "report.json"
        return [[*pip, "--report", str(report), "alpha"], [sys.executable, "-c", _REQUIREMENTS], use]


#: Makes requirements of pip's report.
_REQUIREMENTS = """
import json, pathlib
found = json.loads(pathlib.Path("report.json").read_text())["install"]
lines = [
    f"{one['metadata']['name']}=={one['metadata']['version']}"
    f" --hash=sha256:{one['download_info']['archive_info']['hashes']['sha256']}\\n"
    for one in found
]
pathlib.Path("requirements.txt").write_text("".join(lines))
"""


class TestPip23(TestPip):
    """The pip that Python 3.11 came with."""

    client = "pip-23"
    called = "pip 23"


class TestUv(_PythonJourney):
    """uv, by its project."""

    client = "uv"
    locks = ("uv.lock",)

    def commands(self, index: str, place: Path, locked: bool) -> list[list[str]]:
        _project(place, f'[[tool.uv.index]]\nurl = "{index}"\ndefault = true\n')
        uv = [clients.program("uv"), "sync", "--no-cache", "--python", sys.executable]
        return [[*uv, *(["--frozen"] if locked else [])], _inside(place)]


class TestPoetry(_PythonJourney):
    client = "poetry"
    locks = ("poetry.lock",)

    def variables(self, index: str, place: Path) -> dict[str, str]:
        return {
            "POETRY_CACHE_DIR": str(place / "cache"),
            "POETRY_VIRTUALENVS_IN_PROJECT": "true",
            "POETRY_REQUESTS_MAX_RETRIES": "0",
        }

    def commands(self, index: str, place: Path, locked: bool) -> list[list[str]]:
        more = f'[tool.poetry]\npackage-mode = false\n[[tool.poetry.source]]\nname = "regcache"\nurl = "{index}"\n'
        _project(place, f'{more}priority = "primary"\n')
        poetry = [clients.program("poetry"), "--no-interaction"]
        return [[*poetry, "sync" if locked else "install"], _inside(place)]


class TestPdm(_PythonJourney):
    client = "pdm"
    locks = ("pdm.lock",)

    def variables(self, index: str, place: Path) -> dict[str, str]:
        return {"PDM_CHECK_UPDATE": "false", "PDM_CACHE_DIR": str(place / "cache"), "PDM_PYPI_URL": index}

    def commands(self, index: str, place: Path, locked: bool) -> list[list[str]]:
        _project(place, "[tool.pdm]\ndistribution = false\n")
        return [[clients.program("pdm"), "sync" if locked else "install", "--no-self"], _inside(place)]


class TestPipenv(_PythonJourney):
    client = "pipenv"
    locks = ("Pipfile.lock",)

    def variables(self, index: str, place: Path) -> dict[str, str]:
        return {"PIPENV_VENV_IN_PROJECT": "1", "PIPENV_CACHE_DIR": str(place / "cache"), "PIP_RETRIES": "0"}

    def commands(self, index: str, place: Path, locked: bool) -> list[list[str]]:
        source = f'[[source]]\nname = "regcache"\nurl = "{index}"\nverify_ssl = false\n'
        (place / "Pipfile").write_text(f'{source}[packages]\nalpha = "*"\n')
        pipenv = [clients.program("pipenv"), "sync" if locked else "install", "--python", sys.executable]
        return [pipenv, _inside(place)]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip and nothing else; it takes longer to make than to copy."""
    made = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", str(made)], check=True, capture_output=True, timeout=120)
    return made


class TestPipTools(_PythonJourney):
    """``pip-compile`` for the lock, ``pip-sync`` for what it names."""

    client = "pip-compile"
    called = "pip-tools"
    locks = ("requirements.txt",)

    @pytest.fixture(autouse=True)
    def _copied(self, bare: Path) -> None:
        self.bare = bare

    def variables(self, index: str, place: Path) -> dict[str, str]:
        return {"PIP_INDEX_URL": index, "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0", "PIP_TOOLS_CACHE_DIR": str(place)}

    def commands(self, index: str, place: Path, locked: bool) -> list[list[str]]:
        (place / "requirements.in").write_text("alpha\n")
        shutil.copytree(self.bare, place / ".venv", symlinks=True)
        compiled = [clients.program(self.client), "-q", "--generate-hashes", "requirements.in"]
        sync = [clients.program("pip-sync"), "--python-executable", str(place / ".venv" / "bin" / "python")]
        return [*([] if locked else [compiled]), sync, _inside(place)]


class TestSetuptools(_PythonJourney):
    """easy_install, as long as it asks an index by itself."""

    client = "setuptools-python"
    called = "setuptools"

    def version(self) -> str:
        """Of setuptools."""
        ask = [clients.program(self.client), "-c", "import setuptools; print(setuptools.__version__)"]
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def variables(self, index: str, place: Path) -> dict[str, str]:
        del index
        # It installs to nowhere that is not looked into.
        return {"PYTHONPATH": str(place / "installed")}

    def commands(self, index: str, place: Path, locked: bool) -> list[list[str]]:
        del locked
        (place / ".pydistutils.cfg").write_text(f"[easy_install]\nindex_url = {index}\n")
        (place / "setup.py").write_text("from setuptools import setup\nsetup()\n")
        target = place / "installed"
        target.mkdir()
        python = clients.program(self.client)
        install = [python, "-W", "ignore", "setup.py", "-q", "easy_install", "-d", str(target), "alpha"]
        eggs = f"import sys, glob; sys.path[:0] = glob.glob({str(target / '*.egg')!r}); {_USED}"
        return [install, [python, "-c", eggs]]


class TestBuildout(_PythonJourney):
    client = "buildout"

    def variables(self, index: str, place: Path) -> dict[str, str]:
        return {"PIP_INDEX_URL": index, "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0"}

    def commands(self, index: str, place: Path, locked: bool) -> list[list[str]]:
        del locked
        parts = "parts = python\n[python]\nrecipe = zc.recipe.egg\neggs = alpha\ninterpreter = python\n"
        (place / "buildout.cfg").write_text(f"[buildout]\nindex = {index}\nnewest = false\n{parts}")
        return [[clients.program("buildout"), "-q"], [str(place / "bin" / "python"), "-c", _USED]]
