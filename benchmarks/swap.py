"""What does a new version of a model cost those who are asking the old one?

A repository NAME/1/model.onnx under full load, closed loop; then NAME/2 is moved there in one step. Its answers
differ, so that the client sees the swap. The small model, and a 2048-wide one.

Rules:
- Every request counts: any status but 200, a reset, an answer that does not come is a failure.
- "During" is from the moment when version 2 is there until the last answer of version 1. The server looks every
  50 ms, so that the time in which nothing happens yet does not thin out the percentile.
- An answer of version 1 to a request sent after the first answer of version 2 was read is a step back; counted, too.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, interleaved, middle
from benchmarks.processes import Server, paceline
from benchmarks.report import rounds_table
from benchmarks.samples import Samples
from benchmarks.traffic import FLAGS, Stream, failures, kinds, p99_ms

SIZES = {"small": models.SMALL, "2048-wide": models.WIDE}
MOST_RATIO = 2.0
NAME = "mlp"
_PATH = f"/v1/models/{NAME}:predict"
_SHIFT = 1_000_000
_POLL_S = 0.02
_SWAP_S = 60.0


@dataclass(frozen=True)
class Swap:
    """One swap under load; times in milliseconds, but `seconds`, from the move to the first answer of version 2."""

    requests: int
    failed: int
    backward: int
    seconds: float
    before_ms: float
    during_ms: float
    after_ms: float
    during_max_ms: float
    rate_before: float
    rate_after: float
    kinds: dict[str, int]

    @property
    def ratio(self) -> float:
        """The p99 during the swap over that before."""
        return self.during_ms / self.before_ms


def measure(run: Run) -> Group:
    """Both models, swapped once in each round."""
    group = Group("hot swap: a new version under full load")
    rounds = interleaved({name: partial(_one, run, sizes) for name, sizes in SIZES.items()}, run.rounds)
    rows = []
    for name, each in rounds.items():
        total = {kind: sum(swap.kinds.get(kind, 0) for swap in each) for swap in each for kind in swap.kinds}
        times = [middle(each, what) for what in ("before_ms", "during_ms", "after_ms", "during_max_ms")]
        requests, failed = (sum(getattr(swap, what) for swap in each) for what in ("requests", "failed"))
        backward = sum(swap.backward for swap in each)
        rates = [middle(each, what) for what in ("rate_before", "rate_after")]
        rows.append([name, requests, kinds(total), backward, *times, *rates, middle(each, "seconds")])
        group.check(f"{name}: failed requests", failed, 0, most=True)
        group.check(f"{name}: p99 during the swap, of that before", middle(each, "ratio"), MOST_RATIO, "x", most=True)
    columns = ("model", "requests", "failed", "steps back", "p99 before ms", "during", "after", "max during")
    columns += ("answers/s before", "after", "s to swap")
    group.tables.append(
        rounds_table("version 1 to version 2: sums of requests, failures and steps back, else", columns, rows)
    )
    group.samples = {name: [asdict(swap) for swap in each] for name, each in rounds.items()}
    group.notes = ["the client keeps 64 connections busy", "a ratio of two p99s is taken within each round"]
    return group


def _one(run: Run, sizes: Sequence[int]) -> Swap:
    repository, staged = _repository(run, sizes)
    row = json.loads(models.json_row(sizes[0]))
    body = json.dumps({"instances": [row]}).encode()
    calm_s = run.either(6.0, 2.5)
    with paceline(run, repository, (*FLAGS, "--repository-poll-s", "0.05")) as server:
        stream = Stream(run, server.url(_PATH), body)
        stream.closed(seconds=2.0).result()  # untimed
        with stream.closed(mark=f"{_SHIFT}.") as traffic:
            traffic.wait_begun()
            time.sleep(calm_s)
            moved = time.monotonic()
            staged.rename(repository / NAME / "2")
            _wait_for_version_2(server, body)
            time.sleep(calm_s)
            samples, _ = traffic.stop()
    return _found(samples, moved - samples.start_s)


def _repository(run: Run, sizes: Sequence[int]) -> tuple[Path, Path]:
    """A repository with version 1, and version 2 beside it."""
    repository, staged = run.folder / "swap" / "models", run.folder / "swap" / "staged"
    shutil.rmtree(repository.parent, ignore_errors=True)
    for folder, shift in ((repository / NAME / "1", 0), (staged, _SHIFT)):
        folder.mkdir(parents=True)
        shutil.copy(models.mlp(run.models, sizes, shift), folder / "model.onnx")
    return repository, staged


def _wait_for_version_2(server: Server, body: bytes) -> None:
    until = time.monotonic() + _SWAP_S
    while time.monotonic() < until:
        answer, _ = server.post(_PATH, body, {"content-type": "application/json"})
        if json.loads(answer)["predictions"][0][0] > _SHIFT / 2:
            return
        time.sleep(_POLL_S)
    raise BenchError(f"version 2 is not served after {_SWAP_S:g} s:\n" + "\n".join(server.panel[-10:]))


def _found(samples: Samples, moved_s: float) -> Swap:
    answered_s = samples.intended_s + samples.latency_s
    new, old = samples.marked, ~samples.marked & ~samples.failed
    first_s, last_s = answered_s[new].min(), answered_s[old].max()
    # A request under way when the version came counts as sent during the swap.
    begins_s = samples.intended_s[answered_s >= moved_s].min()
    before, after = samples.between(1.0, begins_s), samples.between(last_s, float("inf"))
    during = samples.between(begins_s, last_s)
    failed, _ = failures(samples)
    return Swap(
        requests=samples.status.size,
        failed=failed,
        backward=int((samples.intended_s[old] > first_s).sum()),
        seconds=float(first_s - moved_s),
        before_ms=p99_ms(before),
        during_ms=p99_ms(during),
        after_ms=p99_ms(after),
        during_max_ms=float(during.latencies_ms(200).max()),
        rate_before=before.status.size / (begins_s - 1.0),
        rate_after=after.status.size / float(samples.intended_s.max() - last_s),
        kinds=samples.kinds(),
    )
