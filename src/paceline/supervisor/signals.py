"""Which signals have come? Told to a loop that waits on files, one after the other, and never in between."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable
from contextlib import suppress


class Signals:
    """Catches signals from now on; readable when one has come."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._heard: list[int] = []
        # The handler only takes notes. What wakes the loop is the byte that the interpreter writes.
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda heard, _: self._heard.append(heard))

    def fileno(self) -> int:
        """For selectors."""
        return self._woken.fileno()

    def take(self) -> list[int]:
        """Those that came since the last call, in their order."""
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        heard, self._heard = self._heard, []
        return heard
