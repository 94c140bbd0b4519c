"""The clients of Python package indexes, each from end to end, pointed at one by the documentation's own lines."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from tests import clients
from tests.journey import Journey
from tests.origin import Origin

pytestmark = pytest.mark.journey

_PYTHON = shlex.quote(sys.executable)
#: Whether what was installed is there, and what it requires.
_USE = "-c \"import alpha, beta_two; assert alpha.__version__ == beta_two.__version__ == '1.0'\""
_USE_INSIDE = f".venv/bin/python {_USE}"
_PROJECT = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["alpha"]\n'
_PIP_LINE = "pip and pip-tools"


class _PythonJourney(Journey):
    """
    A project and the one that it requires, whose name has another spelling there.

    :cvar programs: by what names the lines call what is installed here; besides :attr:`client`.
    :cvar remarks: those behind the documentation's lines for the client.
    :cvar files: the project.
    """

    registry = "pypi"
    programs: ClassVar[dict[str, str]] = {}
    remarks: ClassVar[tuple[str, ...]]
    files: ClassVar[dict[str, str]] = {}

    def publish(self, origin: Origin) -> str:
        origin.add_wheel("alpha", "1.0", ["Beta_Two>=1"], sidecar=True)
        return origin.add_wheel("beta_two", "1.0", sidecar=True)

    def table(self, origin: Origin) -> str:
        return f'url = "{origin.url}simple/"\nfiles = "{origin.url}"\n'

    def install(self, url: str, place: Path, locked: bool = False) -> subprocess.CompletedProcess[str]:
        place.mkdir(exist_ok=True)
        for name, text in self.files.items():
            # What another machine was handed stays.
            if not (place / name).exists():
                (place / name).write_text(text)
        lines = self.pointed(url, locked) + self.typed(place, locked)
        programs = {self.client: self.client, **self.programs}
        return clients.script(lines, place, programs, PIP_RETRIES="0", **self.variables(place))

    def pointed(self, url: str, locked: bool) -> list[str]:
        """What points the client at the mount."""
        del locked
        return [clients.documented("pypi", url, remark) for remark in self.remarks]

    def typed(self, place: Path, locked: bool) -> list[str]:
        """What is typed to install, by the lock file if so, and then to use what is installed."""
        raise NotImplementedError

    def variables(self, place: Path) -> dict[str, str]:
        """What the client is told by its environment."""
        del place
        return {}


class TestPip(_PythonJourney):
    """Its lock is ``requirements.txt`` with hashes, here made from what it says that it has installed."""

    client = "pip"
    locks = ("requirements.txt",)
    remarks = (_PIP_LINE,)
    files = {
        "lock.py": "import json, pathlib\n"
        "for one in json.loads(pathlib.Path('report.json').read_text())['install']:\n"
        "    about, digest = one['metadata'], one['download_info']['archive_info']['hashes']['sha256']\n"
        "    print(f\"{about['name']}=={about['version']} --hash=sha256:{digest}\")\n"
    }

    def typed(self, place: Path, locked: bool) -> list[str]:
        del place
        install = "pip install --target installed"
        use = f"PYTHONPATH=installed {_PYTHON} {_USE}"
        if locked:
            return [f"{install} --require-hashes -r requirements.txt", use]
        return [f"{install} --report report.json alpha", f"{_PYTHON} lock.py > requirements.txt", use]


class TestPip23(TestPip):
    """The one that came with Python 3.11."""

    client = "pip-23"
    called = "pip 23"
    programs = {"pip": "pip-23"}


class TestUv(_PythonJourney):
    """uv, in a project."""

    client = "uv"
    locks = ("uv.lock",)
    remarks = ("uv",)
    files = {"pyproject.toml": _PROJECT}

    def typed(self, place: Path, locked: bool) -> list[str]:
        del place
        return [f"uv sync --python {_PYTHON}" + (" --frozen" if locked else ""), _USE_INSIDE]


class TestPoetry(_PythonJourney):
    """The source that it is pointed at is a part of the project."""

    client = "poetry"
    locks = ("poetry.lock", "pyproject.toml")
    remarks = ("poetry",)
    files = {"pyproject.toml": f"{_PROJECT}[tool.poetry]\npackage-mode = false\n"}

    def pointed(self, url: str, locked: bool) -> list[str]:
        # Whoever is handed the lock is handed the source with it.
        return [] if locked else super().pointed(url, locked)

    def variables(self, place: Path) -> dict[str, str]:
        del place
        return {"POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_NO_INTERACTION": "1"}

    def typed(self, place: Path, locked: bool) -> list[str]:
        del place, locked
        return ["poetry sync", _USE_INSIDE]


class TestPdm(_PythonJourney):
    """pdm, in a project."""

    client = "pdm"
    locks = ("pdm.lock",)
    remarks = ("pdm",)
    files = {"pyproject.toml": f"{_PROJECT}[tool.pdm]\ndistribution = false\n"}

    def variables(self, place: Path) -> dict[str, str]:
        del place
        return {"PDM_CHECK_UPDATE": "false"}

    def typed(self, place: Path, locked: bool) -> list[str]:
        del place
        return ["pdm sync" if locked else "pdm install", _USE_INSIDE]


class TestPipenv(_PythonJourney):
    """pipenv, with the source that it takes by itself."""

    client = "pipenv"
    locks = ("Pipfile.lock",)
    remarks = ("pipenv",)
    files = {"Pipfile": '[packages]\nalpha = "*"\n'}

    def variables(self, place: Path) -> dict[str, str]:
        del place
        return {"PIPENV_VENV_IN_PROJECT": "1"}

    def typed(self, place: Path, locked: bool) -> list[str]:
        del place
        return [f"pipenv {'sync' if locked else 'install'} --python {_PYTHON}", _USE_INSIDE]


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
    programs = {"pip": "pip", "pip-sync": "pip-sync"}
    remarks = (_PIP_LINE,)
    files = {"requirements.in": "alpha\n"}

    @pytest.fixture(autouse=True)
    def _copied(self, bare: Path) -> None:
        self.bare = bare

    def typed(self, place: Path, locked: bool) -> list[str]:
        shutil.copytree(self.bare, place / ".venv", symlinks=True)
        compiled = [] if locked else ["pip-compile --generate-hashes requirements.in"]
        return [*compiled, "pip-sync --python-executable .venv/bin/python", _USE_INSIDE]


class TestSetuptools(_PythonJourney):
    """easy_install, as long as it asks an index by itself."""

    client = "setuptools-python"
    called = "setuptools"
    programs = {"python": "setuptools-python", "pip": "pip"}
    remarks = ("setuptools", _PIP_LINE)
    files = {"setup.py": "from setuptools import setup\nsetup()\n"}

    def version(self) -> str:
        """Of setuptools."""
        ask = [clients.program(self.client), "-c", "import setuptools; print(setuptools.__version__)"]
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def variables(self, place: Path) -> dict[str, str]:
        # It installs to nowhere that is not looked into.
        return {"PYTHONPATH": str(place / "installed")}

    def typed(self, place: Path, locked: bool) -> list[str]:
        del locked
        (place / "installed").mkdir()
        install = "python -W ignore setup.py easy_install --install-dir installed alpha"
        return [install, f"PYTHONPATH=$(echo installed/*.egg | tr ' ' :) python {_USE}"]


class TestBuildout(_PythonJourney):
    """Its lock is a section of its configuration that names versions, without hashes."""

    client = "buildout"
    programs = {"pip": "pip"}
    remarks = ("buildout", _PIP_LINE)
    files = {
        "buildout.cfg": "[buildout]\nnewest = false\nparts = used\n"
        "[used]\nrecipe = zc.recipe.egg\neggs = alpha\ninterpreter = used\n"
    }

    def typed(self, place: Path, locked: bool) -> list[str]:
        del place, locked
        return ["buildout", f"bin/used {_USE}"]
