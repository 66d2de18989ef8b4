"""What happens inside of a model on the calibration rows? The ranges of its tensors, or the tensors themselves.

Rules:
- Rows are fed as they are, in the types that the model declares. Nothing is made up: ranges of noise are not those of
  data.
- Rows that are constant, not numbers, or a single one say nothing of ranges: they are refused.
- One batch is in memory at a time, with what comes of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import numpy as np

from paceline.core.errors import CannotChange
from paceline.core.tensors import Array
from paceline.optimize.rows import Rows
from paceline.optimize.transforms.prepare import is_large, quiet

Method = Literal["minmax", "entropy", "percentile"]
Feed = dict[str, Array]

_BATCH_ROWS: Final = 32
_METHODS: Final[Mapping[Method, str]] = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


class OneBatch:
    """A batch, as ONNX Runtime's calibration takes its data: by `get_next`, which ends with None."""

    def __init__(self, feed: Feed) -> None:
        self._left = [feed]

    def get_next(self) -> Feed | None:
        """The batch, once."""
        return self._left.pop() if self._left else None


def feeds(model: Any, rows: Rows, most: int) -> list[Feed]:
    """Batches of rows, as a session takes them.

    Args:
        model: an `onnx.ModelProto`, with or without its weights.
        most: rows that are used; the first ones.

    Raises:
        CannotChange: the rows do not do for calibration, or lack an input.
    """
    _check(rows)
    declared = _inputs(model)
    missing = sorted(set(declared) - set(rows.inputs))
    if missing:
        raise CannotChange(f"the rows lack the input '{missing[0]}', so nothing is known of the ranges of numbers")
    count = min(rows.count, most)
    batch = _batch(declared.values(), count)
    if batch > count:
        raise CannotChange(f"the model takes {batch} rows at a time, and there are {count} calibration rows")
    typed = {name: _typed(rows.inputs[name][:count], spec) for name, spec in declared.items()}
    # All batches are equal in size: what is left over is not fed, for the collectors want arrays of one shape.
    return [
        {name: np.ascontiguousarray(array[start : start + batch]) for name, array in typed.items()}
        for start in range(0, count - batch + 1, batch)
    ]


def ranges(
    model: Any, batches: Sequence[Feed], method: Method, operators: Sequence[str], *, percentile: float = 99.99
) -> Any:
    """Find the range of each tensor around the operators that are to be quantized.

    Args:
        model: an `onnx.ModelProto` with its weights.
        method: `minmax`: from the least to the largest number seen; `entropy`: the range that loses the least
            information, by Kullback-Leibler divergence; `percentile`: without the largest numbers.
        percentile: the share of numbers inside of the range, in percent, for that method.

    Returns:
        ONNX Runtime's `TensorsData`.
    """
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    options = {"percentile": percentile, "symmetric": False} if method == "percentile" else {}
    large = is_large(model)
    with quiet(), TemporaryDirectory() as work:
        onnx.save(_copy(model), f"{work}/model.onnx", save_as_external_data=large)
        calibrator = create_calibrator(
            Path(work, "model.onnx"),
            list(operators),
            augmented_model_path=f"{work}/augmented.onnx",
            calibrate_method=CalibrationMethod[_METHODS[method]],
            use_external_data_format=large,
            extra_options=options,
        )
        for batch in batches:
            calibrator.collect_data(OneBatch(batch))
        return calibrator.compute_data()


def session(model: Any) -> Any:
    """An ONNX Runtime session of a model in memory."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def inside(model: Any, tensors: Collection[str], batches: Sequence[Feed]) -> Iterator[dict[str, Array]]:
    """Run batches, and give the tensors of that name inside of the model.

    Args:
        model: an `onnx.ModelProto` with its weights.
        tensors: names; outputs of nodes, or inputs of the model.
    """
    import onnx

    opened = _copy(model)
    given = {each.name for each in model.graph.input}
    # Only what is asked for: the model's own outputs may hang on nodes that cost time.
    del opened.graph.output[:]
    wanted = sorted(set(tensors) - given)
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    running = session(opened) if wanted else None
    for batch in batches:
        found = {name: batch[name] for name in set(tensors) & given}
        if running is not None:
            found.update(zip(wanted, running.run(wanted, batch), strict=True))
        yield found


def answers(model: Any, batches: Sequence[Feed]) -> dict[str, Array]:
    """The outputs that are numbers with a fraction, over all batches."""
    running = session(model)
    names = [node.name for node in running.get_outputs() if node.type in ("tensor(float)", "tensor(double)")]
    if not names:
        raise CannotChange("no output is a number with a fraction, so there is no error to look at")
    runs = [running.run(names, batch) for batch in batches]
    return {name: np.concatenate([run[index] for run in runs]) for index, name in enumerate(names)}


def _copy(model: Any) -> Any:
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _check(rows: Rows) -> None:
    if rows.count < 2:
        raise CannotChange(f"ranges of numbers need more than {rows.count} calibration row")
    for name, array in rows.inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).any():
            raise CannotChange(f"the calibration rows of '{name}' hold no finite number")
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise CannotChange(f"the calibration rows of '{name}' hold NaN: ranges cannot be taken from them")
    if all(bool((array == array[:1]).all()) for array in rows.inputs.values()):
        raise CannotChange("the calibration rows are all the same: ranges cannot be taken from them")


def _inputs(model: Any) -> dict[str, Any]:
    fixed = {each.name for each in model.graph.initializer}
    return {each.name: each.type.tensor_type for each in model.graph.input if each.name not in fixed}


def _batch(specs: Collection[Any], count: int) -> int:
    """Rows of a batch: as many as the file fixes, or what is handy."""
    fixed = [spec.shape.dim[0].dim_value for spec in specs if spec.shape.dim]
    return max([*fixed, 0]) or min(_BATCH_ROWS, count)


def _typed(array: Array, spec: Any) -> Array:
    from onnx import TensorProto, helper

    if spec.elem_type == TensorProto.STRING:
        return array.astype(object)
    return array.astype(helper.tensor_dtype_to_np_dtype(spec.elem_type), copy=False)
