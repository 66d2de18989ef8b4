"""One server process, as its supervisor sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from paceline.supervisor import VARIABLE
from paceline.supervisor.lines import Document, Lines
from paceline.supervisor.merging import Families

_LAST_MOMENT_S: Final = 0.5
# A terminal sends these to all processes of a group; what follows from them is for the supervisor to say.
_NOT_FOR_REPLICAS: Final = (signal.SIGINT, signal.SIGHUP)
# Beyond its own deadlines: what a process needs to notice that it is over.
_SPARE_S: Final = 5.0


class Replica:
    """A process for one slot.

    Attributes:
        is_ready: it has said so.
        is_leaving: it was told to go.
        counted: what it is known to have counted.
        problem: what it said about why it cannot serve.
        until: when it is killed, unless it has become ready or has gone; in monotonic seconds.
    """

    def __init__(
        self, slot: int, command: Sequence[str], sockets: Sequence[Sequence[socket.socket]], first: bool
    ) -> None:
        self.slot = slot
        self.is_ready = False
        self.is_leaving = False
        self.counted: Families = []
        self.problem: Document = {}
        self.started = time.monotonic()
        self.until = float("inf")
        self._lame_duck_s = self._grace_s = 0.0
        ours, theirs = socket.socketpair()
        told = {
            "control": theirs.fileno(),
            "slot": slot,
            "sockets": [[sock.fileno() for sock in each] for each in sockets],
            "first": first,
        }
        try:
            self.process = _started(command, told)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.lines = Lines(ours)

    @property
    def lived_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.started

    def expect_to_drain(self, lame_duck_s: float, grace_s: float) -> None:
        """How long it may take to leave. It says so itself: its settings may be newer than the supervisor's."""
        self._lame_duck_s, self._grace_s = lame_duck_s, grace_s

    def tell(self, what: str, **more: object) -> None:
        """Tell it to do something; one that does not listen any more is ended."""
        if not self.lines.send({"do": what, **more}):
            self.process.kill()

    @property
    def why(self) -> str:
        """What ended it: in its own words, if it had some."""
        code = self.process.returncode
        try:
            how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        except ValueError:  # a signal without a name
            how = f"signal {-code}"
        return self.problem.get("text") or how

    def end(self) -> None:
        """It does not hear any more: nearly always because it is ending, and if not, it is of no use."""
        try:
            self.process.wait(_LAST_MOMENT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def leave(self, how: str) -> None:
        """Tell it to go: `retire` when a successor serves, `stop` when all is over."""
        self.is_leaving = True
        lame_duck_s = self._lame_duck_s if how == "stop" else 0.0
        self.until = time.monotonic() + lame_duck_s + self._grace_s + _SPARE_S
        self.tell(how)
        if not self.is_ready:
            self.process.terminate()  # it may not be listening yet, and has nothing to finish

    def give_up(self) -> None:
        """It was to be ready or gone by now: kill it."""
        if not self.is_leaving:
            self.problem = self.problem or {"text": f"it was not ready after {self.lived_s:.0f} s"}
        self.until = float("inf")
        self.process.kill()


def _started(command: Sequence[str], told: Document) -> subprocess.Popen[bytes]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_REPLICAS)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, VARIABLE: json.dumps(told)},
            pass_fds=[told["control"], *(number for each in told["sockets"] for number in each)],
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
