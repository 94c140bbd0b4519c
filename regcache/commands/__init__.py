"""
The console script: ``regcache serve`` runs the service, the other commands look at and work on its cache.

Exit codes: 0 if it was done, 1 for wrong use, nothing found or damage found, 3 if it wants a service and none runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from regcache import registries
from regcache._version import __version__
from regcache.commands import telling
from regcache.commands.outcome import NOT_RUNNING, WRONG, Failed
from regcache.commands.running import Running, running
from regcache.commands.stopped import Stopped, client_config, opened
from regcache.config import Config, load
from regcache.errors import ConfigError
from regcache.options import tell

__all__ = ["commands_of", "main", "parser"]

_PATTERN = "A key, the name of a registry, of a package, or of both (npm/lodash); or keys with * and ?."


class _Parser(argparse.ArgumentParser):
    """Wrong use ends with status 1, and one line."""

    def error(self, message: str) -> NoReturn:
        """End with that line."""
        raise Failed(f"{message}; see '{self.prog} --help'.")


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
    repair = "Drop what is damaged, so that it is fetched again when it is asked for."
    verify.add_argument("--repair", action="store_true", help=repair)
    lines = add("client-config", "Print the lines that point clients at a registry.")
    lines.add_argument("name", metavar="NAME", help="The registry's name.")
    return made


def commands_of(made: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, by its name."""
    return {
        name: one
        for action in made._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, one in action.choices.items()
    }


def _config(said: argparse.Namespace) -> Config:
    given = {"config": said.config, "cache-dir": said.cache_dir}
    options: dict[str, str | list[str]] = {name: value for name, value in given.items() if value}
    try:
        return load(options, os.environ, lambda kind: registries.factory(kind).option_names)
    except ConfigError as error:
        raise Failed(error.detail) from None


def _asked(config: Config, command: str, **asked: str) -> Any:
    """What the service says, or the cache alone where none runs."""
    service = running(config, os.environ)
    if service is not None:
        return service.ask(command, **asked)
    if command in ("ls", "show", "purge"):
        with opened(config) as cache:
            return cache.ask(command, **asked)
    raise Failed(f"No service runs on {config.cache_dir}.", NOT_RUNNING)


def _status(said: argparse.Namespace) -> tuple[Any, list[str]]:
    found = _asked(_config(said), "status")
    return found, telling.status(found)


def _ls(said: argparse.Namespace) -> tuple[Any, list[str]]:
    found = _asked(_config(said), "ls", pattern=said.pattern)["entries"]
    if said.pattern and not found:
        raise Failed(f"Nothing that is stored is like {said.pattern!r}.")
    return found, telling.entries(found)


def _show(said: argparse.Namespace) -> tuple[Any, list[str]]:
    found = _asked(_config(said), "show", name=said.name)
    return found, telling.entry(found)


def _purge(said: argparse.Namespace) -> tuple[Any, list[str]]:
    found = _asked(_config(said), "purge", pattern=_meant(said), metadata="1" if said.metadata else "")
    if not found["purged"]:
        raise Failed(f"Nothing that is stored is like {said.pattern!r}.")
    return found, [f"{len(found['purged'])} entries, {telling.sized(found['bytes'])}, are forgotten."]


def _refresh(said: argparse.Namespace) -> tuple[Any, list[str]]:
    found = _asked(_config(said), "refresh", pattern=_meant(said))
    if not found["refreshed"]:
        raise Failed(f"No document that is stored is like {said.pattern!r}.")
    return found, [f"{key}: {outcome}" for key, outcome in found["refreshed"].items()]


def _meant(said: argparse.Namespace) -> str:
    if not said.pattern:
        raise Failed("An empty pattern would mean everything; '*' says so.")
    pattern: str = said.pattern
    return pattern


def _client_config(said: argparse.Namespace) -> tuple[Any, list[str]]:
    config = _config(said)
    service = running(config, os.environ)
    found = service.ask("client-config", name=said.name) if service else client_config(config, said.name)
    return found, list(found["lines"])


def _verify(said: argparse.Namespace) -> tuple[Any, list[str]]:
    config = _config(said)
    with contextlib.ExitStack() as stack:
        service: Running | Stopped | None = running(config, os.environ)
        if service is None:
            service = stack.enter_context(opened(config))
        steps = stack.enter_context(contextlib.closing(service.verify(said.repair)))
        damaged: list[dict[str, str]] = []
        result: dict[str, Any] = {}
        for step in steps:
            if "checked" in step:
                result = {**step, "damaged": damaged, "repaired": bool(damaged and said.repair)}
                continue
            _progress(step)
            if step["wrong"]:
                damaged.append({"digest": step["digest"], "wrong": step["wrong"]})
    told = [f"{one['digest']}: {one['wrong']}" for one in damaged]
    end = "dropped" if said.repair else "damaged; 'regcache verify --repair' drops them"
    counted = f"{result['checked']} bodies, {telling.sized(result['bytes'])}, were read"
    return result, [*told, f"{counted}; {len(damaged)} are {end}." if damaged else f"{counted}; all are sound."]


def _progress(step: dict[str, Any]) -> None:
    """How far it is, on one line of a terminal that begins anew."""
    if sys.stderr.isatty():
        percent = 100 * step["done"] // max(step["of"], 1)
        end = "\r\x1b[K" if step["done"] >= step["of"] else ""
        sys.stderr.write(f"\r\x1b[K{percent:3} %  {step['done']} of {step['of']} bodies{end}")
        sys.stderr.flush()


_COMMANDS: dict[str, Callable[[argparse.Namespace], tuple[Any, list[str]]]] = {
    "status": _status,
    "ls": _ls,
    "show": _show,
    "purge": _purge,
    "refresh": _refresh,
    "verify": _verify,
    "client-config": _client_config,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:
        from regcache.tap import serve

        serve(given[1:])
        return
    try:
        said = parser().parse_args(given)
        found, lines = _COMMANDS[said.command](said)
    except Failed as error:
        tell(sys.stderr, f"regcache: {error}")
        raise SystemExit(error.code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    for line in [json.dumps(found)] if said.json else lines:
        tell(sys.stdout, line)
    if said.command == "verify" and found["damaged"] and not said.repair:
        raise SystemExit(WRONG)
