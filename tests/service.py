"""The service as its users run it: a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

from tests.origin import Origin

__all__ = ["Running"]


class Running:
    """A service in a process of its own, started and ready."""

    def __init__(self, directory: Path, origin: Origin, *more: str) -> None:
        config = directory / "regcache.toml"
        config.write_text(
            f'[registries.pypi]\nurl = "{origin.url}simple/"\nfiles = "{origin.url}"\n'
            f'[registries.npm]\nurl = "{origin.url}"\n'
        )
        command = [
            str(Path(sys.executable).with_name("twistd")),
            "-n",
            "--pidfile=",
            "regcache",
            "--config",
            str(config),
        ]
        command += ["--cache-dir", str(directory / "cache"), "--listen", "tcp:0:interface=127.0.0.1", *more]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=directory
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = re.search(r"at (http://127\.0\.0\.1:\d+/)", line)
            if found is not None:
                self.url = found[1]
            if "cache in" in line:
                break

    def stop(self) -> int:
        """End it as its supervisor would: 0 if it ended in order. Afterwards twistd ends by the signal it was sent."""
        self.process.terminate()
        self.process.communicate(timeout=20)
        return 0 if self.process.returncode in (0, -signal.SIGTERM) else self.process.returncode

    def get(self, path: str, **headers: str) -> tuple[int, Message, bytes]:
        """Status, fields and body of a GET."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=named), timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()
