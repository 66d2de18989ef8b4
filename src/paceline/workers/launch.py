"""How is a worker started, and how does it end with the server?

Rules:
- A worker is a program of its own (`exec`), never a fork of the server: threads and locks do not survive one.
- It is killed by the kernel when the server dies, however that happens, and has a process group of its own, so that
  what it started goes with it and Ctrl-C in a terminal does not reach it.
- Libraries that compute with threads are told how many before they are loaded.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "MC_CORES",
)
"""What libraries of Python and R read when they are loaded."""

# The kernel sends the signal of `PR_SET_PDEATHSIG` when the *thread* that started the process ends. This one does not.
_STARTER: Final = ThreadPoolExecutor(1, "paceline-starter")


def start(
    command: Sequence[str], descriptors: Sequence[int], threads: int, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a worker.

    Args:
        descriptors: that it inherits, under the same numbers.
        env: variables, over those of the server and over what `threads` sets.
    """
    variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **env}
    return _STARTER.submit(_start, command, descriptors, variables).result()


def _start(command: Sequence[str], descriptors: Sequence[int], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,  # what user code prints belongs to the log; stdout is the command's own
        pass_fds=descriptors,
        env=dict(env),
        process_group=0,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a worker and what it has started, at once."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        process.kill()


def how_it_ended(process: subprocess.Popen[bytes]) -> str:
    """In words, such as `killed by SIGSEGV`; waits for the end."""
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        return "it closed its channel"
    if code >= 0:
        return f"it exited with {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


__all__ = ["THREAD_VARIABLES", "how_it_ended", "kill", "start"]
