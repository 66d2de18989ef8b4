"""A real server process for a test, on a free port, stopped at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LIVE = re.compile(r"live on http://(\S+):(\d+)")


@dataclass
class RunningServer:
    """A server process.

    Attributes:
        host, port: where it listens.
        log: the file that its stderr goes to.
    """

    process: subprocess.Popen[bytes]
    host: str
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def output(self) -> str:
        """What it has written to stderr so far."""
        return self.log.read_text(errors="replace")

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until /readyz says yes.

        Raises:
            TimeoutError: it did not become ready, or the process ended.
        """
        _poll(self._is_ready, self.process, self.log, timeout_s)

    def terminate(self, timeout_s: float = 20.0) -> int:
        """Send SIGTERM and wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False


@contextmanager
def run_server(
    model: Path | str | None,
    flags: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    ready: bool = True,
) -> Iterator[RunningServer]:
    """Serve `model` in a process of its own on a free port of 127.0.0.1, until the block ends.

    Args:
        model: None leaves model and port to the flags, for the command line of another server.
        flags: further flags of `paceline serve`.
        env: variables added to this process's.
        ready: wait for the warm-up; otherwise only for the open port.

    Raises:
        TimeoutError: the server did not come up; the message holds its stderr.
    """
    command = [
        sys.executable,
        "-m",
        "paceline",
        "serve",
        *(() if model is None else (str(model), "--port", "0")),
        "--host",
        "127.0.0.1",
        *flags,
    ]
    with tempfile.TemporaryDirectory(prefix="paceline-") as folder:
        log = Path(folder) / "stderr"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stderr=stderr,
                stdout=stderr,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                cwd=cwd,
            )
        try:
            _poll(lambda: _LIVE.search(log.read_text(errors="replace")) is not None, process, log, 30.0)
            match = _LIVE.search(log.read_text(errors="replace"))
            assert match is not None
            server = RunningServer(process, match.group(1), int(match.group(2)), log)
            if ready:
                server.wait_ready()
            yield server
        finally:
            process.kill()
            process.wait()


def _poll(condition: object, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    assert callable(condition)
    until = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            state = f"exit code {process.returncode}" if process.returncode is not None else "still running"
            raise TimeoutError(f"the server did not come up ({state}):\n{log.read_text(errors='replace')}")
        time.sleep(0.01)
