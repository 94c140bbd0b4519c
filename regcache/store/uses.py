"""That entries were served, remembered until the writer notes it: what was used longest ago is evicted first."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

__all__ = ["Uses"]

#: Entries whose use is noted together; those that are noted before their time, since they are many; and those whose use
#: is to be noted, at most.
_MOST_USES, _MANY_USES, _MOST_UNNOTED = 1000, 10_000, 20_000


class Uses:
    """
    Uses that are to be noted. What of them is not noted when the process ends is forgotten, which is a matter of order.

    :param write: has the writer note some: a key, when it was used last, and how often since the last note.
    :param failed: told why some could not be noted.
    """

    def __init__(
        self, write: Callable[[list[tuple[str, float, int]]], Deferred[None]], failed: Callable[[Any], None]
    ) -> None:
        self._write, self._failed = write, failed
        # When last, and how often.
        self._uses: dict[str, tuple[float, int]] = {}
        self._noting = False

    def __len__(self) -> int:
        return len(self._uses)

    def used(self, key: str, now: float) -> None:
        """An entry was served."""
        uses = self._uses
        use = uses.get(key)
        if use is not None:
            uses[key] = now, use[1] + 1
        elif len(uses) < _MOST_UNNOTED:
            # Else the disk is behind. What is used often is noted the next time.
            uses[key] = now, 1
            if len(uses) >= _MANY_USES:
                self.note()

    def note(self) -> None:
        """Have some noted, one batch after the other, so that no more wait for the writer than it can take."""
        if self._uses and not self._noting:
            self._noting = True
            self._note_some().addErrback(self._failed).addBoth(self._noted)

    def _noted(self, _none: None) -> None:
        self._noting = False
        if len(self._uses) >= _MOST_USES:
            self.note()

    def note_all(self) -> None:
        """Have all noted that there are, before whatever depends on what was used last."""
        while self._uses:
            self._note_some().addErrback(self._failed)

    def _note_some(self) -> Deferred[None]:
        some = list(itertools.islice(self._uses, _MOST_USES))
        return self._write([(key, *self._uses.pop(key)) for key in some])
