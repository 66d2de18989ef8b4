"""What of an exception is its author shown?

Rules:
- The frames of the user's own code and of the libraries that it called; never the frames of the host above them.
- User code may raise anything, `SystemExit` and exceptions that cannot be printed included.
- A failure that repeats is logged once a second, with the number of those that were not.
"""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

import paceline
from paceline.workers.python import descriptors

_OURS: Final = (f"{Path(paceline.__file__).parent}{os.sep}", "<frozen importlib", "<frozen runpy")
_MOST_LINE: Final = 500
_MOST_DETAIL: Final = 16_000
_LOG_EVERY_S: Final = 1.0


def one_line(error: BaseException) -> str:
    """Such as `ValueError: too small`."""
    try:
        shown = traceback.TracebackException(type(error), error, None)
        shown.__notes__ = None  # they come last, and are for the traceback
        # The last line of a SyntaxError says what is wrong; the lines before, where.
        return " ".join(list(shown.format_exception_only())[-1].split())[:_MOST_LINE]
    except Exception:  # what it says of itself is user code, too
        return type(error).__name__


def user_frames(error: BaseException) -> str:
    """The traceback, as Python prints it, without our frames."""
    try:
        shown = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        _cut(shown)
        return "".join(shown.format()).rstrip()[-_MOST_DETAIL:]
    except Exception:
        return f"{type(error).__name__}, which cannot be printed"


def _cut(shown: traceback.TracebackException) -> None:
    left = [frame for frame in shown.stack if not frame.filename.startswith(_OURS)]
    shown.stack = traceback.StackSummary.from_list(left)
    for other in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if other is not None:
            _cut(other)


class FailureLog:
    """Tells the operator of failures, on stderr.

    Args:
        model: what the service is called.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._next_at = 0.0
        self._silent = 0
        # User code may close or replace what it finds.
        self._descriptor = descriptors.copy(2)

    def failed(self, message: str, detail: str) -> None:
        """Tell of a failure, unless there was one a moment ago."""
        now = time.monotonic()
        if now < self._next_at:
            self._silent += 1
            return
        more = f" (and {self._silent} more failures before)" if self._silent else ""
        self._next_at, self._silent = now + _LOG_EVERY_S, 0
        self.say(f"{message}{more}\n{detail}".rstrip())

    def say(self, text: str) -> None:
        """Write a line, or some."""
        with suppress(OSError):
            os.write(self._descriptor, f"paceline: {self._model}: {text}\n".encode(errors="backslashreplace"))
