"""What is lost when one of two replicas is killed?

Two replicas at 70 % load, a share of the requests on new connections; then kill -9 for one of them.

Rules:
- Lost with the process: requests sent before it was gone, as the kernel tells. Later: sent after that; the target is
  none. Between the two lies the moment in which the client has not yet read that its connections are closed; what is
  sent on those then is lost as well, and counted on its own.
- It is replaced once both replicas answer for /metrics again. Start-up is what one replica needs alone.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
import urllib.request
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, Table, interleaved, middle
from benchmarks.processes import Server, paceline
from benchmarks.report import rounds_table
from benchmarks.samples import OVERFLOW
from benchmarks.traffic import FLAGS, SHARE, Stream, failures, kinds, p99_ms

_PATH = "/predict"
_POLL_S = 0.01
_BACK_S = 60.0
_UNREAD_S = 0.02
_UP = re.compile(rb'^paceline_replica_up\{replica="\d+"\} 1(?:\.0)?$', re.MULTILINE)


@dataclass(frozen=True)
class Kill:
    """One replica killed under load."""

    rate: float
    requests: int
    with_it: int
    unread: int
    later: int
    unsent: int
    kinds: dict[str, int]
    calm_p99_ms: float
    p99_ms: float
    back_s: float
    start_s: float

    @property
    def ratio(self) -> float:
        """Time until it is replaced, in start-ups."""
        return self.back_s / self.start_s


def measure(run: Run) -> Group:
    """One kill a round."""
    group = Group(f"kill -9 of one of two replicas under {SHARE:.0%} load")
    found = interleaved({"kill": partial(_one, run)}, run.rounds)["kill"]
    rows = []
    for turn, each in enumerate(found):
        losses = [each.with_it, each.unread, each.later, each.unsent]
        rows.append([turn + 1, each.rate, each.requests, *losses, kinds(each.kinds)])
    columns = ("round", "requests/s", "requests", "lost with it", "unread close", "lost later", "not sent", "kinds")
    group.tables.append(Table("losses", columns, rows))
    times = [middle(found, what) for what in ("back_s", "start_s", "calm_p99_ms", "p99_ms")]
    columns = ("s until two are ready", "s of a start-up", "p99 calm ms", "p99 from the kill on")
    group.tables.append(rounds_table("times", columns, [times]))
    group.check("requests lost later", sum(each.later for each in found), 0, most=True)
    group.check("time until replaced, in start-ups at rest", middle(found, "ratio"), 1.0, "x", most=True)
    group.samples = {"kill": [asdict(each) for each in found]}
    group.notes = ["a start-up at rest has the cores for itself; the one after the kill shares them with the load"]
    return group


def _one(run: Run) -> Kill:
    model, body = models.mlp(run.models, models.SMALL), models.json_row(models.SMALL[0])
    with paceline(run, model, ("--replicas", "1")) as alone:
        start_s = alone.ready_s
    with paceline(run, model, (*FLAGS, "--replicas", "2")) as server:
        models.check_answer(server, _PATH, body, model)
        stream = Stream(run, server.url(_PATH), body)
        rate = SHARE * stream.capacity()
        with stream.open(rate) as traffic:
            traffic.wait_begun()
            time.sleep(run.either(5.0, 3.0))
            killed, gone = _kill(server.replicas[-1])
            back_s = _until_two(server) - killed
            time.sleep(run.either(5.0, 2.0))
            samples, _ = traffic.stop()
    killed_s, gone_s = killed - samples.start_s, gone - samples.start_s
    lost_s = samples.intended_s[samples.failed & (samples.status != OVERFLOW)]
    _, unsent = failures(samples)
    return Kill(
        rate=rate,
        requests=samples.status.size - unsent,
        with_it=int((lost_s <= gone_s).sum()),
        unread=int(((lost_s > gone_s) & (lost_s <= gone_s + _UNREAD_S)).sum()),
        later=int((lost_s > gone_s + _UNREAD_S).sum()),
        unsent=unsent,
        kinds=samples.kinds(),
        calm_p99_ms=p99_ms(samples.between(1.0, killed_s)),
        p99_ms=p99_ms(samples.between(killed_s, np.inf)),
        back_s=back_s,
        start_s=start_s,
    )


def _kill(pid: int) -> tuple[float, float]:
    """When it was killed, and when it was gone."""
    handle = os.pidfd_open(pid)
    try:
        killed = time.monotonic()
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], 10)[0]:
            raise BenchError(f"process {pid} survives SIGKILL")
        return killed, time.monotonic()
    finally:
        os.close(handle)


def _until_two(server: Server) -> float:
    until = time.monotonic() + _BACK_S
    while time.monotonic() < until:
        with urllib.request.urlopen(server.url("/metrics"), timeout=10) as response:
            if len(_UP.findall(response.read())) == 2:
                return time.monotonic()
        time.sleep(_POLL_S)
    raise BenchError(f"not two replicas again after {_BACK_S:g} s:\n" + "\n".join(server.panel[-10:]))
