"""How do requests keep coming while something happens to a server? The open-loop client, in a process of its own.

Rules:
- "70 % load" is that share of what this same client gets as a closed loop: what the client itself costs, on the cores
  that it shares with the server, is part of both.
- New connections among the arrivals: a server that is replaced must lose neither those nor the kept ones.
- A request fails if it is not answered with 200. One that found no connection free was not sent: it is told apart.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.bench import BenchError, Run, say
from benchmarks.samples import KINDS, OVERFLOW, Samples, read

# Most connections are spares for bad moments. Closing those that stay silent would race with their first request.
FLAGS = ("--header-timeout-ms", "600000", "--keep-alive-ms", "600000")
SHARE = 0.7
FRESH = 0.05
CONNECTIONS = 1024
_CLOSED = 64
_LONGEST_S = 600.0
_STOP_S = 30.0


@dataclass(frozen=True)
class Stream:
    """What is sent, and where to."""

    run: Run
    url: str
    body: bytes

    def closed(self, mark: str = "", connections: int = _CLOSED, seconds: float = _LONGEST_S) -> Traffic:
        """As fast as the answers come."""
        return Traffic(self, ["--phases", f"1:{seconds:g}", "--closed", "--mark", mark], connections)

    def open(self, rate: float, seconds: float = _LONGEST_S) -> Traffic:
        """At a rate, whatever happens; a share of it on new connections."""
        return Traffic(self, ["--phases", f"{rate:.0f}:{seconds:g}", "--fresh", str(FRESH)], CONNECTIONS)

    def capacity(self) -> float:
        """Answers per second to the same client as a closed loop."""
        self.closed(seconds=1.0).result()  # untimed: every code path once
        seconds = self.run.either(5.0, 2.0)
        samples, _ = self.closed(seconds=seconds).result()
        rate = float((~samples.failed).sum()) / seconds
        say(f"  capacity for this client: {rate:.0f}/s")
        return rate


class Traffic:
    """A client under way; `result` waits for its end, `stop` brings it about."""

    def __init__(self, stream: Stream, arguments: list[str], connections: int) -> None:
        body = stream.run.folder / "bodies" / "traffic.json"
        body.parent.mkdir(parents=True, exist_ok=True)
        body.write_bytes(stream.body)
        self._out = stream.run.folder / "samples.npz"
        command = [sys.executable, "-m", "benchmarks.open_loop", stream.url, str(body), *arguments]
        command += ["--connections", str(connections), "--out", str(self._out)]
        self._process = subprocess.Popen(
            stream.run.as_client(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def wait_begun(self) -> None:
        """Return when its connections are open and the first request is due.

        Raises:
            BenchError: the client ended instead.
        """
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise BenchError(f"the client failed:\n{self._process.communicate()[1]}")

    def stop(self) -> tuple[Samples, dict[str, Any]]:
        """Send no more; what has been seen, and what the client says of itself."""
        self._process.send_signal(signal.SIGTERM)
        return self.result(_STOP_S)

    def result(self, timeout_s: float = _LONGEST_S) -> tuple[Samples, dict[str, Any]]:
        """What has been seen once the client has ended of itself.

        Raises:
            BenchError: the client failed.
        """
        out, err = self._process.communicate(timeout=timeout_s)
        if self._process.returncode:
            raise BenchError(f"the client failed:\n{err}")
        return read(self._out), json.loads(out.splitlines()[-1])


def failures(samples: Samples) -> tuple[int, int]:
    """How many of those sent failed; how many were not sent."""
    unsent = int((samples.status == OVERFLOW).sum())
    return int(samples.failed.sum()) - unsent, unsent


def kinds(found: dict[str, int]) -> str:
    """The failures in words; without those that were not sent."""
    named = [f"{count} {kind}" for kind, count in found.items() if kind != KINDS[OVERFLOW]]
    return ", ".join(named) or "none"


def p99_ms(samples: Samples) -> float:
    """Of the answers 200; not a number when there is none."""
    good = samples.latencies_ms(200)
    return float(np.percentile(good, 99)) if good.size else float("nan")
