"""What one check has found."""

from __future__ import annotations

from enum import Enum
from typing import Any

from attrs import frozen

__all__ = ["Finding", "Level", "failure", "ok", "warning"]


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@frozen
class Finding:
    """
    One line for a person.

    :ivar check: what was looked at, such as ``tls``.
    :ivar subject: of what; empty for the machine or the service itself.
    :ivar told: what was found.
    :ivar mend: what to do about it; empty where nothing is to be done.
    """

    level: Level
    check: str
    subject: str
    told: str
    mend: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "level": self.level.value,
            "check": self.check,
            "subject": self.subject,
            "told": self.told,
            "mend": self.mend,
        }


def ok(check: str, subject: str, told: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, subject, told)


def warning(check: str, subject: str, told: str, mend: str) -> Finding:
    """It works, but not well, or not for long."""
    return Finding(Level.WARNING, check, subject, told, mend)


def failure(check: str, subject: str, told: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(Level.FAILURE, check, subject, told, mend)
