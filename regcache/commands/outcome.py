"""How a command ends: the one place where exit codes are named."""

from __future__ import annotations

from enum import IntEnum

from regcache.options import WRONG_USE

__all__ = ["MEANINGS", "Code", "Failed"]


class Code(IntEnum):
    """The exit codes; :data:`MEANINGS` says what each means."""

    DONE = 0
    NO = 1
    USAGE = WRONG_USE
    NOT_RUNNING = 3
    WARNINGS = 4
    INTERRUPTED = 130


#: As the documentation has them.
MEANINGS = {
    Code.DONE: "It was done, and all is well.",
    Code.NO: "Nothing is like that, it cannot be done, damage is found that stays, or a check of `doctor` fails.",
    Code.USAGE: "Wrong use, or a configuration that is wrong.",
    Code.NOT_RUNNING: "A service is wanted, and none runs or can be reached.",
    Code.WARNINGS: "No check of `doctor` fails, but some warn.",
    Code.INTERRUPTED: "It was interrupted.",
}


class Failed(Exception):
    """
    It ends with one line for a person.

    :ivar code: the exit code.
    """

    def __init__(self, told: str, code: Code = Code.NO) -> None:
        super().__init__(told)
        self.code = code
