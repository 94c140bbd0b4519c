"""The command line: the table of options as ``twistd`` and the console script read it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from twisted.python import usage

from regcache import registries
from regcache._version import __version__
from regcache.config import OPTIONS, Config, load
from regcache.errors import ConfigError

__all__ = ["Options", "stop"]


def stop(error: ConfigError | str) -> NoReturn:
    """
    End the program with one line for a person, and status 1.

    The line goes to the real standard error: once ``twistd`` has started, it logs what is written to ``sys.stderr``.
    """
    line = f"regcache: {error.detail if isinstance(error, ConfigError) else error}\n"
    if sys.__stderr__ is not None:
        sys.__stderr__.write(line)
    if sys.stderr is not sys.__stderr__:
        sys.stderr.write(line)
    raise SystemExit(1)


def _help(option: Any) -> str:
    default = f" Default: {option.default}." if option.default and not option.flag else ""
    return f"{option.help}{default}".replace("%", "%%")


class Options(usage.Options):
    """
    The options of the service.

    A wrong one ends the program with one line on standard error: ``twistd`` would print a page of usage instead.

    :ivar config: the configuration, once parsed.
    """

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

    def opt_listen(self, endpoint: str) -> None:
        """A Twisted endpoint, or NAME@ENDPOINT for one registry at the root of its own port. May be repeated;
        any replaces the default. Default: tcp:8650 on 127.0.0.1 and, where present, ::1."""
        listed = self.said.setdefault("listen", [])
        assert isinstance(listed, list)
        listed.append(endpoint)

    def opt_version(self) -> None:
        """Show the version, and end."""
        print(f"regcache {__version__}")  # noqa: T201
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
            stop(str(error))
        self.finish(os.environ)

    def finish(self, environ: Mapping[str, str]) -> None:
        """Make the configuration."""
        for name, value in self.items():
            if isinstance(value, str):
                self.said[name] = value
            elif value and name != "check-config":
                self.said[name] = "yes"
        try:
            self.config = load(self.said, environ, lambda kind: registries.factory(kind).option_names)
            for options in self.config.registries:
                registries.make(options)
        except ConfigError as error:
            stop(error)
        if self["check-config"]:
            names = ", ".join(options.name for options in self.config.registries)
            sys.stdout.write(f"The configuration is sound: {names}, cache in {self.config.cache_dir}.\n")
            raise SystemExit(0)
