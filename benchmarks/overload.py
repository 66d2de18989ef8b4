"""What is left of a server when far more is asked than it can do?

A 64->4096->4096->4096->10 model, every request with a deadline of 100 ms. The peak is the best rate at which
answers kept within it, found closed-loop (wrk) and open-loop; then 2x, 5x and 10x of it, open loop, Poisson. Goodput is
the rate of answers 200 within 100 ms of the INTENDED time of the request.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, Table, say
from benchmarks.probe import Probe
from benchmarks.processes import Server, paceline
from benchmarks.samples import LOST, OVERFLOW, UNANSWERED, Samples, read
from benchmarks.wrk import load

# One core computes; the other is left to the event loop and to the client, which share this machine with it. Most of
# the client's connections are spares: closing those that stay silent would race with their first request.
FLAGS = ("--instances", "1", "--threads", "1", "--header-timeout-ms", "600000", "--keep-alive-ms", "600000")
SLO_MS = 100.0
FACTORS = (2, 5, 10)
LEAST_GOODPUT = 0.9
MOST_REJECTION_MS = 5.0
MOST_HEALTH_MS = 50.0
MOST_RECOVERY_S = 2.0
MOST_GROWTH_MIB = 16.0
CONNECTIONS = 1024
_HEADERS = {"Content-Type": "application/json", "X-Request-Timeout-Ms": f"{SLO_MS:g}"}
_PATH = "/predict"
_WINDOW_S = 0.5
_LATE_MS = 10.0


@dataclass(frozen=True)
class Outcome:
    """One open-loop run, in numbers."""

    offered: float
    goodput: float
    p50_ms: float
    p99_ms: float
    rejected: float
    rejection_p50_ms: float
    rejection_p99_ms: float
    unanswered: int
    overflow: int
    late_p99_ms: float
    client_cpu: float
    status: dict[str, int]


def measure(run: Run) -> Group:
    """Peak, overload, recovery."""
    group = Group(f"overload: 4096-wide model, deadline {SLO_MS:g} ms, open loop")
    model = models.mlp(run.models, models.WIDER)
    body = models.json_row(models.WIDER[0])
    with paceline(run, model, FLAGS) as server:
        models.check_answer(server, _PATH, body, model)
        client = _Client(run, server, body)
        peak = _peak(group, run, client, body)
        for factor in FACTORS:
            _overloaded(group, run, client, factor, peak)
        _recovery(group, run, client, peak)
        group.samples["panel"] = server.panel
    rows = group.samples["rows"]
    columns = ("load", "offered/s", "goodput/s", "of peak", "accepted p50, p99 ms", "rejected/s")
    columns += ("rejection p50, p99 ms", "RSS MiB", "health p50, max ms", "client late p99 ms", "client cpu")
    group.tables.append(Table("overload", columns, rows))
    group.notes += [
        f"{CONNECTIONS} connections; an arrival that finds none free is not sent and counts as failed",
        f"a client that is late by more than {_LATE_MS:g} ms at the 99th percentile limits the result",
        "client and server share the cores" if not run.pin else "the server has one core, the client another",
    ]
    return group


class _Client:
    """Starts the open-loop client as a process of its own, so that it does not share our interpreter."""

    def __init__(self, run: Run, server: Server, body: bytes) -> None:
        self.server = server
        self._run = run
        self._body = run.folder / "bodies" / "row.json"
        self._body.parent.mkdir(parents=True, exist_ok=True)
        self._body.write_bytes(body)
        self._out = run.folder / "samples.npz"

    def __call__(self, phases: Sequence[tuple[float, float]]) -> tuple[Samples, Outcome]:
        text = ",".join(f"{rate:.0f}:{seconds:g}" for rate, seconds in phases)
        command = [sys.executable, "-m", "benchmarks.open_loop", self.server.url(_PATH), str(self._body)]
        command += ["--phases", text, "--connections", str(CONNECTIONS), "--out", str(self._out)]
        command += ["--header", f"X-Request-Timeout-Ms: {SLO_MS:g}"]
        done = subprocess.run(self._run.as_client(command), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{command} failed:\n{done.stderr}")
        samples = read(self._out)
        return samples, _outcome(
            samples, sum(seconds for _, seconds in phases), json.loads(done.stdout.splitlines()[-1])
        )


def _peak(group: Group, run: Run, client: _Client, body: bytes) -> float:
    """The best rate of answers within the deadline, by either kind of client."""
    seconds = run.either(8.0, 2.0)
    load(run, client.server.url(_PATH), body, 32, 2, _HEADERS)  # untimed
    closed = {}
    for connections in (8, 32, 64, 128, 256):
        each = load(run, client.server.url(_PATH), body, connections, seconds, _HEADERS)
        closed[connections] = asdict(each)
        text = f"{each.rate:.0f}/s, p99 {each.p99_ms:.1f} ms, {each.failed:.1%} refused"
        say(f"  closed loop, {connections} connections: {text}")
    within = [each["rate"] for each in closed.values() if each["p99_ms"] <= SLO_MS]
    if not within:
        raise BenchError("no closed-loop run kept the deadline at the 99th percentile: no peak to compare with")
    closed_peak = max(within)
    opened = {}
    for share in (0.7, 0.8, 0.9, 1.0, 1.1):
        _, outcome = client([(share * closed_peak, seconds)])
        opened[share] = asdict(outcome)
        say(f"  open loop, {outcome.offered:.0f}/s: goodput {outcome.goodput:.0f}/s, p99 {outcome.p99_ms:.1f} ms")
    open_peak = max(each["goodput"] for each in opened.values())
    group.samples |= {"closed": closed, "open": opened, "rows": []}
    found = f"{closed_peak:.0f}/s closed loop, {open_peak:.0f}/s open loop"
    group.notes.append(f"peak: {found}; the higher one counts")
    return max(closed_peak, open_peak)


def _overloaded(group: Group, run: Run, client: _Client, factor: int, peak: float) -> None:
    seconds = run.either(60.0, 5.0)
    say(f"  {factor}x: {factor * peak:.0f}/s for {seconds:g} s")
    with Probe(client.server, every_s=0.1) as probe:
        _, outcome = client([(factor * peak, seconds)])
    share = outcome.goodput / peak
    begin, settled, end = probe.rss_mib[0], probe.rss_mib[len(probe.rss_mib) // 4], probe.rss_mib[-1]
    group.samples[f"{factor}x"] = {**asdict(outcome), **probe.as_data()}
    health = np.percentile(probe.health_ms, (50, 99, 100))
    group.samples["rows"].append(
        [
            f"{factor}x",
            outcome.offered,
            outcome.goodput,
            f"{share:.1%}",
            f"{outcome.p50_ms:.1f}, {outcome.p99_ms:.1f}",
            outcome.rejected,
            f"{outcome.rejection_p50_ms:.2f}, {outcome.rejection_p99_ms:.2f}",
            f"{begin:.0f} > {end:.0f}",
            f"{health[0]:.1f}, {health[2]:.1f}",
            outcome.late_p99_ms,
            outcome.client_cpu,
        ]
    )
    group.check(f"{factor}x: goodput, share of the peak", share, LEAST_GOODPUT)
    group.check(f"{factor}x: p99 of the accepted", outcome.p99_ms, SLO_MS, " ms", most=True)
    rejection_ms = outcome.rejection_p50_ms
    group.check(f"{factor}x: median rejection", rejection_ms, MOST_REJECTION_MS, " ms", most=True)
    group.check(f"{factor}x: memory growth once settled", end - settled, MOST_GROWTH_MIB, " MiB", most=True)
    group.check(f"{factor}x: never answered", outcome.unanswered, 0, most=True)
    if factor == max(FACTORS):
        group.check(f"{factor}x: health p99", health[1], MOST_HEALTH_MS, " ms", most=True)
    if outcome.late_p99_ms > _LATE_MS:
        group.notes.append(f"{factor}x: the client was late by {outcome.late_p99_ms:.0f} ms at the 99th percentile")


def _recovery(group: Group, run: Run, client: _Client, peak: float) -> None:
    """Half the peak, a second of ten times it, half again: how long until the p99 is what it was?"""
    before_s, after_s = run.either(10.0, 4.0), run.either(10.0, 5.0)
    samples, _ = client([(0.5 * peak, before_s), (max(FACTORS) * peak, 1.0), (0.5 * peak, after_s)])
    normal_ms = _p99_ms(samples.between(1.0, before_s))
    bound_ms = max(1.5 * normal_ms, normal_ms + 5.0)
    end_s = before_s + 1.0
    starts = np.arange(0.0, after_s - _WINDOW_S / 2, _WINDOW_S)
    windows = [_p99_ms(samples.between(end_s + start, end_s + start + _WINDOW_S)) for start in starts]
    slow = [start + _WINDOW_S for start, p99_ms in zip(starts, windows, strict=True) if p99_ms > bound_ms]
    recovery_s = max(slow, default=0.0) if np.isfinite(normal_ms) else np.inf
    group.samples["recovery"] = {"normal_ms": normal_ms, "bound_ms": bound_ms, "windows_ms": windows}
    group.check("after 1 s at 10x: normal p99 again", recovery_s, MOST_RECOVERY_S, " s", most=True)
    group.notes.append(f"normal p99 at half the peak: {normal_ms:.1f} ms; normal again means below {bound_ms:.1f} ms")


def _p99_ms(samples: Samples) -> float:
    """Over the answered ones; a window with a refusal or worse is not normal."""
    if (samples.status != 200).any() or not samples.status.size:
        return float("inf")
    return float(np.percentile(samples.latencies_ms(200), 99))


def _outcome(samples: Samples, seconds: float, client: dict[str, Any]) -> Outcome:
    good, refused = samples.latencies_ms(200), samples.latencies_ms(503, 429)
    status = {int(key): count for key, count in client["status"].items()}
    p50, p99 = np.percentile(good, (50, 99)) if good.size else (np.inf, np.inf)
    r50, r99 = np.percentile(refused, (50, 99)) if refused.size else (0.0, 0.0)
    return Outcome(
        offered=client["arrivals"] / seconds,
        goodput=float((good <= SLO_MS).sum()) / seconds,
        p50_ms=float(p50),
        p99_ms=float(p99),
        rejected=refused.size / seconds,
        rejection_p50_ms=float(r50),
        rejection_p99_ms=float(r99),
        unanswered=status.get(LOST, 0) + status.get(UNANSWERED, 0),
        overflow=status.get(OVERFLOW, 0),
        late_p99_ms=client["late_ms"]["p99"],
        client_cpu=client["client_cpu"],
        status=client["status"],
    )
