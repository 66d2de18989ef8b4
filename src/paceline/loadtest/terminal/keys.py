"""Which keys has somebody pressed, without Enter? The terminal is as it was afterwards, whatever happens.

Rules:
- Nothing is read unless stdin is a terminal and this process is in its foreground: a job in the background that
  touches the terminal would be stopped by the system.
- Ctrl-C and Ctrl-Z keep their meaning. Stopped by Ctrl-Z, the process leaves the terminal as it found it, and takes
  it again once it is in the foreground.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Final

_BLOCK: Final = 64


class Keys:
    """The keys of the terminal of stdin, while the context lasts.

    Args:
        left: called when the terminal goes back to the shell for a while.
        back: called when it is ours again.
    """

    def __init__(self, left: Callable[[], None] = lambda: None, back: Callable[[], None] = lambda: None) -> None:
        self._left = left
        self._back = back
        self._file: int | None = None
        self._before: list[Any] | None = None  # how the terminal was; None: it is not ours now
        self._handler: Any = None

    @property
    def are_read(self) -> bool:
        """Whether somebody could press any."""
        return self._file is not None

    def __enter__(self) -> Keys:
        if sys.stdin is not None and sys.stdin.isatty():
            self._file = sys.stdin.fileno()
            self._take()
            self._handler = signal.signal(signal.SIGTSTP, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None:
            signal.signal(signal.SIGTSTP, self._handler)
            self._give_back()
            self._file = None

    def pressed(self) -> str:
        """What has been pressed since the last call; "" if nothing was. Never waits."""
        if self._file is None or not self._in_foreground():
            return ""
        if self._before is None:
            self._take()
        keys = b""
        while select.select([self._file], [], [], 0)[0]:
            block = os.read(self._file, _BLOCK)
            if not block:
                self._file = None  # the terminal has gone
                break
            keys += block
        return keys.decode("ascii", "ignore")

    def _take(self) -> None:
        assert self._file is not None
        if self._in_foreground():
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file, termios.TCSANOW)

    def _give_back(self) -> None:
        if self._before is None or self._file is None:
            return
        # In the background the terminal is somebody else's, who has set it as they want it.
        if self._in_foreground():
            with suppress(termios.error):
                termios.tcsetattr(self._file, termios.TCSANOW, self._before)
        self._before = None

    def _in_foreground(self) -> bool:
        assert self._file is not None
        try:
            return os.tcgetpgrp(self._file) == os.getpgrp()
        except OSError:  # it is the terminal of nobody
            return False

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: stop as if there were no handler, but leave the terminal in order."""
        self._left()
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # here it stops, until somebody lets it go on
        signal.signal(signal.SIGTSTP, self._stop)
        self._take()
        self._back()
