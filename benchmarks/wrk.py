"""wrk as a closed-loop client: N connections, each with one request under way; counts and percentiles out."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from benchmarks.bench import BenchError, Run
from benchmarks.processes import children_cpu_s

_ONE = """\
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
"""
_IN_TURN = """\
local requests, last = {{}}, 0
function init()
  for body in io.lines("{body}") do
    requests[#requests + 1] = wrk.format(nil, nil, nil, body)
  end
end
function request()
  last = last % #requests + 1
  return requests[last]
end
"""
_SCRIPT = """\
wrk.method = "POST"
{headers}
{send}
function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('\\nRESULT {{"requests":%d,"duration_us":%d,"bad_status":%d,"broken":%d,',
    summary.requests, summary.duration, errors.status, broken))
  io.write(string.format('"p50_us":%g,"p90_us":%g,"p99_us":%g,"max_us":%g}}\\n',
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
"""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw.

    Attributes:
        rate: answers with a status below 400 per second.
        failed: share of requests that were not so answered.
        client_cpu: cores that wrk took.
    """

    rate: float
    failed: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    client_cpu: float


def load(
    run: Run,
    url: str,
    body: bytes | Sequence[bytes],
    connections: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Load a server; one thread of wrk, which is enough for more than a Python server answers.

    Args:
        body: JSON texts, to be sent in turn; or one that is always the same.
    Raises:
        BenchError: wrk is missing, or the connections broke.
    """
    if shutil.which("wrk") is None:
        raise BenchError("wrk is not installed (Debian and Ubuntu: apt-get install wrk)")
    bodies = [body] if isinstance(body, bytes) else body
    script = _script(run, bodies, headers or {"Content-Type": "application/json"})
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", script, url]
    begun, cpu_s = time.monotonic(), children_cpu_s()
    done = subprocess.run(run.as_client(command), capture_output=True, text=True, check=False)
    client_cpu = (children_cpu_s() - cpu_s) / (time.monotonic() - begun)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode or line is None:
        raise BenchError(f"wrk failed: {command}\n{done.stdout}{done.stderr}")
    found = json.loads(line.removeprefix("RESULT "))
    if found["broken"] > 0.001 * found["requests"]:
        raise BenchError(f"{found['broken']} broken connections or timeouts in {command}")
    requests, seconds = found["requests"], found["duration_us"] / 1e6
    good = requests - found["bad_status"]
    return Load(
        rate=good / seconds,
        failed=1 - good / requests if requests else 1.0,
        client_cpu=client_cpu,
        **{f"{name}_ms": found[f"{name}_us"] / 1e3 for name in ("p50", "p90", "p99", "max")},
    )


def as_data(samples: Mapping[str, list[Load]]) -> dict[str, Any]:
    """For the report."""
    return {name: [asdict(sample) for sample in each] for name, each in samples.items()}


def _script(run: Run, bodies: Sequence[bytes], headers: Mapping[str, str]) -> str:
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    folder = run.folder / "bodies"
    folder.mkdir(parents=True, exist_ok=True)
    body = b"\n".join(bodies)
    stem = sha256(body + lines.encode()).hexdigest()[:12]
    (folder / stem).write_bytes(body)
    path = folder / f"{stem}.lua"
    # One body that stays the same needs no Lua for each request.
    send = (_ONE if len(bodies) == 1 else _IN_TURN).format(body=folder / stem)
    path.write_text(_SCRIPT.format(headers=lines, send=send))
    return str(path)
