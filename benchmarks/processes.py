"""How is a server started, found ready, looked at and stopped?"""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import BenchError, Run

_START_S = 60.0
_STOP_S = 15.0
_POLL_S = 0.005
_MIB = 1 << 20


@dataclass(frozen=True)
class Server:
    """A running server, with the processes it has started itself.

    Attributes:
        ready_s: from exec to the first good answer on the readiness path.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    ready_s: float

    def url(self, path: str) -> str:
        """Address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        """Ask once; the answer's body and headers.

        Raises:
            BenchError: the status is not 200.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, body, dict(headers))
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise BenchError(f"{path} answered {response.status}: {answer[:300].decode(errors='replace')}")
        return answer, {name.lower(): value for name, value in response.getheaders()}

    @property
    def rss_mib(self) -> float:
        """Resident memory of the whole tree of processes, shared pages counted in each."""
        return sum(_status_kib(pid, "VmRSS") for pid in self._tree()) * 1024 / _MIB

    @property
    def peak_rss_mib(self) -> float:
        """Highest resident memory so far."""
        return sum(_status_kib(pid, "VmHWM") for pid in self._tree()) * 1024 / _MIB

    @property
    def cpu_s(self) -> float:
        """Processor time of the whole tree so far, in nanosecond steps where the kernel keeps them."""
        return sum(_cpu_s(pid) for pid in self._tree())

    @property
    def panel(self) -> list[str]:
        """What it has said on stderr."""
        return self.log.read_text(errors="replace").splitlines()

    @property
    def replicas(self) -> list[int]:
        """The processes that it has started itself."""
        return self._tree()[1:]

    def _tree(self) -> list[int]:
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # ended meanwhile
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
        tree = [self.process.pid]
        for pid in tree:
            tree.extend(parents.get(pid, ()))
        return tree


@contextmanager
def paceline(
    run: Run, model: Path, flags: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """`paceline serve` in a process of its own."""
    port = free_port()
    command = [*paceline_command(), "serve", str(model), "--host", "127.0.0.1", "--port", str(port), *flags]
    with started(run, command, port, ready=answers("/readyz"), env=env) as server:
        yield server


def paceline_command() -> list[str]:
    """The console script of this environment, or the module where there is none."""
    script = Path(sys.executable).parent / "paceline"
    return [str(script)] if script.exists() else [sys.executable, "-m", "paceline"]


@contextmanager
def started(
    run: Run,
    command: Sequence[str],
    port: int,
    *,
    ready: Callable[[int], bool],
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server until the block ends.

    Args:
        ready: says, given the port, whether it serves.
    Raises:
        BenchError: it did not become ready; the message ends with what it wrote.
    """
    log = run.folder / "logs" / f"{port}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    full = run.as_server(command)
    with log.open("wb") as out:
        begun = time.monotonic()
        # A session of its own: workers that a peer has started end with it.
        process = subprocess.Popen(
            full,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        while not ready(port):
            if process.poll() is not None or time.monotonic() - begun > _START_S:
                raise BenchError(f"did not become ready: {full}\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(_POLL_S)
        yield Server(process, port, log, time.monotonic() - begun)
    finally:
        _stop(process)


def answers(path: str, body: bytes | None = None) -> Callable[[int], bool]:
    """A readiness test: does this path answer 200?"""

    def ready(port: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            headers = {"content-type": "application/json"} if body else {}
            connection.request("POST" if body else "GET", path, body, headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ready


def children_cpu_s() -> float:
    """Processor time of the processes that this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing was left of its session


def _status_kib(pid: int, name: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    except OSError:
        return 0  # ended meanwhile
    return 0


def _cpu_s(pid: int) -> float:
    total_s = 0.0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            total_s += int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            total_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total_s
