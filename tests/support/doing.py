"""A service that does what its items say, and the processes that a server has started for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.testing import RunningServer, run_server
from support.wire import ask, metric, post, until

DOING = """
import ctypes, os, random, signal, subprocess, sys, threading, time

leaked = []

def loop():
    while True:
        pass

def channel():
    paths = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return next(int(path[14:]) for path in paths if os.path.lexists(path) and "socket:" in os.readlink(path))

def break_the_protocol():
    os.write(channel(), b"hello, this is no frame at all, but long enough")

def close_the_channel():
    os.close(channel())
    time.sleep(60)

def change_everything():
    print("noise", flush=True)
    os.write(1, b"noise\\n")
    os.closerange(3, 256)
    os.chdir("/")
    os.environ.clear()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    random.seed(1)
    sys.stdout = sys.stderr = None

def recurse():
    return recurse()

def start_a_child():
    return subprocess.Popen(["sleep", "1000"]).pid

def self_portrait():
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "threads": threading.active_count(),
        "server": "paceline.server" in sys.modules,
        "omp": os.environ.get("OMP_NUM_THREADS"),
    }

DEEDS = {
    "pid": os.getpid,
    "sleep": lambda s: time.sleep(s) or os.getpid(),
    "raise": lambda: 1 / 0,
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(3),
    "recurse": recurse,
    "too much memory": lambda: len(bytearray(1 << 50)),
    "die": lambda *_: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "loop": loop,
    "hold the gil": lambda: ctypes.PyDLL(None).sleep(60),
    "leak": lambda mb: leaked.append(bytearray(b"x" * (mb << 20))),
    "change everything": change_everything,
    "break the protocol": break_the_protocol,
    "close the channel": close_the_channel,
    "start a child": start_a_child,
    "self-portrait": self_portrait,
}

def act(item):
    if item.get("mark"):
        with open(item["mark"], "w") as mark:
            mark.write(str(os.getpid()))
    return DEEDS[item["do"]](*item.get("with", []))

def predict(batch):
    return [act(item) for item in batch]
"""


@dataclass(frozen=True)
class Answer:
    """What came of a deed; `json` is what it returned, or the error."""

    status: int
    headers: dict[str, str]
    json: Any


@contextmanager
def doing(folder: Path, *flags: str, code: str = "", **options: Any) -> Iterator[RunningServer]:
    """A server of the service, two workers unless the flags say otherwise.

    Args:
        code: put behind it.
    """
    path = folder / "doing.py"
    path.write_text(DOING + code)
    with run_server(path, ["--instances", "2", "--warmup-s", "0", *flags], **options) as server:
        yield server


def do(server: RunningServer, deed: str, *arguments: Any, mark: Path | None = None, timeout_ms: int = 20_000) -> Answer:
    """Ask for one deed."""
    answer = ask(server, request(deed, *arguments, mark=mark, timeout_ms=timeout_ms))
    return Answer(answer.status, answer.headers, json.loads(answer.body))


def request(deed: str, *arguments: Any, mark: Path | None = None, timeout_ms: int = 20_000) -> bytes:
    """The bytes of a request for one deed. The worker writes its pid to `mark` when it begins."""
    item: dict[str, Any] = {"do": deed, "with": arguments}
    if mark is not None:
        item["mark"] = str(mark)
    return post(json.dumps(item).encode(), f"X-Request-Timeout-Ms: {timeout_ms}")


def marked(mark: Path) -> int:
    """The pid of the worker that has begun what was asked with this mark."""
    until(lambda: mark.exists() and mark.read_text() != "")
    return int(mark.read_text())


def workers(server: RunningServer | int) -> list[int]:
    """The processes that a server, or its pid, has started and that have not ended."""
    parent = server if isinstance(server, int) else server.process.pid
    return [pid for pid in _processes() if _stat(pid)[1] == str(parent) and _stat(pid)[0] != "Z"]


def is_alive(pid: int) -> bool:
    """False once a process has ended, be it waited for or not."""
    return _stat(pid)[0] not in ("Z", "X", "")


def full_strength(server: RunningServer, count: int = 2) -> None:
    """Wait until all workers take batches."""
    until(lambda: metric(server, "paceline_workers") == count, timeout_s=30)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return ["", ""]
