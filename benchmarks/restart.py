"""Does `paceline restart` lose a request?

Two replicas at 70 % load, a share of the requests on new connections, and `paceline restart` twenty times, one after
the other; directly, and with HAProxy in front. `benchmarks.traffic` says what load and failures are.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, Table, say
from benchmarks.processes import Server, answers, free_port, paceline, paceline_command, started
from benchmarks.traffic import FLAGS, FRESH, SHARE, Stream, Traffic, failures, kinds, p99_ms

LEAST_REQUESTS = 100_000
_PATH = "/predict"
_RESTART_S = 120.0
_HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 60s
frontend public
    bind 127.0.0.1:{port}
    default_backend paceline
backend paceline
    server paceline 127.0.0.1:{behind}
"""


@dataclass(frozen=True)
class Outcome:
    """One case; the p99 before the first restart, and from then on."""

    rate: float
    requests: int
    failed: int
    unsent: int
    kinds: dict[str, int]
    calm_p99_ms: float
    p99_ms: float
    restart_s: list[float]
    client: dict[str, Any]


def measure(run: Run) -> Group:
    """Directly, then through HAProxy."""
    if shutil.which("haproxy", path=_SEARCHED) is None:
        raise BenchError("haproxy is not installed (Debian and Ubuntu: apt-get install haproxy)")
    times, least = run.either(20, 3), run.either(LEAST_REQUESTS, 10_000)
    group = Group(f"restart: {times} times under {SHARE:.0%} load, two replicas")
    rows = []
    for name, proxied in (("direct", False), ("through HAProxy", True)):
        say(f"  {name}")
        found = _one(run, proxied, times, least)
        group.samples[name] = asdict(found)
        mean_s = sum(found.restart_s) / len(found.restart_s)
        row = [name, found.rate, found.requests, kinds(found.kinds), found.unsent, found.calm_p99_ms, found.p99_ms]
        rows.append([*row, mean_s, found.client["late_ms"]["p99"], found.client["client_cpu"]])
        group.check(f"{name}: failed requests", found.failed, 0, most=True)
        group.check(f"{name}: requests", found.requests, least)
    columns = ("path", "requests/s", "requests", "failed", "not sent", "p99 calm ms", "p99 restarting")
    columns += ("s a restart", "client late p99 ms", "client cores")
    group.tables.append(Table("restarts", columns, rows))
    group.notes = [
        f"{FRESH:.0%} of the requests on new connections; each connection that is closed is opened again",
        "not sent: the client had no connection free; it is late when the cores are full",
    ]
    return group


def _one(run: Run, proxied: bool, times: int, least: int) -> Outcome:
    model, body = models.mlp(run.models, models.SMALL), models.json_row(models.SMALL[0])
    with ExitStack() as stack:
        server = stack.enter_context(paceline(run, model, (*FLAGS, "--replicas", "2")))
        front = stack.enter_context(_haproxy(run, server.port)) if proxied else server
        models.check_answer(front, _PATH, body, model)
        stream = Stream(run, front.url(_PATH), body)
        rate = SHARE * stream.capacity()
        with stream.open(rate) as traffic:
            traffic.wait_begun()
            return _restarted(run, server.port, traffic, rate, times, least)


def _restarted(run: Run, port: int, traffic: Traffic, rate: float, times: int, least: int) -> Outcome:
    time.sleep(run.either(5.0, 3.0))
    begun = time.monotonic()
    taken_s = [_restart(run, port) for _ in range(times)]
    time.sleep(max(1.0, 1.1 * least / rate - (time.monotonic() - begun)))
    samples, client = traffic.stop()
    first_s = begun - samples.start_s
    failed, unsent = failures(samples)
    return Outcome(
        rate=rate,
        requests=samples.status.size - unsent,
        failed=failed,
        unsent=unsent,
        kinds=samples.kinds(),
        calm_p99_ms=p99_ms(samples.between(1.0, first_s)),
        p99_ms=p99_ms(samples.between(first_s, float("inf"))),
        restart_s=taken_s,
        client=client,
    )


def _restart(run: Run, port: int) -> float:
    command = [*paceline_command(), "restart", "--port", str(port)]
    begun = time.monotonic()
    done = subprocess.run(run.as_server(command), capture_output=True, text=True, timeout=_RESTART_S, check=False)
    if done.returncode:
        raise BenchError(f"{command} failed:\n{done.stderr}")
    return time.monotonic() - begun


_SEARCHED = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin"


@contextmanager
def _haproxy(run: Run, behind: int) -> Iterator[Server]:
    """HAProxy with the defaults of its own documentation: nothing repeated but connecting."""
    port = free_port()
    path = run.folder / "haproxy.cfg"
    path.write_text(_HAPROXY.format(port=port, behind=behind))
    command = [shutil.which("haproxy", path=_SEARCHED) or "haproxy", "-db", "-f", str(path)]
    with started(run, command, port, ready=answers("/readyz")) as server:
        yield server
