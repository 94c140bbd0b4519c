"""The command line: the table of options as ``twistd`` and the console script read it."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TextIO

from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock
from twisted.logger import LoggingFile
from twisted.python import usage

from regcache import registries
from regcache._version import __version__
from regcache.auth import Door
from regcache.cautions import warnings
from regcache.config import Config, Listen, load
from regcache.credentials import held
from regcache.errors import ConfigError
from regcache.ports import tcp_address
from regcache.settings import OPTIONS

__all__ = ["WRONG_USE", "Options", "check_endpoint", "stop", "tell"]

#: The exit code for wrong options and a wrong configuration, as the commands beside the service have it.
WRONG_USE = 2

_LAST_PORT = 65_535
#: What an endpoint looks like that is not plain TCP.
_LIKE = {"ssl": "ssl:8443:certKey=cert.pem:privateKey=key.pem", "unix": "unix:/run/regcache/http.sock"}


class _Stop(SystemExit, Exception):
    """
    The end of the program.

    An ordinary exception as well: ``twistd`` tells only of those to whoever waits for the program to go into the
    background, who would wait for ever else, and removes the pidfile only then.
    """

    def __init__(self, told: str, code: int) -> None:
        super().__init__(code)
        self._told = told

    def __str__(self) -> str:
        return self._told


def stop(error: ConfigError | str, code: int = 1) -> NoReturn:
    """
    End the program with one line for a person.

    The line goes to the real standard error: once ``twistd`` has started, it logs what is written to ``sys.stderr``.
    That has to do where there is nobody at the other end.

    :param code: the exit code; 1 says that it cannot be done as things are, whatever the options say.
    """
    told = error.detail if isinstance(error, ConfigError) else error
    stream: Any = sys.stderr
    if isinstance(stream, LoggingFile) and sys.__stderr__ is not None and not _leads_nowhere(sys.__stderr__):
        stream = sys.__stderr__
    tell(stream, f"regcache: {told}")
    raise _Stop(told, code)


def tell(stream: TextIO | None, line: str) -> None:
    """Write a line to a stream; where that is closed or full, nobody reads it, which is no reason to fail."""
    if stream is not None:
        with contextlib.suppress(OSError):
            try:
                stream.write(f"{line}\n")
                stream.flush()
            except BrokenPipeError:
                # What is still in the buffer would be tried again at the exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _leads_nowhere(stream: TextIO) -> bool:
    """Whether a stream is closed, or that of a program in the background."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except (OSError, ValueError):
        return True


def check_endpoint(endpoint: str) -> None:
    """
    See that an endpoint can be understood.

    :raises regcache.errors.ConfigError: if it cannot.
    """
    place = tcp_address(Listen(endpoint).place)
    if place is not None and place[2] > _LAST_PORT:
        raise ConfigError(f"--listen {endpoint}: there is no port above {_LAST_PORT}.")
    try:
        serverFromString(None, endpoint)
    except LookupError:
        raise ConfigError(
            f"--listen {endpoint}: no such socket was handed over; systemd hands over those of a .socket."
        ) from None
    except TypeError:
        like = "tcp:8650:interface=127.0.0.1, and a colon within a part like \\:"
        raise ConfigError(
            f"--listen {endpoint}: it has a part too many, or an unknown one; it should be like {like}"
        ) from None
    except Exception as error:
        # Every type of endpoint is a plugin, and reads its text and its files in its own way.
        like = _LIKE.get(endpoint.partition(":")[0], "tcp:8650:interface=127.0.0.1")
        raise ConfigError(f"--listen {endpoint}: {error} (it should be like {like})") from None


def _help(option: Any) -> str:
    default = f" Default: {option.default}." if option.default and not option.flag else ""
    return f"{option.help}{default}".replace("%", "%%")


class Options(usage.Options):
    """
    The options of the service.

    A wrong one ends the program with one line on standard error: ``twistd`` would print a page of usage instead.

    :ivar config: the configuration, once parsed.
    """

    #: By what it is run, for the help.
    program = "twistd -n regcache"
    longdesc = "A caching reverse proxy for package registries."
    optParameters = [
        [option.name, None, None, _help(option)] for option in OPTIONS if not (option.flag or option.many)
    ] + [["config", None, None, "A TOML file with the same names, and a table [registries.NAME] each."]]
    optFlags = [[option.name, None, _help(option)] for option in OPTIONS if option.flag] + [
        ["check-config", None, "Say whether the configuration is sound, and end."]
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.said: dict[str, str | list[str]] = {}
        self.config: Config
        self._listening: tuple[Listen, ...] = ()

    def getSynopsis(self) -> str:
        """The first line of the help."""
        return f"Usage: {self.program} [options]"

    def opt_listen(self, endpoint: str) -> None:
        """A Twisted endpoint, or NAME@ENDPOINT for one registry at the root of its own port. May be repeated;
        any replaces the default. Default: tcp:8650 on 127.0.0.1 and, where present, ::1."""  # noqa: D209, D213  (it is the help)
        listed = self.said.setdefault("listen", [])
        assert isinstance(listed, list)
        listed.append(endpoint)

    def opt_help(self) -> None:
        """Show this help, and end."""
        tell(sys.stdout, str(self))
        raise SystemExit(0)

    def opt_version(self) -> None:
        """Show the version, and end."""
        tell(sys.stdout, f"regcache {__version__}")
        raise SystemExit(0)

    def parseArgs(self, *rest: str) -> None:
        """
        Refuse what is no option.

        :raises twisted.python.usage.UsageError: if anything is left over.
        """
        if rest:
            raise usage.UsageError(f"{rest[0]!r} is no option; see --help.")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line, the environment and the file; ends the program if any is wrong."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            stop(self._mistaken(str(error)), WRONG_USE)
        self.finish(os.environ)

    def _mistaken(self, told: str) -> str:
        """What is wrong with the command line, in our words where Twisted's help nobody on."""
        unknown = re.fullmatch(r"option --(\S+) not recognized", told)
        if unknown is None:
            return told
        names = [name.rstrip("=") for name in self.longOpt]
        near = difflib.get_close_matches(unknown[1], names, 1)
        return f"there is no option --{unknown[1]}; {f'did you mean --{near[0]}?' if near else 'see --help.'}"

    def read(self, environ: Mapping[str, str]) -> tuple[Config, list[str]]:
        """
        What the command line, the environment and the file come to now, and what of it is probably not meant.

        Endpoints that are listened on already are not looked at: their files may be another user's by now.

        :raises regcache.errors.ConfigError: if any is wrong.
        """
        config = load(self.said, environ, lambda kind: registries.factory(kind).option_names)
        for options in config.registries:
            made = registries.make(options)
            if options.name in config.credentials:
                held(options.name, config.credentials[options.name], made.options.url)
        Door(config.auth, config.registries, Clock()).probe()
        for one in config.listen:
            if one not in self._listening:
                check_endpoint(one.endpoint)
        return config, warnings(config, environ, self.said)

    def finish(self, environ: Mapping[str, str]) -> None:
        """Make the configuration."""
        for name, value in self.items():
            if isinstance(value, str):
                self.said[name] = value
            elif value and name != "check-config":
                self.said[name] = "yes"
        if "config" in self.said:
            # It is read again later, when the working directory may be another.
            self.said["config"] = os.path.abspath(str(self.said["config"]))
        try:
            self.config, cautions = self.read(environ)
            self._listening = self.config.listen
        except ConfigError as error:
            stop(error, WRONG_USE)
        for warning in cautions:
            tell(sys.stderr, f"regcache: warning: {warning}")
        if self["check-config"]:
            names = ", ".join(options.name for options in self.config.registries)
            ports = ", ".join(one.endpoint for one in self.config.listen) or "port 8650 on loopback"
            allowed = ", ".join(map(str, self.config.allow)) or "nobody"
            told = f"{names}; on {ports}; for {allowed}; cache in {self.config.cache_dir}"
            tell(sys.stdout, f"The configuration is sound: {told}.")
            raise SystemExit(0)
