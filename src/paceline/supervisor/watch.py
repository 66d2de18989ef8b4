"""Which of many files can be read now? And what could not be sent at once is sent when it can be."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from paceline.supervisor.lines import Lines


class HasFileno(Protocol):
    """A socket, or something that has one."""

    def fileno(self) -> int:
        """The file's number."""


class Watch:
    """Calls whoever is to be called when a file can be read."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, file: HasFileno, heard: Callable[[], None]) -> None:
        """Call `heard` each time that `file` can be read."""
        self._selector.register(file, selectors.EVENT_READ, heard)

    def remove(self, file: HasFileno) -> None:
        """Forget a file; one that is not there is no mistake."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(file)

    def wait(self, timeout_s: float | None) -> None:
        """Wait until something can be read, and make the calls for that."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, Lines):
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if key.fileobj.has_unsent else 0)
                if events != key.events:
                    self._selector.modify(key.fileobj, events, key.data)
        for key, events in self._selector.select(timeout_s):
            if events & selectors.EVENT_WRITE and isinstance(key.fileobj, Lines):
                key.fileobj.flush()
            # A call made before, for another file, may have removed this one.
            if events & selectors.EVENT_READ and key.fd in self._selector.get_map():
                key.data()
