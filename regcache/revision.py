"""Whether anything has become another since somebody looked: a number to compare, in place of looking again."""

from __future__ import annotations

__all__ = ["Revision"]


class Revision:
    """
    The state of what is stored, of which nothing is known but whether it is still the same.

    :ivar number: another one as soon as anything may be another.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def another(self) -> None:
        """Something has become another."""
        self.number += 1
