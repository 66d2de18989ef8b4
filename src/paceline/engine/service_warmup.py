"""Which settings does a service want on this machine?

Rules:
- One worker for each core, each with one thread, unless the operator says otherwise: user code in Python or R computes
  on one core. `threads x instances <= cores`; whoever breaks the rule is told.
- Workers that do not compute but wait for one another, as for an accelerator that runs one batch at a time, are no
  faster for being many: each closes a batch that then waits for the others'. As many are kept as run at once.
- With examples, service times are measured at 1, 2, 4, ... rows, as for any model; without, they are learned from the
  requests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from paceline.core.errors import ModelFailed, ModelLoadError, PacelineError
from paceline.core.tensors import Signature, Tensors
from paceline.engine import examples
from paceline.engine.pool import Limits
from paceline.engine.timing import typical_run_s
from paceline.engine.warmup import Prepared, Wishes
from paceline.workers.launch import contradictions as contradictions_of
from paceline.workers.service import ServiceModel
from paceline.workers.worker import Worker

_MOST_ROWS = 64
_UNKNOWN_S = 1e-3
_NEAR_BEST = 0.97
_FIRST_RUN_S = 60.0
# Shorter runs end before their use of the processor shows, in ticks of 10 ms.
_LONG_RUN_S = 0.02
_COMPUTES = 0.5
_NOISE = 0.25


@dataclass(frozen=True, kw_only=True)
class PreparedService(Prepared):
    """A service ready to serve.

    Attributes:
        warnings: what the operator had better know, a line each.
    """

    service: ServiceModel
    workers: list[Worker]
    warnings: list[str]


def prepare_service(
    service: ServiceModel, cores: int, wishes: Wishes, given: Tensors | None, limits: Limits
) -> PreparedService:
    """Start the workers of a service and choose its settings. Blocks; call it on a thread.

    Args:
        cores: whole cores that this process may use.
        given: example inputs of the operator.
        limits: that its workers have to keep, from the start.

    Raises:
        ModelLoadError, RuntimeUnavailable: the code cannot be initialised.
        ModelFailed: it does not accept its own examples.
    """
    reasons: dict[str, str] = {}
    count, threads = _split(cores, wishes, reasons)
    workers: list[Worker] = []
    try:
        workers = _started(service, count, threads)
        prepared = _measured(service, workers, threads, wishes, given, reasons, limits.run_s)
        _check_memory(service, workers, limits)
    except BaseException:
        service.close()
        for worker in workers:
            worker.stop()
        raise
    prepared.warnings.extend(_warnings(service, len(workers), threads, cores))
    return prepared


def _measured(
    service: ServiceModel,
    workers: list[Worker],
    threads: int,
    wishes: Wishes,
    given: Tensors | None,
    reasons: dict[str, str],
    run_timeout_s: float,
) -> PreparedService:
    signature = service.signature_of(workers[0])
    sample = given if given is not None else _own_examples(signature, workers[0])
    most = wishes.max_batch_rows or service.about.max_batch_rows or _MOST_ROWS
    profile = [(1, _UNKNOWN_S)]
    example: Tensors = ()
    warnings: list[str] = []
    if not sample:
        reasons["max_batch_size"] = "not measured: there is no example (`example()`, or --examples FILE)"
        empty: Tensors = (np.empty(0, object),)
    else:
        if service.about.streams:
            sample = tuple(array[:1] for array in sample)
        # The first run may be by far the longest.
        patience_s = max(_FIRST_RUN_S, run_timeout_s)
        outputs = [_run(worker, sample, patience_s, warnings) for worker in workers]
        if not (wishes.instances or service.about.streams or service.about.lanes > 1):
            _keep_useful(workers, partial(_run, sample=sample, timeout_s=patience_s, warnings=[]), reasons)
        signature = _filled_in(signature, outputs[0])
        empty = tuple(output[:0] for output in outputs[0])
        example = tuple(array[:1] for array in sample)
        if not service.about.streams:
            profile, most = _profile(workers[0], sample, most, wishes.budget_s)
            reasons["max_batch_size"] = f"measured up to {profile[-1][0]} rows"
    if service.about.streams:
        most = 1
    for source, is_set in (
        (f"as configured ({wishes.origins.get('max_batch_size')})", wishes.max_batch_rows),
        ("as the code says", service.about.max_batch_rows),
    ):
        if is_set:
            reasons["max_batch_size"] = source
            break
    return PreparedService(
        signature=signature,
        instances=list(workers),
        threads=threads,
        max_batch_rows=most,
        profile=profile,
        inline_limit_s=0.0,
        example=example,
        empty_outputs=empty,
        reasons=reasons,
        wishes=wishes,
        lanes=service.about.lanes,
        service=service,
        workers=workers,
        warnings=warnings[:1],
    )


def _keep_useful(workers: list[Worker], run: Callable[[Worker], object], reasons: dict[str, str]) -> None:
    """Stop the workers that would only wait for others; those that compute are left to their cores."""
    alone_s = _seconds(lambda: run(workers[0]))
    if len(workers) < 2 or alone_s < _LONG_RUN_S:
        return
    computed_s = -sum(worker.cpu_s() for worker in workers)
    with ThreadPoolExecutor(len(workers)) as pool:
        together_s = _seconds(lambda: list(pool.map(run, workers)))
    computed_s += sum(worker.cpu_s() for worker in workers)
    if computed_s > _COMPUTES * len(workers) * alone_s:
        return
    at_once = len(workers) * alone_s / together_s
    kept = max(1, math.ceil(at_once - _NOISE))
    if kept < len(workers):
        reasons["instances"] = f"measured: of {len(workers)}, {at_once:.1f} run at once; they wait, and do not compute"
        for worker in workers[kept:]:
            worker.stop()
        del workers[kept:]


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _run(worker: Worker, sample: Tensors, timeout_s: float, warnings: list[str]) -> Tensors:
    """The outputs of the examples; adds a warning where one of them fails alone: what it needs may come later.

    Raises:
        ModelFailed: the code does not accept them.
    """
    try:
        outputs = worker.run(sample, timeout_s)
    except ModelFailed as error:
        error.message = f"it fails on its example: {error.message}"
        raise
    for row, each in enumerate(outputs[0].tolist() if outputs[0].dtype == object else ()):
        if isinstance(each, PacelineError):
            warnings.append(f"example {row} fails, and what was measured is of no use: {each.message}")
    return outputs


def _split(cores: int, wishes: Wishes, reasons: dict[str, str]) -> tuple[int, int]:
    threads = wishes.threads or (max(1, cores // wishes.instances) if wishes.instances else 1)
    count = wishes.instances or max(1, cores // threads)
    reasons["instances"] = "as configured" if wishes.instances else "a process for each core"
    reasons["threads"] = f"{count} x {threads} <= {cores} cores"
    if count * threads > cores:
        reasons["threads"] = f"as configured: {count} x {threads} is more than the {cores} cores"
    return count, threads


def _warnings(service: ServiceModel, count: int, threads: int, cores: int) -> list[str]:
    warnings = []
    if count * threads > cores:
        warnings.append(
            f"{count} instances x {threads} threads are more than the {cores} cores: they will wait for one another"
        )
    contradictions = contradictions_of(threads, service.options.env)
    if contradictions:
        warnings.append(
            f"{', '.join(contradictions)} in the environment, not threads={threads}, is what libraries read"
        )
    return warnings


def _check_memory(service: ServiceModel, workers: list[Worker], limits: Limits) -> None:
    """A worker that is too large from the start would be replaced for ever."""
    used = max(worker.memory_bytes() for worker in workers)
    if limits.memory_bytes is not None and used > limits.memory_bytes:
        raise ModelLoadError(
            f"{service.model}: a worker that has just been initialised takes {used >> 20} MiB, more than "
            f"worker_memory_mb={limits.memory_bytes >> 20}",
            hint="the limit is for what it takes on top of that by and by: set a higher one",
            model=service.model,
        )


def _started(service: ServiceModel, count: int, threads: int) -> list[Worker]:
    """Several at once: each may take seconds to initialise. When one cannot, the others need not go on."""
    with ThreadPoolExecutor(count) as starters:
        starting = [starters.submit(service.worker, threads) for _ in range(count)]
        wait(starting, return_when=FIRST_EXCEPTION)
        failed = next((each for each in starting if each.done() and each.exception() is not None), None)
        if failed is None:
            return [each.result() for each in starting]
        service.close()
    for each in starting:
        if each.exception() is None:
            each.result().stop()
    problem = failed.exception()
    raise problem if isinstance(problem, PacelineError) else ModelLoadError(f"{service.model}: {problem}")


def _own_examples(signature: Signature, worker: Worker) -> Tensors:
    """What the code's `example()` gave; synthetic rows for tensors that it says nothing of."""
    items = [bytes(item) for item in worker.readiness.examples]
    if items:
        return examples.from_items(items, signature)
    return () if signature.items else next(examples.synthetic(signature, 3))


def _filled_in(signature: Signature, outputs: Tensors) -> Signature:
    """With the ranks and sizes of the outputs seen, where the code leaves them open."""
    if signature.items or not signature.outputs:
        return signature
    specs = tuple(
        replace(spec, shape=(-1, *output.shape[1:])) for spec, output in zip(signature.outputs, outputs, strict=True)
    )
    return replace(signature, outputs=specs)


def _profile(worker: Worker, sample: Tensors, most: int, budget_s: float) -> tuple[list[tuple[int, float]], int]:
    """Measured (rows, seconds), and the smallest size that is near the best rate."""
    until = time.monotonic() + budget_s
    profile: list[tuple[int, float]] = []
    rows = 1
    while rows <= most and (not profile or time.monotonic() < until):
        profile.append((rows, typical_run_s(partial(worker.run, examples.repeated(sample, rows)), until)))
        rows *= 2
    if profile[-1][0] < most:
        return profile, most
    best = max(rows / seconds for rows, seconds in profile)
    chosen = next(rows for rows, seconds in profile if rows / seconds >= _NEAR_BEST * best)
    return [each for each in profile if each[0] <= chosen], chosen
