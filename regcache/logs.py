"""What is logged: Twisted's logger, for text that others have a hand in."""

from __future__ import annotations

import copy
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from regcache.errors import shown

__all__ = ["Log"]


class Log(Logger):
    """A logger whose fields cannot make lines of their own, and show no secrets."""

    def __init__(self) -> None:
        super().__init__(namespace="regcache")

    def emit(self, level: LogLevel, format: str | None = None, **fields: Any) -> None:  # noqa: A002
        """As Logger does."""
        super().emit(level, format, **{name: _safe(value) for name, value in fields.items()})


def _safe(value: Any) -> Any:
    if isinstance(value, Failure):
        # Which is a BaseException as well. Where it happened is no secret, and all that tells what to mend.
        told = copy.copy(value)
        told.value = Exception(shown(str(value.value)))
        return told
    # The text of an exception is as much others' as any.
    return shown(str(value)) if isinstance(value, str | BaseException) else value
