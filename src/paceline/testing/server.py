"""A real server process for a test, on a free port, stopped at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from paceline.loadtest.own_server import RunningServer, running

__all__ = ["RunningServer", "run_server"]


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
    chosen = () if model is None else (str(model), "--port", "0")
    command = [sys.executable, "-m", "paceline", "serve", *chosen, "--host", "127.0.0.1", *flags]
    with running(command, env=env, cwd=cwd) as server:
        if ready:
            server.wait_ready()
        yield server
