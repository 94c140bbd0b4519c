"""Speaking to a running service by its admin socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from regcache.commands.outcome import Code, Failed
from regcache.config import Config
from regcache.places import ADMIN_POINTER, admin_sockets

__all__ = ["Running", "running"]

#: Seconds without a word from the service: a refresh asks registries, one after the other.
_PATIENCE = 600.0
_CHANGING = frozenset({"purge", "refresh"})


class _Connection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Reach the service."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(_PATIENCE)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


class Running:
    """A service that runs."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, command: str, **asked: str) -> Any:
        """
        What it answers, as JSON.

        :raises Failed: if it refuses, or does not answer.
        """
        connection = _Connection(self._path)
        method = "POST" if command in _CHANGING else "GET"
        try:
            target = f"/{command}?{urlencode(asked, errors='surrogateescape')}"
            connection.request(method, target, headers={"Connection": "close"})
            answer = connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Failed(f"The service did not answer on {self._path}: {error}", Code.NOT_RUNNING) from None
        finally:
            connection.close()
        if answer.status != 200:
            raise Failed(str(said["error"]) if isinstance(said, Mapping) and "error" in said else "It failed.")
        return said

    def verify(self, repair: bool) -> Generator[Any, None, None]:
        """
        What came of each body, one after the other, and last of all.

        :raises Failed: if it ends before that.
        """
        connection = _Connection(self._path)
        try:
            connection.request("POST", f"/verify?repair={repair:d}", headers={"Connection": "close"})
            answer = connection.getresponse()
            for line in answer:
                said = json.loads(line)
                if "error" in said:
                    raise Failed(str(said["error"]))
                yield said
                if "checked" in said:
                    return
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Failed(f"The service did not answer on {self._path}: {error}", Code.NOT_RUNNING) from None
        finally:
            connection.close()
        raise Failed("The service ended before all was read.", Code.NOT_RUNNING)


def running(config: Config, environ: Mapping[str, str]) -> Running | None:
    """The service of that cache, if it runs and can be reached."""
    places = admin_sockets(config.cache_dir, environ)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        # It may have been started with another environment.
        places.insert(0, (Path(config.cache_dir) / ADMIN_POINTER).read_text("utf-8").strip())
    for path in places:
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(10)
            probe.connect(path)
            return Running(path)
    return None
