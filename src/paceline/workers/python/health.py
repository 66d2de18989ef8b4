"""Is the user's code well? It is asked once it is initialised, and whenever the worker has been idle for a while.

Rules:
- A worker that is not well ends; the server starts another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from paceline.workers.python.tracebacks import FailureLog, one_line, user_frames

_IDLE_S: Final = 5.0


class Unwell(Exception):
    """`health()` says so."""


class Health:
    """Asks the user's code.

    Args:
        health: of the user's code: anything but False is well; None: there is nobody to ask.

    Attributes:
        every_s: how long a worker has to be idle to be asked; None: it never is.
    """

    def __init__(self, health: Callable[[], Any] | None, log: FailureLog) -> None:
        self._health = health
        self._log = log
        self.every_s = None if health is None else _IDLE_S

    def check(self) -> None:
        """Ask.

        Raises:
            Unwell: it is not.
        """
        if self._health is None:
            return
        try:
            if self._health() is not False:
                return
            said, detail = "health() returned False", ""
        except BaseException as error:
            said, detail = f"health() raised: {one_line(error)}", user_frames(error)
        self._log.failed(said, detail)
        raise Unwell(said)
