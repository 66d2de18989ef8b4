"""How is a worker started, and how does it end with the server?

Rules:
- A worker is a program of its own (`exec`), never a fork of the server: threads and locks do not survive one.
- It is killed by the kernel when the server dies, however that happens, and has a process group of its own, so that
  what it started goes with it and Ctrl-C in a terminal does not reach it.
- A group is killed before its leader is waited for: until then nobody else can have its number.
- When memory runs out, the kernel is to take a worker, not the server.
- Libraries that compute with threads are told how many before they are loaded; what the operator has set in the
  environment himself stands.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
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
_ENDING: Final = threading.Event()
_OOM_SCORE: Final = "500"
_RUNNING: Final[set[subprocess.Popen[bytes]]] = set()


def start(
    command: Sequence[str], descriptors: Sequence[int], threads: int, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a worker.

    Args:
        descriptors: that it inherits, under the same numbers.
        env: variables, over those of the server.

    Raises:
        OSError: the system does not start it.
    """
    variables = {**dict.fromkeys(THREAD_VARIABLES, str(threads)), **os.environ, **env}
    return _STARTER.submit(_start, command, descriptors, variables).result()


def contradictions(threads: int, env: Mapping[str, str]) -> list[str]:
    """The variables that let libraries compute with another number of threads, as `NAME=value`."""
    given = {**os.environ, **env}
    return [f"{name}={given[name]}" for name in THREAD_VARIABLES if given.get(name, str(threads)) != str(threads)]


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a worker and what it has started, at once."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            process.kill()


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """True when it is no more; then its number may be somebody else's, and what it had started has been killed."""
    if process.returncode is not None:
        return True
    with suppress(ChildProcessError):
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
    kill(process)
    process.poll()
    _RUNNING.discard(process)
    return True


def wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for its end; False when it lives on."""
    until = time.monotonic() + timeout_s
    while not has_ended(process):
        if time.monotonic() >= until:
            return False
        time.sleep(0.001)
    return True


def how_it_ended(process: subprocess.Popen[bytes]) -> str:
    """In words, such as `killed by SIGSEGV`."""
    code = process.returncode
    if code is None:
        return "it closed its channel"
    if code >= 0:
        return f"it exited with {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def end_all(grace_s: float) -> None:
    """End every worker of this process, and start none any more; those that were told to end get some time for it."""
    _ENDING.set()
    _STARTER.submit(lambda: None).result()  # what was to be started before has been
    running = list(_RUNNING)
    until = time.monotonic() + grace_s
    while running and (left_s := until - time.monotonic()) > 0:
        _wait_for_one(running, left_s)
        running = [each for each in running if not has_ended(each)]
    for each in running:
        kill(each)
    for each in running:
        wait(each, 0.2)


def reap_children_of(process: subprocess.Popen[bytes]) -> None:
    """What a worker had started, and was killed with it, is ours where we are the first process of a container."""
    with suppress(ChildProcessError):
        while os.waitpid(-process.pid, os.WNOHANG)[0]:
            """There may be more."""


def _start(command: Sequence[str], descriptors: Sequence[int], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    if _ENDING.is_set():
        raise OSError("the server ends")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,  # what user code prints belongs to the log; stdout is the command's own
        pass_fds=descriptors,
        env=dict(env),
        process_group=0,
    )
    _RUNNING.add(process)
    with suppress(OSError), open(f"/proc/{process.pid}/oom_score_adj", "w", encoding="ascii") as score:
        score.write(_OOM_SCORE)
    return process


def _wait_for_one(running: Iterable[subprocess.Popen[bytes]], timeout_s: float) -> None:
    handles = []
    poll = select.poll()
    try:
        for each in running:
            if each.returncode is None:
                handles.append(os.pidfd_open(each.pid))
                poll.register(handles[-1], select.POLLIN)
        poll.poll(timeout_s * 1000)
    finally:
        for handle in handles:
            os.close(handle)


__all__ = [
    "THREAD_VARIABLES",
    "contradictions",
    "end_all",
    "has_ended",
    "how_it_ended",
    "kill",
    "reap_children_of",
    "start",
    "wait",
]
