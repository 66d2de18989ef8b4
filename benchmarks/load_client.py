"""What does the client of `paceline bench` cost, and does it send in time?

Closed loop, 32 connections, beside wrk and beside the clients that one would write in Python: a protocol on uvloop, and
aiohttp. Two servers: HAProxy, which answers two bytes from its configuration and is faster than any of them, and
Paceline with the small model. Then open loop at 10 000 requests a second: how late does each leave?

Rules:
- Interleaved, each client alone with the server. "Per core" is the rate over the cores that the client took: it stays
  comparable where something else has taken a share of the core.
- Percentiles of lateness are over all requests that were due after the warm-up.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from statistics import median

import numpy as np

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, Table, interleaved, pinned_as_client
from benchmarks.processes import answers, free_port, paceline, started
from benchmarks.wrk import load
from paceline.loadtest.arrivals import AnyArrivals, Constant, Poisson
from paceline.loadtest.generator import Generator
from paceline.loadtest.samples import SAMPLE, Outcome
from paceline.loadtest.steps import Ended, OpenLoop, Step, Users
from paceline.loadtest.target import Target

CONNECTIONS = 32
RATE = 10_000
MOST_LATE_S = 1e-3
LEAST_OF_WRK = 0.5
LEAST_IN_TIME = 0.99
_WARMUP_S = 0.5
_JSON = {"Content-Type": "application/json"}
_OTHERS = {"uvloop": "a protocol on uvloop", "aiohttp": "aiohttp", "httpx": "httpx"}
_HAPROXY = """\
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend all
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string ok
"""


@dataclass(frozen=True)
class Loaded:
    """What one client did with a server.

    Attributes:
        rate: answers per second.
        cpu: cores that the client took.
    """

    rate: float
    cpu: float

    @property
    def per_core(self) -> float:
        """Answers per second, had it had a core to itself."""
        return self.rate / self.cpu


@dataclass(frozen=True)
class Sent:
    """How late requests left: the share that did within a millisecond, and percentiles in milliseconds."""

    in_time: float
    late_p50_ms: float
    late_p99_ms: float
    rate: float
    cpu: float


def measure(run: Run) -> Group:
    """Closed loop against both servers, open loop against the faster one."""
    group = Group(f"the client of load tests: {CONNECTIONS} connections, and {RATE} requests a second")
    body = models.json_row(models.SMALL[0])
    with _haproxy(run) as port:
        _closed(group, run, "HAProxy", Target(path="/", bodies=(b"[]",), **_at(port)))
        _open(group, run, Target(path="/", bodies=(b"[]",), **_at(port)))
    with paceline(run, models.mlp(run.models, models.SMALL)) as server:
        headers = tuple(_JSON.items())
        target = Target(path="/predict", bodies=(body,), headers=headers, **_at(server.port))
        _closed(group, run, "Paceline", target)
    return group


def _closed(group: Group, run: Run, server: str, target: Target) -> None:
    seconds = run.either(5.0, 2.0)
    others = [name for name in _OTHERS if find_spec(name) is not None]
    cases: dict[str, Callable[[], Loaded]] = {
        "wrk": partial(_wrk, run, target, seconds),
        "paceline bench": partial(_ours, run, target, seconds),
        **{_OTHERS[name]: partial(_other, run, name, target, seconds) for name in others},
    }
    samples = interleaved(cases, run.rounds)
    wrk = samples["wrk"]
    rows = []
    for name, each in samples.items():
        rate, per_core = (_ratio(each, wrk, attribute) for attribute in ("rate", "per_core"))
        middle = median(one.rate for one in each)
        rows.append((name, middle, median(one.cpu for one in each), f"{rate:.0%}", f"{per_core:.0%}"))
    columns = ("client", "requests/s", "cores", "of wrk's rate", "per core")
    group.tables.append(Table(f"closed loop against {server} (medians)", columns, rows))
    if server == "HAProxy":
        group.check("rate, share of wrk's", _ratio(samples["paceline bench"], wrk, "rate"), LEAST_OF_WRK)
    group.samples[f"closed, {server}"] = {name: [asdict(one) for one in each] for name, each in samples.items()}


def _ratio(ours: list[Loaded], theirs: list[Loaded], attribute: str) -> float:
    """Median over the rounds: the two ran one after the other in each."""
    pairs = zip(ours, theirs, strict=True)
    return median(getattr(one, attribute) / getattr(other, attribute) for one, other in pairs)


def _open(group: Group, run: Run, target: Target) -> None:
    kinds = (Constant(rate=RATE), Poisson(rate=RATE))
    cases = {kind.__struct_config__.tag: partial(_sent, run, target, kind) for kind in kinds}
    samples = interleaved(cases, run.rounds)
    rows = []
    for name, each in samples.items():
        middle = {field: median(getattr(one, field) for one in each) for field in asdict(each[0])}
        rows.append((name, f"{middle['in_time']:.2%}", *(middle[field] for field in list(middle)[1:])))
        group.check(f"{name}: sent within 1 ms", middle["in_time"], LEAST_IN_TIME)
    columns = ("arrivals", "sent within 1 ms", "late p50 ms", "late p99 ms", "sent/s", "cores")
    group.tables.append(Table(f"open loop, {RATE}/s (medians)", columns, rows))
    group.samples["open"] = {name: [asdict(one) for one in each] for name, each in samples.items()}


def _wrk(run: Run, target: Target, seconds: float) -> Loaded:
    found = load(run, target.url, target.bodies[0], CONNECTIONS, seconds, dict(target.headers))
    return Loaded(found.rate, found.client_cpu)


def _ours(run: Run, target: Target, seconds: float) -> Loaded:
    rows, ended = _held(run, target, Step(load=Users(count=CONNECTIONS), warmup_s=_WARMUP_S, duration_s=seconds))
    return Loaded(len(rows) / ended.wall_s, ended.cpu)


def _sent(run: Run, target: Target, arrivals: AnyArrivals) -> Sent:
    step = Step(load=OpenLoop(arrivals=arrivals), warmup_s=_WARMUP_S, duration_s=run.either(5.0, 2.0))
    rows, ended = _held(run, target, step)
    late_s = rows["late_s"]
    p50, p99 = np.percentile(late_s, (50, 99)) * 1e3
    in_time = float((late_s <= MOST_LATE_S).mean())
    return Sent(in_time, float(p50), float(p99), len(rows) / ended.wall_s, ended.cpu)


def _held(run: Run, target: Target, step: Step) -> tuple[np.ndarray, Ended]:
    """The samples that count."""
    parts = [np.zeros(0, SAMPLE)]
    with pinned_as_client(run), Generator(target) as generator:
        generator.begin(step)
        while generator.ended is None:
            part = generator.poll(1.0)
            if part is not None:
                parts.append(part)
    rows = np.concatenate(parts)
    failed = int((rows["outcome"] != Outcome.OK).sum())
    if failed or generator.ended.dropped:
        raise BenchError(f"{failed} of {len(rows)} requests to {target.url} failed")
    return rows[rows["due_s"] >= step.warmup_s], generator.ended


def _other(run: Run, name: str, target: Target, seconds: float) -> Loaded:
    command = [
        sys.executable,
        "-m",
        "benchmarks.load_client_others",
        name,
        target.url,
        str(CONNECTIONS),
        f"{seconds:g}",
    ]
    body = target.bodies[0].decode()
    done = subprocess.run(run.as_client(command), input=body, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{command} failed:\n{done.stderr}")
    return Loaded(**json.loads(done.stdout))


@contextmanager
def _haproxy(run: Run) -> Iterator[int]:
    binary = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if binary is None:
        raise BenchError("haproxy is not installed (Debian and Ubuntu: apt-get install haproxy)")
    port = free_port()
    config = run.folder / "haproxy.cfg"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(_HAPROXY.format(port=port))
    with started(run, [binary, "-db", "-f", str(config)], port, ready=answers("/")):
        yield port


def _at(port: int) -> dict[str, object]:
    return {"host": "127.0.0.1", "port": port, "protocol": "raw"}
