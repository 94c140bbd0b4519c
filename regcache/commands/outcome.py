"""How a command ends when it does not do what it was asked for."""

from __future__ import annotations

__all__ = ["NOT_RUNNING", "WRONG", "Failed"]

#: It was used in a wrong way, found nothing, or found damage that it does not repair.
WRONG = 1
#: It wants a service, and none runs or can be reached.
NOT_RUNNING = 3


class Failed(Exception):
    """
    It ends with one line for a person.

    :ivar code: the exit code: 1 for wrong use or nothing found, 3 where no service runs.
    """

    def __init__(self, told: str, code: int = WRONG) -> None:
        super().__init__(told)
        self.code = code
