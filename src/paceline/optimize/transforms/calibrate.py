"""What happens inside of a model on the calibration rows? The ranges of its tensors, or the tensors themselves.

Rules:
- Rows are fed as they are, in the types that the model declares. Nothing is made up: ranges of noise are not those of
  data.
- Rows that say nothing of ranges are refused.
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
from paceline.optimize.data.matching import uncalibrated
from paceline.optimize.data.rows import Rows
from paceline.optimize.quiet import quiet
from paceline.optimize.transforms.onnx_files import is_large, save
from paceline.optimize.transforms.onnx_graph import copy, inputs
from paceline.runtimes.onnx_session import open_session, session_options

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
    if reason := uncalibrated(rows):
        raise CannotChange(reason)
    declared = {each.name: each.type.tensor_type for each in inputs(model.graph)}
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
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    options = {"percentile": percentile, "symmetric": False} if method == "percentile" else {}
    with quiet(), TemporaryDirectory() as work:
        calibrator = create_calibrator(
            Path(work, save(copy(model), Path(work))),
            list(operators),
            augmented_model_path=f"{work}/augmented.onnx",
            calibrate_method=CalibrationMethod[_METHODS[method]],
            use_external_data_format=is_large(model),
            extra_options=options,
        )
        for batch in batches:
            calibrator.collect_data(OneBatch(batch))
        return calibrator.compute_data()


def inside(model: Any, tensors: Collection[str], batches: Sequence[Feed]) -> Iterator[dict[str, Array]]:
    """Run batches, and give the tensors of that name inside of the model.

    Args:
        model: an `onnx.ModelProto` with its weights.
        tensors: names; outputs of nodes, or inputs of the model.
    """
    import onnx

    opened = copy(model)
    given = {each.name for each in model.graph.input}
    # Only what is asked for: the model's own outputs may hang on nodes that cost time.
    del opened.graph.output[:]
    wanted = sorted(set(tensors) - given)
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    running = open_session(opened.SerializeToString(), session_options("basic")) if wanted else None
    for batch in batches:
        found = {name: batch[name] for name in set(tensors) & given}
        if running is not None:
            found.update(zip(wanted, running.run(wanted, batch), strict=True))
        yield found


def answers(model: Any, batches: Sequence[Feed]) -> dict[str, Array]:
    """The outputs that are numbers with a fraction, over all batches."""
    from onnx import TensorProto

    fractions = (TensorProto.FLOAT, TensorProto.DOUBLE)
    names = [each.name for each in model.graph.output if each.type.tensor_type.elem_type in fractions]
    if not names:
        raise CannotChange("no output is a number with a fraction, so there is no error to look at")
    runs = list(inside(model, names, batches))
    return {name: np.concatenate([run[name] for run in runs]) for name in names}


def _batch(specs: Collection[Any], count: int) -> int:
    """Rows of a batch: as many as the file fixes, or what is handy."""
    fixed = [spec.shape.dim[0].dim_value for spec in specs if spec.shape.dim]
    return max([*fixed, 0]) or min(_BATCH_ROWS, count)


def _typed(array: Array, spec: Any) -> Array:
    from onnx import TensorProto, helper

    if spec.elem_type == TensorProto.STRING:
        return array.astype(object)
    return array.astype(helper.tensor_dtype_to_np_dtype(spec.elem_type), copy=False)
