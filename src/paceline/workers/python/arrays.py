"""User code that takes tensors: numpy arrays in, numpy arrays out, and no JSON between.

What it takes is declared (`inputs = {"image": ("FP32", [-1, 3, 224, 224])}`), or read off the array that `example()`
returns: one row, without the batch axis.

Rules:
- One input is passed as it is, several by name. They are read-only, and valid until `predict` returns.
- Outputs are an array, a tuple of arrays, or a dict by name. Undeclared, they are what the first run returns.
- An output is cast to its datatype where that loses nothing but digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import BAD_OUTPUT, ModelFailed, ModelLoadError
from paceline.core.tensors import DATATYPES, Array, DataType, Tensors
from paceline.workers.frames import Readiness, Setup, Tensor
from paceline.workers.python import parameters
from paceline.workers.python.coded import Code
from paceline.workers.python.contract import Contract
from paceline.workers.python.items import ItemService
from paceline.workers.python.tracebacks import one_line
from paceline.workers.python.values import as_sequence, example_text

_OPEN_SIZES: Final = (8, 1, 32, 224)
_LABELS: Final = {
    datatype.dtype: datatype.label for datatype in DATATYPES.values() if datatype not in (DataType.BF16, DataType.BYTES)
}


class ArrayService(Code):
    """Code that declares its inputs."""

    def __init__(self, contract: Contract) -> None:
        about = contract.about(None)
        about.inputs = declared("inputs", contract.declared["inputs"])
        about.outputs = declared("outputs", contract.declared.get("outputs", {}))
        _check_names(contract, [each.name for each in about.inputs])
        super().__init__(contract, about)

    def setup_tensors(self, setup: Setup) -> Readiness:
        """Initialise; with what it returns where that is not declared."""
        parts = self.make_parts()
        example = parts["example"]() if "example" in parts else None
        self._call = TensorCall(self._predict, self.finished, self.about.inputs, self.about.outputs)
        return self._call.ready(example)

    def predict_tensors(self, inputs: Tensors) -> Tensors:
        """The outputs."""
        return self._call.run(inputs)


class StackedService(ItemService):
    """Code whose `predict` takes an array, and has an example: whether that is one, says what the code takes."""

    def setup_tensors(self, setup: Setup) -> Readiness:
        """Initialise; with the inputs, where the example is an array."""
        example = self.create()
        shown = example[0] if isinstance(example, list) and example else example
        if not isinstance(shown, np.ndarray):
            return Readiness(self.good(example))
        if any(part in self.contract.parts for part in ("validate", "clean", "format")):
            raise ModelLoadError(f"{self.contract.label}: example returned an array, and its other parts work on items")
        name = parameters.parameters(self.contract.owner, self.contract.parts["predict"])[0].name
        self._call = TensorCall(self._predict, self.finished, [_tensor(name, shown[None])], [])
        return self._call.ready(example)

    def predict_tensors(self, inputs: Tensors) -> Tensors:
        """The outputs."""
        return self._call.run(inputs)


class TensorCall:
    """Calls a function of tensors, and judges what it returns.

    Args:
        finish: waits for what a coroutine returns.
        outputs: empty until `ready`.
    """

    def __init__(
        self,
        predict: Callable[..., Any],
        finish: Callable[[Any], Any],
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
    ) -> None:
        self._predict = predict
        self._finish = finish
        self._inputs = list(inputs)
        self._outputs = list(outputs)

    def ready(self, example: Any) -> Readiness:
        """What is known once the code is initialised.

        Args:
            example: of `example()`: an array or a dict of arrays, without the batch axis, or a list of these.

        Raises:
            ModelLoadError: the example does not fit, or nothing is known of the outputs.
        """
        rows = example if isinstance(example, list) else [] if example is None else [example]
        named = [self._row(row) for row in rows]
        if not self._outputs:
            self._outputs = self._learned(named)
        items = [each if len(self._inputs) > 1 else next(iter(each.values())) for each in named]
        return Readiness([msgspec.Raw(example_text(item)) for item in items], self._inputs, self._outputs)

    def run(self, inputs: Tensors) -> Tensors:
        """The outputs, in their order.

        Raises:
            ModelFailed: they are not what they should be.
        """
        result = self._called(inputs)
        wanted = [each.name for each in self._outputs]
        if isinstance(result, Mapping):
            if set(result) != set(wanted):
                raise _bad(f"expected the outputs {', '.join(wanted)}; got {', '.join(map(str, result))}")
            result = tuple(result[name] for name in wanted)
        outputs = result if isinstance(result, tuple) else (result,)
        if len(outputs) != len(wanted):
            raise _bad(f"expected {len(wanted)} outputs ({', '.join(wanted)}); got {len(outputs)}")
        return tuple(_cast(_array(each, spec.name), spec) for each, spec in zip(outputs, self._outputs, strict=True))

    def _called(self, inputs: Tensors) -> Any:
        if len(inputs) == 1:
            return self._finish(self._predict(inputs[0]))
        return self._finish(self._predict(**{spec.name: each for spec, each in zip(self._inputs, inputs, strict=True)}))

    def _row(self, example: Any) -> dict[str, Any]:
        names = [each.name for each in self._inputs]
        row = example if isinstance(example, Mapping) else {names[0]: example} if len(names) == 1 else {}
        if set(row) != set(names):
            raise ModelLoadError(f"example: expected an array for each of {', '.join(names)}")
        for spec in self._inputs:
            shape = np.shape(row[spec.name])
            if len(shape) != len(spec.shape) - 1 or any(
                want not in (-1, got) for want, got in zip(spec.shape[1:], shape, strict=True)
            ):
                raise ModelLoadError(
                    f"example: {spec.name}: expected one row, of shape {spec.shape[1:]}, got {list(shape)}"
                )
        return {name: np.asarray(row[name]) for name in names}

    def _learned(self, rows: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        """The outputs of a first run."""
        tries = [self._batch(rows[0])] if rows else [self._zeros(size) for size in _OPEN_SIZES]
        for inputs in tries:
            try:
                result = self._called(inputs)
                break
            except Exception as error:
                why = error
        else:
            given = "the example" if rows else "zeros"
            raise ModelLoadError(
                f"outputs are not declared, and predict raised on {given}: {one_line(why)}",
                hint="give the code an example() that it can run, or declare outputs as inputs are",
            ) from why
        return self._described(result)

    def _described(self, result: Any) -> list[Tensor]:
        if isinstance(result, Mapping):
            named = {str(name): _array(each, str(name)) for name, each in result.items()}
        elif isinstance(result, tuple):
            named = {f"output_{index}": _array(each, f"output_{index}") for index, each in enumerate(result)}
        else:
            named = {"output": _array(result, "output")}
        # The sizes of one run are those of all only where those of the inputs are.
        is_open = any(-1 in spec.shape[1:] for spec in self._inputs)
        return [_tensor(name, array, is_open) for name, array in named.items()]

    def _batch(self, row: Mapping[str, Any]) -> Tensors:
        return tuple(np.asarray(row[spec.name], DATATYPES[spec.datatype].dtype)[None] for spec in self._inputs)

    def _zeros(self, size: int) -> Tensors:
        shapes = [[1, *(size if extent == -1 else extent for extent in spec.shape[1:])] for spec in self._inputs]
        return tuple(
            np.full(shape, b"", object) if spec.datatype == "BYTES" else np.zeros(shape, DATATYPES[spec.datatype].dtype)
            for spec, shape in zip(self._inputs, shapes, strict=True)
        )


def declared(what: str, tensors: Any) -> list[Tensor]:
    """Tensors as the user declares them.

    Raises:
        ModelLoadError: it is no declaration.
    """
    example = '{"image": ("FP32", [-1, 3, 224, 224])}'
    if not isinstance(tensors, Mapping):
        raise ModelLoadError(
            f"{what}: expected such as {example}, got {type(tensors).__name__}",
            hint=f"{what} declares tensors: give what is something else another name",
        )
    found = []
    for name, each in tensors.items():
        pair = each if isinstance(each, (tuple, list)) and len(each) == 2 else (None, None)
        label = pair[0] if pair[0] in DATATYPES else _label_of(pair[0])
        shape = pair[1]
        if label is None or not isinstance(shape, (tuple, list)) or not _is_shape(shape):
            raise ModelLoadError(
                f"{what}[{name!r}]: expected a datatype and a shape whose first size is -1, such as {example}; "
                f"got {each!r}",
                hint=f"datatypes: {', '.join(label for label in DATATYPES if label != 'BF16')}",
            )
        found.append(Tensor(str(name), label, list(shape)))
    return found


def _is_shape(shape: Sequence[Any]) -> bool:
    return bool(shape) and shape[0] == -1 and all(isinstance(size, int) and (size > 0 or size == -1) for size in shape)


def _label_of(dtype: Any) -> str | None:
    try:
        return None if dtype is None else _LABELS.get(np.dtype(dtype))
    except TypeError:
        return None


def _check_names(contract: Contract, names: Sequence[str]) -> None:
    if len(names) == 1:
        return
    known = parameters.parameters(contract.owner, contract.parts["predict"])
    if any(each.kind is each.VAR_KEYWORD for each in known):
        return
    missing = [name for name in names if name not in [each.name for each in known]]
    if missing:
        raise ModelLoadError(f"predict has no parameter {missing[0]!r}, and inputs declares it")


def _array(value: Any, name: str) -> Array:
    try:
        array = np.asarray(as_sequence(value))
    except (ValueError, TypeError) as error:  # rows of different lengths
        raise _bad(f"output {name!r}: expected an array, got {type(value).__name__}: {one_line(error)}") from None
    if array.dtype.kind in "US":
        return array.astype(object)
    if (
        array.ndim
        and array.dtype.kind == "O"
        and (other := [each for each in array.flat if not isinstance(each, (str, bytes))])
    ):
        raise _bad(f"output {name!r}: expected numbers or texts, got {type(other[0]).__name__}")
    if array.dtype.kind not in "biufO" or value is None:
        raise _bad(f"output {name!r}: expected an array, got {type(value).__name__} of {array.dtype}")
    return array


def _cast(array: Array, spec: Tensor) -> Array:
    dtype = DATATYPES[spec.datatype].dtype
    if array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise _bad(f"output {spec.name!r}: expected {spec.datatype}, got {array.dtype}")
    return array.astype(dtype)


def _tensor(name: str, array: Array, is_open: bool = False) -> Tensor:
    dtype = array.dtype.newbyteorder("=")
    label = "BYTES" if array.dtype.kind in "OUS" else _LABELS.get(dtype)
    if label is None:
        raise ModelLoadError(f"{name}: no tensor has elements of {array.dtype}")
    if not array.ndim:
        raise ModelLoadError(f"{name}: expected a row for each row of the inputs, got an array without axes")
    return Tensor(name, label, [-1, *((-1 if is_open else size) for size in array.shape[1:])])


def _bad(message: str) -> ModelFailed:
    return ModelFailed(f"predict: {message}", code=BAD_OUTPUT)
