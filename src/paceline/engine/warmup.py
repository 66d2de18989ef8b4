"""Which settings does this model want on this machine? Measured before it is ready, never guessed.

Rules:
- Rows are taken as independent only after the model gave the same answers for rows together and apart.
- Service times are measured at 1, 2, 4, ... rows; the largest batch is the smallest size within a few per cent of the
  best rows per second, what a batch costs beside its run counted in.
- A model whose batches are shorter than a few hand-overs runs on the event loop: one instance, one thread.
- Any other is measured in several splits of the cores into instances x threads; the one with the shortest single
  run among those near the best rows per second is taken.
- The budget ends the measuring; what was not measured is not claimed. Outside the budget are, whatever they take: the
  first run, what tells whether rows are independent (rows together and each apart: four runs, three when there is no
  time for four), a few runs of less than `LONG_BATCH_S` each, and measuring one split, unless a batch takes longer
  than `_TOO_LONG_TO_COMPARE_S`. A model that takes longer than that, and than the budget, runs four times.
- What takes the place of a version that serves is set up like it, and measured with pauses: clients wait for the cores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from paceline.core.errors import InvalidRequest, ModelFailed, PacelineError
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec, bf16_to_float32
from paceline.engine import examples
from paceline.engine.timing import LONG_BATCH_S, concurrent_rate, handover_s, run_joined, typical_run_s
from paceline.runtimes.base import Instance, LoadedModel

_MOST_ROWS = 256
# A batch costs more than its run: forming it and delivering what came out; on a thread, handing it over as well.
_OVERHEAD_ON_LOOP_S = 8e-6
_OVERHEAD_ON_THREAD = 5  # in hand-overs
_NEAR_BEST = 0.97
# Instances that each have a core measure well alone, and worse beside an event loop that needs one too: a split with
# fewer of them, and so a shorter run for each, may look this much slower here and be the faster one in service.
_SPLIT_NEAR_BEST = 0.8
_CLEARLY_SHORTER = 0.85
# Comparing splits runs a full batch a dozen times; a start that long helps nobody.
_TOO_LONG_TO_COMPARE_S = 0.5
# Beside live traffic: the pause after a run, in runs.
_REST = 3.0
_KEPT = "as the version before: measuring splits would disturb those that it serves"
_TOLERANCE = {"rtol": 1e-2, "atol": 1e-4}


@dataclass(frozen=True)
class Wishes:
    """What the operator fixed; None leaves it to the measurement.

    Attributes:
        origins: setting -> where its value came from, for people.
    """

    max_batch_rows: int | None = None
    instances: int | None = None
    threads: int | None = None
    budget_s: float = 0.6
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A model ready to serve, and why it is set up as it is.

    Attributes:
        signature: the file's, with `batched` as found and shapes filled in.
        profile: measured (rows, seconds), ascending.
        inline_limit_s: batches predicted to be shorter run on the event loop.
        example: one valid row (or one valid input, unbatched); empty: none is known.
        lanes: how many batches each instance takes at once.
        reasons: setting -> why it has its value, for people.
    """

    signature: Signature
    instances: list[Instance]
    threads: int
    max_batch_rows: int
    profile: list[tuple[int, float]]
    inline_limit_s: float
    example: Tensors
    empty_outputs: Tensors
    reasons: dict[str, str] = field(default_factory=dict)
    wishes: Wishes = Wishes()
    lanes: int = 1


def prepare(
    loaded: LoadedModel, cores: int, wishes: Wishes, given: Tensors | None = None, like: Prepared | None = None
) -> Prepared:
    """Warm a model up and choose its settings. Blocks; call it on a thread.

    Args:
        cores: whole cores that this process may use.
        given: example inputs of the user, shape [rows, ...].
        like: what serves now, and will be replaced by this.

    Raises:
        ModelFailed: no input could be found that the model accepts.
    """
    return _Warmup(loaded, cores, wishes, like if like is not None and like.wishes == wishes else None).run(given)


class _Warmup:
    def __init__(self, loaded: LoadedModel, cores: int, wishes: Wishes, like: Prepared | None) -> None:
        self._loaded = loaded
        self._cores = cores
        self._wishes = wishes
        self._until = time.monotonic() + wishes.budget_s
        self._single_s = 0.0  # the shortest run of the fewest rows so far
        self._reasons: dict[str, str] = {}
        self._like = like
        # Beside live traffic a hand-over would look longer than it is.
        self._handover_s = handover_s() if like is None else 0.0
        self._inline_limit_s = like.inline_limit_s if like else min(max(4 * self._handover_s, 250e-6), 500e-6)
        declared = loaded.signature
        self._takes_one_row = declared.batched and declared.inputs[0].shape[0] == 1

    def run(self, given: Tensors | None) -> Prepared:
        """All of it, in order."""
        single = self._loaded.instances(1, 1)[0]
        signature, sample, outputs = self._understand(single, given)
        if self._like is not None:
            if self._like.signature == signature:
                return self._as_before(self._like, sample, outputs)
            self._handover_s = handover_s()
        most = self._most_rows(signature)
        profile = self._profile(single, sample, signature, most)
        max_rows = self._choose_rows(profile, signature.batched)
        count, threads = self._choose_split(signature, sample, profile, max_rows)
        instances = self._loaded.instances(count, threads)
        if threads > 1 and not self._too_late_for(2 * self._single_s):
            profile = _scaled(profile, self._profile(instances[0], sample, signature, max_rows))
        return Prepared(
            signature=signature,
            instances=instances,
            threads=threads,
            max_batch_rows=max_rows,
            profile=[(rows, seconds) for rows, seconds in profile if rows <= max_rows],
            inline_limit_s=self._inline_limit_s,
            example=tuple(array[:1] for array in sample) if signature.batched else sample,
            # A model without rows never has an empty request, and its outputs may be scalars.
            empty_outputs=tuple(output[:0] for output in outputs) if signature.batched else (),
            reasons=self._reasons,
            wishes=self._wishes,
        )

    def _as_before(self, like: Prepared, sample: Tensors, outputs: Tensors) -> Prepared:
        """Settings of the version that serves, with the times of this one."""
        batched = like.signature.batched
        for name in ("max_batch_size", "instances", "threads"):
            self._reasons[name] = like.reasons[name] if like.reasons[name].startswith("as configured") else _KEPT
        instances = self._loaded.instances(len(like.instances), like.threads)
        measured = []
        for rows in dict.fromkeys((1, like.max_batch_rows)):
            pieces = [examples.repeated(sample, 1) if batched else sample] * rows
            measured.append((rows, typical_run_s(partial(run_joined, instances[0], pieces), self._until, rest=_REST)))
        return replace(
            like,
            instances=instances,
            profile=_between(like.profile, measured),
            example=tuple(array[:1] for array in sample) if batched else sample,
            empty_outputs=tuple(output[:0] for output in outputs) if batched else (),
            reasons=self._reasons,
        )

    # -- what kind of model is it? ----------------------------------------------------------------------------

    def _understand(self, instance: Instance, given: Tensors | None) -> tuple[Signature, Tensors, Tensors]:
        signature = self._loaded.signature
        sample, outputs = self._first_run(instance, signature, given)
        batched = signature.batched and self._rows_are_independent(instance, sample, signature)
        if not signature.batched:
            self._reasons["batching"] = _why_unbatched(signature)
        labels = getattr(instance, "labels", None)
        columns = labels(sample) if labels is not None else [()] * len(outputs)
        specs = tuple(
            _seen(spec, output, batched, names)
            for spec, output, names in zip(signature.outputs, outputs, columns, strict=True)
        )
        # Also where the file says 1: larger requests are cut into single rows.
        inputs = tuple(_open_rows(spec) for spec in signature.inputs) if batched else signature.inputs
        return Signature(inputs, specs, batched), sample, outputs

    def _first_run(self, instance: Instance, signature: Signature, given: Tensors | None) -> tuple[Tensors, Tensors]:
        rows = 3 if signature.batched and not self._takes_one_row else 1
        candidates = [given] if given is not None else examples.synthetic(signature, rows)
        problem: PacelineError | None = None
        for sample in candidates:
            started = time.perf_counter()
            try:
                outputs = instance.run(sample)
                self._single_s = time.perf_counter() - started
                return sample, outputs
            except (ModelFailed, InvalidRequest) as error:
                problem = error
        said = getattr(problem, "detail", None) or problem
        raise ModelFailed(
            f"warm-up failed: the model accepted none of the inputs tried: {said}",
            hint="pass --examples FILE with inputs that it accepts",
        )

    def _rows_are_independent(self, instance: Instance, sample: Tensors, signature: Signature) -> bool:
        if self._takes_one_row:
            self._reasons["batching"] = "one row at a time: the batch dimension is fixed at 1"
            return True
        # Two rows show whether they influence one another, if in fewer ways than three do.
        count = 2 if self._too_late_for(4 * self._single_s) else 3
        try:
            together, apart = self._run_both_ways(instance, sample, count)
        except ModelFailed as error:
            self._reasons["batching"] = f"off: rows do not run together ({error.detail or error})"
            return False
        for spec, output, pieces in zip(signature.outputs, together, zip(*apart, strict=True), strict=True):
            if output.shape[:1] != (count,) or any(piece.shape[:1] != (1,) for piece in pieces):
                self._reasons["batching"] = f"off: output '{spec.name}' has no batch dimension"
                return False
            if not _equal(spec.datatype, output, np.concatenate(pieces)):
                self._reasons["batching"] = f"off: rows influence one another in output '{spec.name}'"
                return False
        self._reasons["batching"] = "on: rows together and apart give the same answers"
        return True

    def _run_both_ways(self, instance: Instance, sample: Tensors, count: int) -> tuple[Tensors, list[Tensors]]:
        """The outputs of `count` rows together, and of each alone."""
        given = examples.repeated(sample, count)
        rows = examples.distinct(given)
        try:
            together = instance.run(rows)
        except ModelFailed:
            rows, together = given, instance.run(given)
        started = time.perf_counter()
        apart = [instance.run(tuple(array[i : i + 1] for array in rows)) for i in range(count)]
        self._single_s = (time.perf_counter() - started) / count
        return together, apart

    def _too_late_for(self, seconds: float) -> bool:
        """True when so much more would end after the budget, and be felt at the start."""
        return seconds > LONG_BATCH_S and time.monotonic() + seconds > self._until

    # -- how large may a batch be? ----------------------------------------------------------------------------

    def _most_rows(self, signature: Signature) -> int:
        if not signature.batched or self._takes_one_row:
            return 1
        return self._wishes.max_batch_rows or _MOST_ROWS

    def _profile(self, instance: Instance, sample: Tensors, signature: Signature, most: int) -> list[tuple[int, float]]:
        if self._too_late_for(2 * self._single_s):
            return [(1, self._single_s)]
        profile: list[tuple[int, float]] = []
        rows = 1
        while True:
            # Joining the rows is part of a batch: for large ones it costs more than it gains.
            pieces = [examples.repeated(sample, 1) if signature.batched else sample] * rows
            seconds = typical_run_s(partial(run_joined, instance, pieces), self._until)
            profile.append((rows, seconds))
            # The next size takes about twice as long, three times: it must fit.
            if rows >= most or seconds > LONG_BATCH_S or time.monotonic() + 6 * seconds > self._until:
                return profile
            rows = min(2 * rows, most)

    def _choose_rows(self, profile: list[tuple[int, float]], batched: bool) -> int:
        if not batched or self._takes_one_row:
            self._reasons["max_batch_size"] = "the model takes one row" if batched else "the model is not batched"
            return 1
        if self._wishes.max_batch_rows:
            self._reasons["max_batch_size"] = self._configured("max_batch_size")
            return self._wishes.max_batch_rows
        short = [(rows, seconds) for rows, seconds in profile if seconds <= LONG_BATCH_S] or profile[:1]
        rates = [(rows, rows / (seconds + self._overhead_s(seconds))) for rows, seconds in short]
        best = max(rate for _, rate in rates)
        rows, rate = next((rows, rate) for rows, rate in rates if rate >= _NEAR_BEST * best)
        self._reasons["max_batch_size"] = f"measured: {_per_s(rate)} rows/s a core, larger batches gain nothing"
        if short != profile:
            self._reasons["max_batch_size"] += f" within {LONG_BATCH_S * 1e3:g} ms"
        elif rows == profile[-1][0]:
            self._reasons["max_batch_size"] = f"measured: {_per_s(rate)} rows/s a core; larger was not tried"
        return rows

    def _configured(self, name: str) -> str:
        origin = self._wishes.origins.get(name)
        return f"as configured ({origin})" if origin else "as configured"

    def _overhead_s(self, run_s: float) -> float:
        on_loop = run_s <= self._inline_limit_s
        return _OVERHEAD_ON_LOOP_S if on_loop else _OVERHEAD_ON_THREAD * self._handover_s

    # -- how are the cores split? -----------------------------------------------------------------------------

    def _choose_split(
        self, signature: Signature, sample: Tensors, profile: list[tuple[int, float]], max_rows: int
    ) -> tuple[int, int]:
        wishes = self._wishes
        longest = dict(profile).get(max_rows, profile[-1][1])
        if wishes.instances or wishes.threads:
            threads = wishes.threads or max(1, self._cores // (wishes.instances or 1))
            on_loop = threads == 1 and longest <= self._inline_limit_s
            count = wishes.instances or (1 if on_loop else max(1, self._cores // threads))
            self._reasons["instances"] = self._configured("instances")
            self._reasons["threads"] = self._configured("threads")
            if count * threads > self._cores:
                self._reasons["threads"] += f": {count} x {threads} is more than the {self._cores} cores"
            return count, threads
        if self._cores == 1:
            return self._because(1, 1, "one core")
        if longest <= self._inline_limit_s:
            return self._because(1, 1, f"a batch takes {longest * 1e6:.0f} us: it runs on the event loop")
        if longest > _TOO_LONG_TO_COMPARE_S:
            return self._because(1, self._cores, f"not measured: a batch takes {longest:.1f} s on one core")
        return self._measure_splits(signature, sample, max_rows, profile[0][1])

    def _measure_splits(self, signature: Signature, sample: Tensors, max_rows: int, single_s: float) -> tuple[int, int]:
        one = examples.repeated(sample, 1) if signature.batched else sample
        full = examples.repeated(sample, max_rows) if signature.batched else sample
        # At least this long, whatever the budget: the choice matters more than a tenth of a second.
        until = max(self._until, time.monotonic() + 0.25)
        measured: list[tuple[float, float, int, int]] = []
        for threads in _threads_to_try(self._cores):
            count = self._cores // threads
            if measured and time.monotonic() > until:
                break
            instances = self._loaded.instances(count, threads)
            latency_s = single_s if threads == 1 else typical_run_s(partial(instances[0].run, one), until)
            rate = max_rows * concurrent_rate(instances, full)
            measured.append((rate, latency_s, count, threads))
        measured.sort(key=lambda split: split[3])
        best = max(rate for rate, *_ in measured)
        near = [split for split in measured if split[0] >= _SPLIT_NEAR_BEST * best]
        rate, latency_s, count, threads = near[0]
        for other in near[1:]:
            if other[1] < _CLEARLY_SHORTER * latency_s:
                rate, latency_s, count, threads = other
        others = ", ".join(
            f"{c} x {t}: {_per_s(r)} rows/s, {s * 1e3:.2f} ms alone"
            for r, s, c, t in measured
            if (c, t) != (count, threads)
        )
        why = f"measured: {_per_s(rate)} rows/s, {latency_s * 1e3:.2f} ms alone"
        return self._because(count, threads, f"{why} ({others})" if others else why)

    def _because(self, count: int, threads: int, why: str) -> tuple[int, int]:
        self._reasons["instances"] = why
        self._reasons["threads"] = f"{count} x {threads} <= {self._cores} cores"
        return count, threads


def _seen(spec: TensorSpec, output: Array, batched: bool, labels: tuple[str, ...]) -> TensorSpec:
    """The spec with the rank and sizes seen, where the file leaves them open."""
    if len(spec.shape) != output.ndim:
        spec = replace(spec, shape=(-1,) * output.ndim)
    if batched:
        spec = _open_rows(spec)
    if labels:
        first = -1 if batched else output.shape[0]
        spec = replace(spec, shape=(first, *output.shape[1:]), labels=labels)
    return spec


def _open_rows(spec: TensorSpec) -> TensorSpec:
    return replace(spec, shape=(-1, *spec.shape[1:]))


def _why_unbatched(signature: Signature) -> str:
    first = {spec.shape[0] if spec.shape else None for spec in (*signature.inputs, *signature.outputs)}
    size = first.pop() if len(first) == 1 else None
    if size is not None and size > 1:
        return f"off: the batch dimension is fixed at {size}"
    return "off: the model has no batch dimension"


def _scaled(known: list[tuple[int, float]], measured: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """`measured`, and for the sizes that there was no time for, `known` in proportion."""
    rows, seconds = measured[-1]
    ratio = seconds / dict(known)[rows] if rows in dict(known) else 1.0
    return [*measured, *((size, ratio * taken) for size, taken in known if size > rows)]


def _between(known: list[tuple[int, float]], measured: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """`measured` at both ends, and between them `known` in the proportion of the last."""
    ratio = measured[-1][1] / known[-1][1] if known[-1][1] else 1.0
    inside = [(rows, ratio * seconds) for rows, seconds in known if measured[0][0] < rows < measured[-1][0]]
    return sorted([*measured, *inside])


def _equal(datatype: DataType, one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    if datatype is DataType.BF16:
        one, other = bf16_to_float32(one), bf16_to_float32(other)
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, equal_nan=True, **_TOLERANCE))
    return bool(np.array_equal(one, other))


def _threads_to_try(cores: int) -> list[int]:
    """Threads per instance: 1 and all cores, then 2, 4, ... while there is time."""
    between = [1 << exponent for exponent in range(1, cores.bit_length()) if 1 << exponent < cores]
    return [1, cores, *between]


def _per_s(rate: float) -> str:
    return f"{rate / 1000:.1f}k" if rate >= 1000 else f"{rate:.0f}"


__all__ = ["Prepared", "Wishes", "prepare"]
