"""How does the client wake up in time? A timerfd is precise to microseconds, the timeout of epoll to a millisecond."""

from __future__ import annotations

import ctypes
import math
import os
import time
from typing import Final

_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE: Final = 1
# A time of zero would switch the timer off.
_LEAST_NS: Final = 1


class Timer:
    """One-shot, absolute, on the monotonic clock; setting it again also clears it.

    `os.timerfd_create` has come with Python 3.13 only.

    Attributes:
        fd: can be read once the time has come.
        when: it is set to, in monotonic seconds; infinite: it is off.

    Raises:
        OSError: the system has no timers left.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self.when = math.inf
        self._spec = (ctypes.c_long * 4)(0, 0, 0, 0)  # interval and value, each in seconds and nanoseconds
        self._set = libc.timerfd_settime

    def set(self, when: float) -> None:
        """Wake at this time; at once if it is past, never if it is infinite."""
        self.when = when
        seconds = int(when) if when < math.inf else 0
        self._spec[2] = seconds
        self._spec[3] = max(_LEAST_NS, int((when - seconds) * 1e9)) if when < math.inf else 0
        self._set(self.fd, _ABSOLUTE, self._spec, None)

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)
