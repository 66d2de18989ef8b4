"""One server process, as its supervisor sees it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from paceline.supervisor import VARIABLE
from paceline.supervisor.lines import Document, Lines

_LAST_MOMENT_S: Final = 0.5


class Replica:
    """A process for one slot.

    Attributes:
        is_ready: it has said so.
        is_leaving: it was told to go.
        problem: what it said about why it cannot serve.
    """

    def __init__(
        self, slot: int, command: Sequence[str], sockets: Sequence[Sequence[socket.socket]], first: bool
    ) -> None:
        self.slot = slot
        self.is_ready = False
        self.is_leaving = False
        self.problem: Document = {}
        self.started = time.monotonic()
        ours, theirs = socket.socketpair()
        told = {
            "control": theirs.fileno(),
            "slot": slot,
            "sockets": [[sock.fileno() for sock in each] for each in sockets],
            "first": first,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paceline", *command],
            stdin=subprocess.DEVNULL,
            env={**os.environ, VARIABLE: json.dumps(told)},
            pass_fds=[theirs.fileno(), *(sock.fileno() for each in sockets for sock in each)],
        )
        theirs.close()
        self.lines = Lines(ours)

    @property
    def lived_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.started

    def tell(self, what: str, **more: object) -> None:
        """Tell it to do something; one that does not listen any more is ended."""
        if not self.lines.send({"do": what, **more}):
            self.process.kill()

    def end(self) -> None:
        """It does not hear any more: nearly always because it is ending, and if not, it is of no use."""
        try:
            self.process.wait(_LAST_MOMENT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def leave(self, how: str) -> None:
        """Tell it to go: `retire` when a successor serves, `stop` when all is over."""
        self.is_leaving = True
        self.tell(how)
