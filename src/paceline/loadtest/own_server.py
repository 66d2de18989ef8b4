"""How is a server started for a while, and stopped?

    with started("service.py") as url: ...     `paceline serve`, for a load test
    with running(command) as server: ...       any command that serves, also for `paceline.testing`

Rules:
- It listens on a free port, which it says on stderr; that goes to a file, and into the error when it fails.
- What is started for a load test has a process group of its own, so that Ctrl-C in a terminal does not reach it before
  the test has ended; and it ends with whoever started it, however that ends.
- It is told to stop, waited for, and killed if it does not.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paceline.core.errors import (
    AddressUnavailable,
    ConfigError,
    ModelLoadError,
    PacelineError,
    Unreachable,
    UnsafeModel,
)
from paceline.loadtest.requests.address import Address
from paceline.loadtest.requests.asking import Asker, NotHttp, Reply
from paceline.workers.r.packages import launched

READY_S: Final = 600.0
"""A service may install what it needs, and load for minutes."""

_STOP_S: Final = 20.0
_POLL_S: Final = 0.01
_ANSWER_S: Final = 5.0
_SHOWN: Final = 2000
_LIVE: Final = re.compile(r"live on http://(\S+):(\d+)")
_SAID: Final = re.compile(r"^error: (.+?)(?:\nhint: (.*))?\s*\Z", re.MULTILINE | re.DOTALL)
"""The last that it says: what is wrong, where in the code, and what to do."""
_BY_CODE: Final[Mapping[int | None, type[PacelineError]]] = {
    2: ConfigError,
    3: ConfigError,
    4: ModelLoadError,
    5: AddressUnavailable,
    6: UnsafeModel,
}
"""The exit codes of `paceline serve`."""


class NotUp(TimeoutError):
    """A server did not come up, or is not ready.

    Attributes:
        code: that it ended with; None: it still ran.
        said: what it has written to stderr.
    """

    def __init__(self, code: int | None, said: str) -> None:
        state = "still running" if code is None else f"exit code {code}"
        super().__init__(f"the server did not come up ({state}):\n{said}")
        self.code = code
        self.said = said


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

    def readiness(self) -> Reply | None:
        """What /readyz says, with the state of each model; None: nothing, as it ends, or is too busy with loading."""
        try:
            return Asker(Address(self.host.strip("[]"), self.port), {}, _ANSWER_S).get("/readyz?verbose")
        except (Unreachable, NotHttp):
            return None

    def _is_ready(self) -> bool:
        reply = self.readiness()
        return reply is not None and reply.ok

    def terminate(self, timeout_s: float = _STOP_S) -> int:
        """Send SIGTERM and wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def running(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    own_group: bool = False,
    live_s: float = 30.0,
) -> Iterator[RunningServer]:
    """Run a command that serves, from when its port is open until the block ends; then it is killed.

    Args:
        env: variables added to this process's.
        own_group: signals to our process group do not reach it.
        live_s: within which its port has to be open.

    Raises:
        TimeoutError: it did not come up; the message holds its stderr.
    """
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
                process_group=0 if own_group else None,
            )
        try:
            _poll(lambda: _live(log) is not None, process, log, live_s)
            host, port = _live(log) or ("", 0)
            yield RunningServer(process, host, port, log)
        finally:
            process.kill()
            process.wait()


@contextmanager
def started(
    service: Path | str,
    flags: Sequence[str] = (),
    *,
    say: Callable[[str], None] = lambda _: None,
    ready_s: float = READY_S,
) -> Iterator[str]:
    """Serve a model or a service until the block ends; the URL, once it is ready.

    Args:
        flags: further ones of `paceline serve`.
        say: told what takes time.

    Raises:
        PacelineError: it cannot be served; of the kind, and with the message, that `paceline serve` ends with.
    """
    shown = " ".join(["paceline serve", str(service), *flags])
    serve = [sys.executable, "-m", "paceline", "serve", str(service), "--host", "127.0.0.1", "--port", "0", *flags]
    say(f"starting {shown}")
    began = time.monotonic()
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running([*launched(Path.cwd()), *serve], own_group=True, live_s=ready_s))
            _poll(lambda: _are_ready(shown, server), server.process, server.log, ready_s)
        except NotUp as error:
            raise _failure(shown, error) from error
        say(f"ready after {time.monotonic() - began:.1f} s")
        stack.callback(_stop, shown, server, say)
        yield server.url


def _live(log: Path) -> tuple[str, int] | None:
    """Where it says that it listens."""
    match = _LIVE.search(log.read_text(errors="replace"))
    return (match[1], int(match[2])) if match else None


def _poll(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            raise NotUp(process.returncode, log.read_text(errors="replace"))
        time.sleep(_POLL_S)


def _are_ready(shown: str, server: RunningServer) -> bool:
    """True when all models are.

    Raises:
        ModelLoadError: one never will be.
    """
    reply = server.readiness()
    said = reply.document if reply is not None else {}
    for each in said.get("models", []):
        if each.get("state") == "END":
            raise ModelLoadError(f"{shown}: '{each.get('model')}' is not ready: {each.get('reason')}")
    return reply is not None and reply.ok


def _failure(shown: str, error: NotUp) -> PacelineError:
    """What it said itself, if it ended; the end of its log, if that is no error of its own."""
    said = _SAID.search(error.said)
    kind = _BY_CODE.get(error.code, ModelLoadError)
    if said is not None and error.code is not None:
        return kind(said[1], hint=said[2])
    how = "is not ready in time" if error.code is None else f"ended with exit code {error.code}"
    return kind(f"{shown}: {how}:\n{error.said[-_SHOWN:].strip()}")


def _stop(shown: str, server: RunningServer, say: Callable[[str], None]) -> None:
    """Tell it to stop, and say if that is not what it ended by."""
    with suppress(subprocess.TimeoutExpired):  # then it is killed
        code = server.terminate()
        if code:
            say(f"{shown} ended with exit code {code}:\n{server.output[-_SHOWN:].strip()}")
