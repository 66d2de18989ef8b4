"""h2load as a closed-loop gRPC client: connections with so many calls under way each; the cheapest there is.

Rules:
- It knows HTTP/2, not gRPC: a failed call is a 200 to it, for the status is in the trailers. So the bytes of the
  answers are compared with those of one answer known to be right; an error has none.
- Its own warm-up phase is not used: it leaves the calls out, but not their bytes. Load once untimed instead.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from benchmarks.bench import BenchError, Run
from benchmarks.processes import children_cpu_s

_TOLERANCE = 0.03
_RATE = re.compile(r"finished in .*?, ([\d.]+) req/s")
_REQUESTS = re.compile(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded")
_DATA = re.compile(r"\((\d+)\) data")
_LATENCY = re.compile(r"time for request:\s+\S+\s+(\S+)\s+(\S+)")
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Calls:
    """What one run of h2load saw.

    Attributes:
        rate: answered calls per second.
        calls: how many.
        answer_bytes: mean size of an answer's data.
        client_cpu: cores that h2load took.
    """

    rate: float
    calls: int
    answer_bytes: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    client_cpu: float


def call(run: Run, url: str, message: bytes, answer: bytes, connections: int, streams: int, seconds: int) -> Calls:
    """Load a server with one unary call, repeated.

    Args:
        message: the serialized request.
        answer: the serialized answer that every call is to have, to its size.
    Raises:
        BenchError: h2load is missing, a call failed, or the answers have another size.
    """
    if shutil.which("h2load") is None:
        raise BenchError("h2load is not installed (Debian and Ubuntu: apt-get install nghttp2-client)")
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}"]
    log = run.folder / "bodies" / "h2load.tsv"
    log.unlink(missing_ok=True)  # h2load would add to it
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", _body(run, message)]
    command += [f"--log-file={log}", url]
    begun, cpu_s = time.monotonic(), children_cpu_s()
    done = subprocess.run(run.as_client(command), capture_output=True, text=True, check=False)
    client_cpu = (children_cpu_s() - cpu_s) / (time.monotonic() - begun)
    found = [pattern.search(done.stdout) for pattern in (_RATE, _REQUESTS, _DATA, _LATENCY)]
    if done.returncode or not all(found):
        raise BenchError(f"h2load failed: {command}\n{done.stdout}{done.stderr}")
    (rate,), (calls, good), (data,), (longest, mean) = (each.groups() for each in found if each)
    if calls != good or not int(good):
        raise BenchError(f"{good} of {calls} calls succeeded: {command}")
    size, expected = int(data) / int(good), len(answer) + 5
    if abs(size / expected - 1) > _TOLERANCE:
        raise BenchError(f"answers have {size:.1f} bytes, a right one has {expected}: calls fail in {command}")
    p50_ms, p99_ms = np.percentile(np.loadtxt(log, usecols=2), [50, 99]) / 1e3
    return Calls(float(rate), int(good), size, _ms(mean), float(p50_ms), float(p99_ms), _ms(longest), client_cpu)


def as_data(samples: Mapping[str, list[Calls]]) -> dict[str, Any]:
    """For the report."""
    return {name: [asdict(sample) for sample in each] for name, each in samples.items()}


def _body(run: Run, message: bytes) -> str:
    """The file with the message in its frame: not compressed, length, bytes."""
    path = run.folder / "bodies" / f"{sha256(message).hexdigest()[:12]}.grpc"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    return str(path)


def _ms(text: str) -> float:
    value, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return float(value) * _UNITS_MS[unit]
