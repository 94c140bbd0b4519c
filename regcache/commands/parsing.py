"""What the commands understand."""

from __future__ import annotations

import argparse
from typing import NoReturn

from regcache._version import __version__
from regcache.commands.outcome import Code, Failed

__all__ = ["commands_of", "parser"]

_PATTERN = "A key, the name of a registry, of a package, or of both (npm/lodash); or keys with * and ?."


class _Parser(argparse.ArgumentParser):
    """Wrong use ends with one line."""

    def error(self, message: str) -> NoReturn:
        """End with that line."""
        raise Failed(f"{message}; see '{self.prog} --help'.", Code.USAGE)


def parser() -> argparse.ArgumentParser:
    """All commands, for whoever reads them and for their documentation."""
    made = _Parser(prog="regcache", description="A caching reverse proxy for package registries.")
    made.add_argument("--version", action="version", version=f"regcache {__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("serve", help="Run the service in the foreground; see 'regcache serve --help'.", add_help=False)

    def add(name: str, told: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=told, description=told)
        one.add_argument("--config", metavar="FILE", help="The service's TOML file.")
        one.add_argument("--cache-dir", metavar="DIR", help="The service's cache directory.")
        one.add_argument("--json", action="store_true", help="Print JSON.")
        return one

    add("status", "Say whether the service runs, and how it is.")
    add("ls", "List what is stored.").add_argument("pattern", nargs="?", default="", metavar="PATTERN", help=_PATTERN)
    show = add("show", "Show an entry, and what a request for it would get now.")
    show.add_argument("name", metavar="URL|KEY", help="A key, a URL of the cache, or the URL that the body came from.")
    purge = add("purge", "Forget what is stored; it is fetched again when it is asked for.")
    purge.add_argument("pattern", metavar="PATTERN", help=_PATTERN)
    purge.add_argument("--metadata", action="store_true", help="Only index documents; artifacts stay.")
    refresh = add("refresh", "Ask the registry now for the documents of a package.")
    refresh.add_argument("pattern", metavar="PACKAGE", help=_PATTERN)
    verify = add("verify", "Read every stored body, and compare it with its digest.")
    repair = "Drop what is damaged. The service fetches it again at once; where none runs, when it is asked for."
    verify.add_argument("--repair", action="store_true", help=repair)
    doctor = add("doctor", "Find what is wrong with the machine, the network and the service, and how to mend it.")
    _served(doctor)
    doctor.add_argument(
        "--timeout", type=seconds, default=10.0, metavar="SECONDS", help="The most a check may take. Default: 10."
    )
    lines = add("client-config", "Print the lines that point clients at a registry, or put them in place.")
    lines.add_argument("name", metavar="NAME", help="The registry's name.")
    _served(lines)
    lines.add_argument(
        "--client",
        action="append",
        default=[],
        metavar="CLIENT",
        help="Only this client, such as pip. May be repeated.",
    )
    way = lines.add_mutually_exclusive_group()
    way.add_argument(
        "--write", action="store_true", help="Change the clients' own configuration files; what else is there stays."
    )
    way.add_argument("--dry-run", action="store_true", help="Show what --write would change.")
    way.add_argument("--undo", action="store_true", help="Put the files back as they were before the last --write.")
    return made


def _served(one: argparse.ArgumentParser) -> None:
    """What a service was told on its command line, for when none runs that could be asked."""
    one.add_argument("--registries", metavar="NAMES", help="As of the service, where none runs.")
    one.add_argument("--listen", action="append", metavar="ENDPOINT", help="As of the service, where none runs.")
    one.add_argument("--public-url", metavar="URL", help="As of the service, where none runs.")


def seconds(text: str) -> float:
    """A number of them that makes sense; argparse tells its name where it does not."""
    found = float(text)
    if not 0 < found <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not right; it wants seconds, more than 0 and at most 600")
    return found


def commands_of(made: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, by its name."""
    return {
        name: one
        for action in made._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, one in action.choices.items()
    }
