"""The process that holds one candidate: `python -m paceline.optimize.processes.predictor_child`. See `predictor.py`.

Rules:
- Rows are brought into the types and shapes of the signature before anything is timed: serving does that while it
  decodes a request.
- A moment in which the machine did something else must not be all that is known: there are several runs, unless each
  takes long.
- Runs that are timed go through the rows: a model whose time depends on its input is not timed on one of them.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import ModelFailed, PacelineError, named_line
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec, bf16_to_float32
from paceline.engine.examples import to_bf16
from paceline.optimize.data import items
from paceline.optimize.data.rows import Rows
from paceline.optimize.processes.predictor import Answer, Asked, Loaded, Loading, fixed_batch, tensors_of
from paceline.optimize.processes.process import Line
from paceline.runtimes.base import load
from paceline.runtimes.formats import identify
from paceline.workers.service import Options, ServiceModel, Source, is_service

_MOST_WINDOWS: Final = 256
_WARMUP_RUNS: Final = 2
_WARMUP_S: Final = 0.1
_LEAST_RUNS: Final = 7
_PATIENCE: Final = 4.0


class Candidate:
    """A loaded model, and what runs a batch of it."""

    def __init__(self, loading: Loading) -> None:
        path = Path(loading.model)
        runtime = loading.options.runtime
        self.run: Callable[[Tensors], Tensors]
        if runtime is None and (is_service(path) or identify(path).runtime is None):
            options = Options(setup_timeout_s=loading.timeout_s, allow_pickle=loading.allow_pickle, nonfinite="null")
            service = ServiceModel(Source.parse(path), path.name, options)
            worker = service.worker(loading.threads)
            self.run = partial(worker.run, timeout_s=loading.timeout_s)
            self.signature, self.platform = service.signature_of(worker), service.platform
        else:
            loaded = load(path, loading.options)
            self.run = loaded.instances(1, loading.threads)[0].run
            self.signature, self.platform = loaded.signature, loaded.platform
        self._warm: set[tuple[str, int]] = set()

    def predict(self, asked: Asked) -> None:
        """Write the outputs for all rows."""
        inputs = self._inputs(asked.rows)
        count = len(inputs[0])
        parts = [self._run(_window(inputs, start, min(asked.batch, count - start))) for start in
                 range(0, count, asked.batch)]  # fmt: skip
        joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
        np.savez(asked.outputs, **_named(self.signature, joined))  # type: ignore[arg-type]

    def time(self, asked: Asked) -> list[float]:
        """Seconds of each run."""
        windows = list(_windows(self._inputs(asked.rows), asked.batch))
        if (asked.rows, asked.batch) not in self._warm:
            self._warm.add((asked.rows, asked.batch))
            self._timed(windows, _WARMUP_S, _WARMUP_RUNS)
        gc.collect()
        gc.disable()
        try:
            return self._timed(windows, asked.seconds, _LEAST_RUNS)
        finally:
            gc.enable()

    def _timed(self, windows: list[Tensors], seconds: float, least: int) -> list[float]:
        times: list[float] = []
        until = time.perf_counter() + seconds
        latest = until + (_PATIENCE - 1) * seconds
        for window in cycle(windows):
            began = time.perf_counter()
            self._run(window)
            ended = time.perf_counter()
            times.append(ended - began)
            if ended >= until and (len(times) >= least or ended >= latest):
                break
        return times

    def _run(self, inputs: Tensors) -> Tensors:
        """A batch; a model that takes a fixed number of rows runs as often as that needs."""
        fixed = fixed_batch(self.signature)
        if fixed is None or len(inputs[0]) == fixed:
            return self.run(inputs)
        parts = []
        for start in range(0, len(inputs[0]), fixed):
            rows = min(fixed, len(inputs[0]) - start)
            padded = tuple(np.resize(each[start : start + rows], (fixed, *each.shape[1:])) for each in inputs)
            parts.append([output[:rows] for output in self.run(padded)])
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))

    @lru_cache(maxsize=4)  # noqa: B019  # there is one candidate, as long as the process
    def _inputs(self, rows: str) -> Tensors:
        found = Rows.load(Path(rows)).inputs
        if self.signature.items:
            return (items.items(found),)
        named = {spec.name: _fitted(found[spec.name], spec) for spec in self.signature.inputs if spec.name in found}
        return _open(self.signature).bind(named)


def _open(signature: Signature) -> Signature:
    """With any number of rows, also where the model always takes the same."""
    inputs = [TensorSpec(each.name, each.datatype, (-1, *each.shape[1:])) for each in signature.inputs if each.shape]
    whole = signature.batched and len(inputs) == len(signature.inputs)
    return Signature(tuple(inputs), signature.outputs, batched=True) if whole else signature


def _window(inputs: Tensors, start: int, rows: int) -> Tensors:
    return tuple(np.ascontiguousarray(each[start : start + rows]) for each in inputs)


def _windows(inputs: Tensors, batch: int) -> Iterator[Tensors]:
    """Batches that go through the rows; of too few rows, one that repeats them."""
    count = len(inputs[0])
    if count < batch:
        yield tuple(np.ascontiguousarray(np.resize(each, (batch, *each.shape[1:]))) for each in inputs)
        return
    for start in range(0, min(count - batch + 1, batch * _MOST_WINDOWS), batch):
        yield _window(inputs, start, batch)


def _fitted(array: Array, spec: TensorSpec) -> Array:
    """In the type of an input; a column [rows] for [rows, 1], and the other way round."""
    if array.ndim + 1 == len(spec.shape) and spec.shape[-1] in (1, -1):
        array = array[..., None]
    elif array.ndim == len(spec.shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if spec.datatype is DataType.BYTES:
        return array.astype(object)
    if spec.datatype is DataType.BF16 and array.dtype.kind == "f":
        return to_bf16(array)
    return np.asarray(array, spec.datatype.dtype, order="C")


def _named(signature: Signature, outputs: list[Array]) -> dict[str, Array]:
    if signature.items:
        return items.outputs(outputs[0].tolist())
    return {spec.name: _plain(each, spec) for spec, each in zip(signature.outputs, outputs, strict=True)}


def _plain(array: Array, spec: TensorSpec) -> Array:
    """As a file holds it: text of a fixed width, numbers of numpy's own types."""
    if spec.datatype is DataType.BF16 and array.dtype == DataType.BF16.dtype:
        return bf16_to_float32(array)
    return items.texts(array) if array.dtype.kind in "OS" else array


def _answered(candidate: Candidate, asked: Asked) -> Answer:
    try:
        if not asked.outputs:
            return Answer(times_s=candidate.time(asked))
        candidate.predict(asked)
    except Exception as error:  # user code, and runtimes, may raise anything
        return _failure(error)
    return Answer()


def _failure(error: BaseException) -> Answer:
    traceback.print_exc()
    if isinstance(error, ModelFailed) and error.detail:
        words = error.detail.strip().splitlines()[-1]
        return Answer(error=type(error).__name__, message=f"{error.message}: {words}")
    if isinstance(error, PacelineError):
        return Answer(error=type(error).__name__, message=error.message, hint=error.hint)
    return Answer(error="StepFailed", message=named_line(error))


def main() -> None:
    """Load, say so, and answer until the other side goes."""
    line = Line.inherited()
    try:
        candidate = Candidate(msgspec.json.decode(sys.argv[1], type=Loading))
    except BaseException as error:
        line.send(_failure(error))
        return
    signature = candidate.signature
    tensors: Any = tensors_of(signature)
    about = Loaded(candidate.platform, **tensors, batched=signature.batched, items=signature.items)
    line.send(Answer(loaded=about))
    while (document := line.receive()) is not None:
        line.send(_answered(candidate, msgspec.convert(document, Asked)))


if __name__ == "__main__":
    main()
