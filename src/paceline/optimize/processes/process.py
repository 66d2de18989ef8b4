"""How does the study talk to a process of its own, and how does that process end?

    with Process("paceline.optimize.processes.child", [folder, key], log=log, threads=1) as process:
        process.send({"wanted": 1})
        answer = process.receive(timeout_s=60.0)

Rules:
- A process is killed, with all that it has started, when it is closed or when this one dies, however that happens.
- The two speak JSON over a socket, a document a line. What libraries print goes to a log file: its last lines are told
  when the process dies.
- Every wait has a deadline; the end of the other side is an answer, too.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from paceline.workers import launch

_MOST_LINE_BYTES: Final = 64 << 20
_LAST_BYTES: Final = 16 << 10
_LAST_LINES: Final = 6
_KILLED_S: Final = 5.0
# What TensorFlow, abseil, oneDNN and Python's warnings say of themselves, whatever the model does.
_NOISE: Final = re.compile(
    r"^\s*$|^WARNING: All log messages before|^[IW]\d{4} |^\d{4}-\d\d-\d\d [\d:.]+: [IW] |oneDNN custom operations"
    r"|To enable the following instructions|Warning: |^  warnings\.warn|^WARNING:absl|\[W:onnxruntime"
)


class Gone(Exception):
    """The process has ended; the text says how."""


class Process:
    """A child that runs a module of this package.

    Args:
        module: run as `python -m module`; it calls `Line.inherited` first.
        arguments: of its command line, from the second on.
        log: where its stdout and stderr go.
        threads: that libraries are told of by the environment, where the user has not told them himself.
    """

    def __init__(self, module: str, arguments: Sequence[str], *, log: Path, threads: int) -> None:
        self._log = log
        self._killed = False
        ours, theirs = socket.socketpair()
        self._line = Line(ours)
        try:
            # -P: what happens to lie in the working directory is no library.
            command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid()), str(log), *arguments]
            self._process = launch.start(command, [theirs.fileno()], threads, {"PYTHONUNBUFFERED": "1"})
        except OSError as error:
            self._line.close()
            raise Gone(f"it cannot be started: {error.strerror or error}") from None
        finally:
            theirs.close()

    def send(self, document: Any) -> None:
        """Say something.

        Raises:
            Gone: nobody is there to hear it.
        """
        try:
            self._line.send(document)
        except OSError:
            raise Gone(self.how_it_ended()) from None

    def receive(self, timeout_s: float) -> Any:
        """The next document.

        Raises:
            Gone: it has ended.
            TimeoutError: it says nothing for so long.
        """
        document = self._line.receive(timeout_s)
        if document is None:
            raise Gone(self.how_it_ended())
        return document

    def how_it_ended(self) -> str:
        """In words; waits a moment for its end."""
        if not launch.wait(self._process, _KILLED_S):
            return "it closed its line"
        how = launch.how_it_ended(self._process)
        if self._process.returncode == -signal.SIGKILL and not self._killed:
            how += ", as the system does when memory runs out"
        return how

    def last_words(self) -> str:
        """The end of its log, without what frameworks always say; "" when there is nothing else."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - _LAST_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n".join([line for line in lines if not _NOISE.search(line)][-_LAST_LINES:])

    def close(self) -> None:
        """Kill it, and wait until it is gone."""
        self._killed = True
        self._line.close()
        launch.kill(self._process)
        launch.wait(self._process, _KILLED_S)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class Line:
    """One end of the socket: a JSON document a line, both ways."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._held = b""

    @classmethod
    def inherited(cls) -> Line:
        """The child's end; from now on it ends with its parent, and what it prints goes to the log."""
        descriptor, parent, log = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
        del sys.argv[1:4]
        # 1 is PR_SET_PDEATHSIG. A parent that died before that is not told of any more.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        end = socket.socket(fileno=descriptor)
        end.set_inheritable(False)
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(written, 1)
        os.dup2(written, 2)
        os.close(written)
        return cls(end)

    def send(self, document: Any) -> None:
        """Say something.

        Raises:
            OSError: the other side has gone.
        """
        self._end.sendall(msgspec.json.encode(document) + b"\n")

    def receive(self, timeout_s: float | None = None) -> Any:
        """The next document; None: the other side has gone.

        Raises:
            TimeoutError: nothing came.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._held:
            self._wait(until)
            try:
                more = self._end.recv(1 << 16)
            except ConnectionError:
                return None
            self._held += more
            if not more or len(self._held) > _MOST_LINE_BYTES:
                return None
        line, _, self._held = self._held.partition(b"\n")
        return msgspec.json.decode(line)

    def close(self) -> None:
        """Let go of it."""
        with suppress(OSError):
            self._end.close()

    def _wait(self, until: float | None) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        left_ms = None if until is None else max(0.0, until - time.monotonic()) * 1000
        if not poll.poll(left_ms):
            raise TimeoutError
