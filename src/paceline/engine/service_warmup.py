"""Which settings does a service want on this machine?

Rules:
- One worker for each core, each with one thread, unless the operator says otherwise: user code in Python or R computes
  on one core. `threads x instances <= cores`.
- With examples, service times are measured at 1, 2, 4, ... rows, as for any model; without, they are learned from the
  requests.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from paceline.core.errors import ModelLoadError, PacelineError
from paceline.core.tensors import Signature, Tensors
from paceline.engine import examples
from paceline.engine.timing import typical_run_s
from paceline.engine.warmup import Prepared, Wishes
from paceline.workers.service import ServiceModel
from paceline.workers.worker import Worker

_MOST_ROWS = 64
_UNKNOWN_S = 1e-3
_NEAR_BEST = 0.97


@dataclass(frozen=True, kw_only=True)
class PreparedService(Prepared):
    """A service ready to serve."""

    service: ServiceModel
    workers: list[Worker]


def prepare_service(service: ServiceModel, cores: int, wishes: Wishes, given: Tensors | None) -> PreparedService:
    """Start the workers of a service and choose its settings. Blocks; call it on a thread.

    Args:
        cores: whole cores that this process may use.
        given: example inputs of the operator.

    Raises:
        ModelLoadError, RuntimeUnavailable: the code cannot be initialised.
        ModelFailed: it does not accept its own examples.
    """
    reasons: dict[str, str] = {}
    count, threads = _split(cores, wishes, reasons)
    workers = _started(service, count, threads)
    try:
        return _measured(service, workers, threads, wishes, given, reasons)
    except BaseException:
        for worker in workers:
            worker.stop()
        raise


def _measured(
    service: ServiceModel,
    workers: list[Worker],
    threads: int,
    wishes: Wishes,
    given: Tensors | None,
    reasons: dict[str, str],
) -> PreparedService:
    signature = service.signature_of(workers[0])
    sample = given if given is not None else _own_examples(signature, workers[0])
    most = wishes.max_batch_rows or service.about.max_batch_rows or _MOST_ROWS
    profile = [(1, _UNKNOWN_S)]
    example: Tensors = ()
    if service.about.streams or not sample:
        reasons["max_batch_size"] = "not measured: there is no example (`example()`, or --examples FILE)"
        empty: Tensors = (np.empty(0, object),)
    else:
        for worker in workers[1:]:
            worker.run(sample)
        outputs = workers[0].run(sample)
        signature = _filled_in(signature, outputs)
        empty = tuple(output[:0] for output in outputs)
        example = tuple(array[:1] for array in sample)
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
    )


def _split(cores: int, wishes: Wishes, reasons: dict[str, str]) -> tuple[int, int]:
    threads = wishes.threads or (max(1, cores // wishes.instances) if wishes.instances else 1)
    count = wishes.instances or max(1, cores // threads)
    reasons["instances"] = "as configured" if wishes.instances else "a process for each core"
    reasons["threads"] = f"{count} x {threads} <= {cores} cores"
    if count * threads > cores:
        reasons["threads"] = f"as configured: {count} x {threads} is more than the {cores} cores"
    return count, threads


def _started(service: ServiceModel, count: int, threads: int) -> list[Worker]:
    """Several at once: each may take seconds to initialise."""
    with ThreadPoolExecutor(count) as starters:
        starting = [starters.submit(service.worker, threads) for _ in range(count)]
    problems = [each.exception() for each in starting]
    workers = [each.result() for each, problem in zip(starting, problems, strict=True) if problem is None]
    problem = next((each for each in problems if each is not None), None)
    if problem is not None:
        for worker in workers:
            worker.stop()
        raise problem if isinstance(problem, PacelineError) else ModelLoadError(f"{service.model}: {problem}")
    return workers


def _own_examples(signature: Signature, worker: Worker) -> Tensors:
    """What the code's `example()` gave; synthetic rows for tensors without open sizes."""
    if signature.items:
        items = worker.readiness.examples
        column = np.empty(len(items), object)
        column[:] = [bytes(item) for item in items]
        return (column,) if items else ()
    return next(examples.synthetic(signature, 3))


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
