"""Runs one batch on an instance and judges what came out; on whichever thread it is called."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paceline.core.errors import InternalError, ModelFailed, PacelineError
from paceline.core.tensors import Array, DataType, Signature, Tensors
from paceline.runtimes.base import Instance
from paceline.scheduling import Batch

# All of these bits are set in NaN and infinity, and in no other number.
_BF16_EXPONENT = np.uint16(0x7F80)


@dataclass(slots=True)
class Result:
    """What came of a batch: outputs, or an error.

    Attributes:
        suspicious: an output may hold NaN or infinity.
        run_s: seconds in the runtime; `service_s` also holds the way to the thread and back.
    """

    outputs: Tensors = ()
    error: PacelineError | None = None
    suspicious: bool = False
    run_s: float = 0.0
    service_s: float = 0.0


class BatchRunner:
    """Runs the batches of one model.

    Args:
        check_finite: look for outputs that are not finite.
    """

    def __init__(self, model: str, instances: Sequence[Instance], signature: Signature, *, check_finite: bool) -> None:
        self._model = model
        self._instances = instances
        self._signature = signature
        self._check_finite = check_finite and any(spec.datatype.is_float for spec in signature.outputs)
        self._is_bf16 = [spec.datatype is DataType.BF16 for spec in signature.outputs]

    def run(self, batch: Batch) -> Result:
        """Run a batch. Whatever the model raises becomes the result's error."""
        started = time.monotonic()
        result = Result()
        try:
            outputs = self._instances[batch.instance].run(joined([request.inputs for request in batch.requests]))
            self._judge(outputs, batch.rows, result)
        except PacelineError as error:
            result.error = _without_frames(error)
        except Exception as error:
            result.error = InternalError(f"{type(error).__name__}: {error}", model=self._model)
        result.run_s = time.monotonic() - started
        return result

    def judged(self, outcome: Tensors | PacelineError, batch: Batch) -> Result:
        """The result of a batch that has run elsewhere."""
        result = Result()
        try:
            if isinstance(outcome, PacelineError):
                raise outcome
            self._judge(outcome, batch.rows, result)
        except PacelineError as error:
            result.error = _without_frames(error)
        except Exception as error:
            result.error = InternalError(f"{type(error).__name__}: {error}", model=self._model)
        result.run_s = time.monotonic() - batch.started
        return result

    def all_finite(self, outputs: Tensors) -> bool:
        """True when no output holds NaN or infinity."""
        return all(map(_all_finite, outputs, self._is_bf16))

    def _judge(self, outputs: Tensors, rows: int, result: Result) -> None:
        self._check_rows(outputs, rows)
        result.suspicious = self._check_finite and not all(map(_surely_finite, outputs, self._is_bf16))
        result.outputs = outputs

    def _check_rows(self, outputs: Tensors, rows: int) -> None:
        if not self._signature.batched:
            return
        for spec, output in zip(self._signature.outputs, outputs, strict=True):
            if output.ndim == 0 or output.shape[0] != rows:
                got = output.shape[0] if output.ndim else "a scalar"
                raise ModelFailed(
                    f"output '{spec.name}': expected {rows} rows, got {got}",
                    code="bad_model_output",
                    model=self._model,
                )


def joined(pieces: Sequence[Tensors]) -> Tensors:
    """The inputs of several requests, joined along axis 0."""
    if len(pieces) == 1:
        return pieces[0]
    return tuple([np.concatenate(column) for column in zip(*pieces, strict=True)])


def _without_frames(error: PacelineError) -> PacelineError:
    """`error` without the frames it passed: they hold the inputs of the whole batch, and one of them `error` itself."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _all_finite(array: Array, is_bf16: bool) -> bool:
    if is_bf16:
        return not bool(((array & _BF16_EXPONENT) == _BF16_EXPONENT).any())
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _surely_finite(array: Array, is_bf16: bool) -> bool:
    """False when `array` may hold NaN or infinity.

    The dot product with itself reads the memory once, at half the cost of `isfinite(...).all()`; it may overflow
    where every element is finite, and then `all_finite` decides.
    """
    if is_bf16:
        return _all_finite(array, is_bf16)
    return array.dtype.kind != "f" or math.isfinite(np.vdot(array, array))
