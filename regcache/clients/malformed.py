"""What an editor says of a file that it leaves alone."""

from __future__ import annotations

__all__ = ["Malformed"]


class Malformed(ValueError):
    """The file is not what its client reads, or is written in a way that could not be changed safely; says which."""
