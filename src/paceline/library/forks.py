"""What must be made anew in a process that was forked?

Rules:
- Locks may be held and threads are gone in the child: whatever has either says so here, and is told.
- Nobody is kept alive by it.
"""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """Something with locks or threads."""

    def forked(self) -> None:
        """Make them anew: this process is a child, and this its only thread."""


_ALL: Final[WeakSet[Forkable]] = WeakSet()


def tell(each: Forkable) -> None:
    """Tell it of every fork."""
    _ALL.add(each)


def _after_fork() -> None:
    for each in list(_ALL):
        each.forked()


os.register_at_fork(after_in_child=_after_fork)
