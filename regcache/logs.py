"""What is logged: Twisted's logger, for text that others have a hand in."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger, LogLevel

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
    # The text of an exception is as much others' as any.
    return shown(str(value)) if isinstance(value, str | BaseException) else value
