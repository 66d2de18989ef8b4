"""Who is told that a socket can be read or written? An epoll loop without tasks, callbacks to queue, or threads.

Rules:
- Level-triggered: what is left in a socket is told again, so one read per event is enough.
- A descriptor may be closed, and its number used anew, while events that are older wait their turn. So a handler must
  bear being called for nothing.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from typing import Final

from paceline.loadtest.client.timer import Timer

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT

Handler = Callable[[], None]


class Loop:
    """Descriptors, and who handles what happens to each."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timer = Timer()
        self.watch(self._timer.fd, _woken, READ)

    def watch(self, fd: int, handler: Handler, events: int) -> None:
        """Call `handler` when one of `events` is possible, or an error happened; in place of what was before."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Call nobody any more; before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def turn(self, load: Waking, latest: float) -> None:
        """Handle what has happened, or wait until something does.

        Args:
            load: whose time to wake is kept, to the microsecond; also while there is much to handle.
            latest: return by then, in monotonic seconds, give or take a millisecond.
        """
        clock, handlers = time.monotonic, self._handlers
        if load.wake_s != self._timer.when:
            self._timer.set(load.wake_s)
        for fd, _ in self._epoll.poll(max(0.0, latest - clock())):
            handler = handlers.get(fd)
            if handler is not None:
                handler()
            if load.wake_s <= clock():
                load.wake()

    def close(self) -> None:
        """Give back what it has; sockets are their owners'."""
        self._timer.close()
        self._epoll.close()


class Waking:
    """Who wants to be woken.

    Attributes:
        wake_s: when, in monotonic seconds; infinite: not at all.
    """

    wake_s = math.inf

    def wake(self) -> None:
        """The time has come; `wake_s` is later now, or what is left was put off to let others have a turn."""


def _woken() -> None:
    """The timer ends the wait; `turn` looks at the clock itself."""
