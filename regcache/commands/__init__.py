"""
The console script: ``regcache serve`` runs the service, the other commands look at and work on its cache.

How they end is said in :mod:`regcache.commands.outcome`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from regcache.commands import setting, work
from regcache.commands.examining import doctor
from regcache.commands.outcome import Code, Failed
from regcache.commands.output import Output
from regcache.commands.parsing import commands_of, parser
from regcache.options import tell

__all__ = ["commands_of", "main", "parser"]

_COMMANDS: dict[str, Callable[[argparse.Namespace, Output], Code]] = {
    "status": work.status,
    "ls": work.ls,
    "show": work.show,
    "purge": work.purge,
    "refresh": work.refresh,
    "verify": work.verify,
    "doctor": doctor,
    "client-config": setting.client_config,
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
        code = _COMMANDS[said.command](said, Output(said.json))
    except Failed as error:
        tell(sys.stderr, f"regcache: {error}")
        code = error.code
    except KeyboardInterrupt:
        code = Code.INTERRUPTED
    if code:
        raise SystemExit(int(code)) from None
