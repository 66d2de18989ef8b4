"""A terminal in front of a real process: what it shows, and the keys that somebody presses."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyte


class Terminal:
    """A process with a terminal of its own, which it controls: Ctrl-C and Ctrl-Z in it are signals.

    Attributes:
        process: runs with stdin and stderr on the terminal; its stdout goes to a pipe.
        raw: all that was written to the terminal.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, size: tuple[int, int]) -> None:
        columns, lines = size
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(self._theirs)
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.process = subprocess.Popen(
            [*_CONTROLLING, *command],
            stdin=self._theirs,
            stderr=self._theirs,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONUTF8": "1", **env},
        )

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(line.rstrip() for line in self._screen.display).strip()

    @property
    def cursor_is_hidden(self) -> bool:
        return self._screen.cursor.hidden

    @property
    def attributes(self) -> list[object]:
        """How the terminal is set."""
        return termios.tcgetattr(self._theirs)

    def press(self, keys: str) -> None:
        """Type keys; "\\x03" is Ctrl-C, "\\x1a" Ctrl-Z."""
        os.write(self._ours, keys.encode())

    def until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Read what is written until the condition holds."""
        until = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until, self.text
            self.read(0.05)

    def shows(self, *texts: str) -> None:
        """Wait until all of these are on the screen at once."""
        self.until(lambda: all(text in self.text for text in texts))

    def read(self, timeout_s: float) -> None:
        """Take what was written, waiting so long for any."""
        if select.select([self._ours], [], [], timeout_s)[0]:
            with suppress(OSError):  # the last writer has gone
                block = os.read(self._ours, 65536)
                self.raw += block
                self._stream.feed(block)

    def ended(self, timeout_s: float = 60.0) -> str:
        """Wait for the end of the process; what it wrote to stdout."""
        self.until(lambda: self.process.poll() is not None, timeout_s)
        while select.select([self._ours], [], [], 0)[0]:
            self.read(0)
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        os.close(self._ours)
        os.close(self._theirs)


# The first terminal that the leader of a session opens controls it.
_CONTROLLING = ("sh", "-c", 'exec 3<>"$(tty)"; exec 3>&-; exec "$@"', "sh")


@contextmanager
def terminal(command: Sequence[str], cwd: Path, size: tuple[int, int] = (120, 40), **env: str) -> Iterator[Terminal]:
    """Run a command in a terminal, until the block ends."""
    opened = Terminal(command, env, cwd, size)
    try:
        yield opened
    finally:
        opened.close()
