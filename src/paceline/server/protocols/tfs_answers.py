"""Answers of TensorFlow Serving's REST API: the outputs of one signature to JSON.

Rules:
- A single output stands bare, several are objects by name.
- Row format takes the outputs apart along axis 0, which all must have, equally long.
- Strings of an output whose name ends in `_bytes` are written as `{"b64": "..."}`, all others as text.
"""

from __future__ import annotations

import base64
from typing import Any

from paceline.core.errors import InvalidRequest
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec, bf16_to_float32
from paceline.server.json_tensors import dumps, elements, to_json


class Answers:
    """Writes answers of one signature.

    Args:
        nonfinite: `error`, `null` or `string`; `bare` writes the tokens NaN and Infinity.
    """

    def __init__(self, signature: Signature, nonfinite: str) -> None:
        self.signature = signature
        self._nonfinite = nonfinite

    def rows(self, outputs: Tensors) -> bytes:
        """The answer to a request in row format.

        Raises:
            InvalidRequest: the outputs have no common axis 0.
        """
        specs = self.signature.outputs
        if not self.signature.batched:
            _check_axis_0(specs, outputs)
        if len(outputs) == 1:
            return dumps({"predictions": self._shown(outputs[0], specs[0])})
        names = [spec.name for spec in specs]
        rows = zip(*map(self._rows, outputs, specs), strict=True)
        return dumps({"predictions": [dict(zip(names, row, strict=True)) for row in rows]})

    def columns(self, outputs: Tensors) -> bytes:
        """The answer to a request in columnar format."""
        specs = self.signature.outputs
        if len(outputs) == 1:
            return dumps({"outputs": self._shown(outputs[0], specs[0])})
        shown = {spec.name: self._shown(output, spec) for spec, output in zip(specs, outputs, strict=True)}
        return dumps({"outputs": shown})

    def classification(self, outputs: Tensors, scores: int, labels: int | None) -> bytes:
        """The answer to a classification.

        Args:
            outputs: of the model.
            scores: index of the output with a score per class.
            labels: index of the output that names the classes, where the scores' columns have no names.
        """
        spec, output = self.signature.outputs[scores], outputs[scores]
        width = output.shape[1]
        flat = self._rows(output.reshape(-1), spec)
        if labels is None:
            names: list[str] = list(spec.labels or [""] * width) * output.shape[0]
        else:
            names = to_json(outputs[labels].reshape(-1))
        pairs = list(zip(names, flat, strict=True))
        return dumps({"results": [pairs[row * width : (row + 1) * width] for row in range(output.shape[0])]})

    def regression(self, outputs: Tensors, index: int) -> bytes:
        """The answer to a regression: one number per example."""
        return dumps({"results": self._shown(outputs[index].reshape(-1), self.signature.outputs[index])})

    def _shown(self, output: Array, spec: TensorSpec) -> Any:
        """What `dumps` writes for a whole output."""
        if spec.datatype is DataType.BYTES:
            return _strings(output, spec)
        return to_json(_numbers(output, spec), self._nonfinite)

    def _rows(self, output: Array, spec: TensorSpec) -> list[Any]:
        """The same, row by row."""
        if spec.datatype is DataType.BYTES:
            return list(_strings(output, spec))
        return elements(_numbers(output, spec), self._nonfinite)


def classified_by(signature: Signature, model: str) -> tuple[int, int | None]:
    """Indexes of the scores, and of the labels where those are an output of their own.

    Raises:
        InvalidRequest: no output is of that kind.
    """
    names = {spec.name: index for index, spec in enumerate(signature.outputs)}
    for index, spec in enumerate(signature.outputs):
        if spec.labels and signature.batched:
            return index, None
    scores, classes = names.get("scores"), names.get("classes")
    if signature.batched and scores is not None and _is_matrix_of_floats(signature.outputs[scores]):
        if classes is None:
            return scores, None
        if signature.outputs[classes].datatype is DataType.BYTES and len(signature.outputs[classes].shape) == 2:
            return scores, classes
    raise InvalidRequest(
        f"model '{model}' has no classification signature: one output with a named column per class, "
        "or 'scores' (and 'classes'), is needed; use :predict",
        model=model,
    )


def regressed_by(signature: Signature, model: str) -> int:
    """Index of the output that holds one number a row.

    Raises:
        InvalidRequest: no output is of that kind.
    """
    outputs = signature.outputs
    index = next((i for i, spec in enumerate(outputs) if spec.name == "outputs"), 0)
    spec = outputs[index]
    one_a_row = len(spec.shape) == 1 or (len(spec.shape) == 2 and spec.shape[1] == 1)
    alone = len(outputs) == 1 or spec.name == "outputs"
    if signature.batched and alone and one_a_row and spec.datatype.is_float:
        return index
    raise InvalidRequest(
        f"model '{model}' has no regression signature: one output with a single number per row is needed; use :predict",
        model=model,
    )


def _is_matrix_of_floats(spec: TensorSpec) -> bool:
    return spec.datatype.is_float and len(spec.shape) == 2


def _strings(output: Array, spec: TensorSpec) -> Any:
    if not spec.name.endswith("_bytes"):
        return to_json(output)
    return _packed(output.tolist())


def _packed(item: Any) -> Any:
    if isinstance(item, list):
        return [_packed(each) for each in item]
    raw = item if isinstance(item, bytes) else item.encode()
    return {"b64": base64.b64encode(raw).decode("ascii")}


def _numbers(output: Array, spec: TensorSpec) -> Array:
    return bf16_to_float32(output) if spec.datatype is DataType.BF16 else output


def _check_axis_0(specs: tuple[TensorSpec, ...], outputs: Tensors) -> None:
    sizes = [output.shape[0] if output.ndim else None for output in outputs]
    for spec, size in zip(specs, sizes, strict=True):
        if size is None:
            raise InvalidRequest(
                f"Tensor name: {spec.name} has no shape information: send 'inputs' in place of 'instances'"
            )
        if size != sizes[0]:
            raise InvalidRequest(
                f"Tensor name: {spec.name} has inconsistent batch size: {size} expecting batch size: {sizes[0]}"
            )
