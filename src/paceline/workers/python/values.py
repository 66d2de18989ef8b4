"""How is what user code returns written as JSON?

Rules:
- Besides JSON's own types: numpy arrays and scalars, dataclasses, msgspec structs, pydantic models, dates and times,
  UUIDs, enumerations, decimals (with all their digits), sets, pandas frames and series, and whatever numpy can make an
  array of, such as tensors of torch.
- Floats are written with the fewest digits that give the same number of the same width back.
- JSON has no NaN and no infinity, and its writers put null in their place silently. Here each is found: it fails its
  prediction, or is written as the operator chose.
- What cannot be written fails its own prediction, and names the type.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from paceline.core.errors import BAD_OUTPUT, ModelLoadError
from paceline.core.tensors import Array
from paceline.workers.python.service import Failed, any_failed
from paceline.workers.python.tracebacks import user_frames

# orjson reads the `__dict__` of a dataclass, where a default need not be.
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
_NULL: Final = b"null"
_NUMBERS: Final = frozenset("biuf")
# C's long long and long double.
_KNOWN: Final = {"q": "l", "Q": "L", "g": "d"}


class ValueWriter:
    """Writes predictions.

    Args:
        nonfinite: `error`, `null` or `string`.
    """

    def __init__(self, nonfinite: str = "error") -> None:
        self._nonfinite = nonfinite

    def texts(self, predictions: Sequence[Any] | Array) -> list[bytes | Failed]:
        """The JSON of each prediction, or why there is none."""
        if isinstance(predictions, np.ndarray):
            rows = _rows_at_once(predictions)
            if rows is not None:
                return rows
        # Most batches are sound: encode first, and look at each only where one is not.
        texts: list[Any] = []
        if not any_failed(predictions):
            with suppress(TypeError, ValueError, RecursionError):
                texts = [orjson.dumps(each, _plain, _OPTIONS) for each in predictions]
        if not texts:
            return [self.text(each) for each in predictions]
        return [self.text(each) if _NULL in text else text for each, text in zip(predictions, texts, strict=True)]

    def text(self, prediction: Any) -> bytes | Failed:
        """The JSON of a prediction, or why there is none."""
        if isinstance(prediction, Failed):
            return prediction
        if isinstance(prediction, msgspec.Raw):
            return bytes(prediction)
        try:
            text = orjson.dumps(prediction, _plain, _OPTIONS)
            # NaN is null by now. Where there is no null, there was none.
            if _NULL in text and prediction is not None and self._nonfinite != "null":
                return self._judged(prediction, text)
            return text
        except BaseException as error:
            return _unwritable(error)

    def _judged(self, prediction: Any, text: bytes) -> bytes | Failed:
        found: list[str] = []
        replaced = _with_words(prediction, "prediction", found)
        if not found:
            return text
        if self._nonfinite == "error":
            return Failed(f"{found[0]}: JSON has neither NaN nor infinity", "nonfinite_output")
        return orjson.dumps(replaced, _plain, _OPTIONS)


def example_text(example: Any) -> bytes:
    """The JSON of an item that the code says is good.

    Raises:
        ModelLoadError: there is none.
    """
    text = ValueWriter().text(example)
    if not isinstance(text, bytes):
        raise ModelLoadError(f"example: {text.message}")
    return text


def as_sequence(outputs: Any) -> Any:
    """What `predict` returned as a list or an array, if it is a kind of either; else the thing itself."""
    if isinstance(outputs, np.ma.MaskedArray):
        return outputs.tolist()
    if isinstance(outputs, (list, tuple, np.ndarray)):
        return outputs
    if is_frame(outputs):
        return _records(outputs)
    if _comes_from(outputs, "pandas") and hasattr(outputs, "tolist"):
        return outputs.tolist()
    if isinstance(outputs, Sequence) and not isinstance(outputs, (str, bytes)):
        return list(outputs)
    return _as_array(outputs)


def _rows_at_once(array: Array) -> list[bytes | Failed] | None:
    """The texts of the rows of numbers, cut out of one; None where that cannot be done."""
    if array.dtype.kind not in _NUMBERS or array.ndim not in (1, 2) or not array.size:
        return None
    text = orjson.dumps(_native(array), option=_OPTIONS)
    if _NULL in text:
        return None
    if array.ndim == 1:
        return [*text[1:-1].split(b",")]
    return [b"[" + row + b"]" for row in text[2:-2].split(b"],[")]


def _native(array: Array) -> Array:
    """An array of numbers as orjson takes it: contiguous, of the machine's byte order, of a width it knows."""
    code: str = array.dtype.char
    return np.ascontiguousarray(array, _KNOWN.get(code, code))


def _plain(value: Any) -> Any:  # noqa: C901 (a table of types, one a line)
    """A value that orjson does not know, in terms that it does.

    Raises:
        _NoWay: it is nothing that JSON could carry.
    """
    if isinstance(value, np.ndarray):
        if not value.ndim:
            return value[()]
        is_plain = value.dtype.kind in _NUMBERS and not isinstance(value, np.ma.MaskedArray)
        return _native(value) if is_plain else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value)) if value.is_finite() else float(value)
    if isinstance(value, (set, frozenset)):
        return _ordered(value)
    if isinstance(value, msgspec.Raw):
        return orjson.Fragment(bytes(value))
    if isinstance(value, msgspec.Struct):
        return orjson.Fragment(msgspec.json.encode(value, enc_hook=_for_msgspec))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    if _comes_from(value, "pandas"):
        return _of_pandas(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    array = _as_array(value)
    if array is value:
        raise _NoWay(type(value).__qualname__)
    return array


def _fields(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names if not name.startswith("_")}


def _for_msgspec(value: Any) -> msgspec.Raw:
    return msgspec.Raw(orjson.dumps(value, _plain, _OPTIONS))


def _ordered(values: Iterable[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def _of_pandas(value: Any) -> Any:
    if is_frame(value):
        return _records(value)
    if hasattr(value, "to_dict"):
        # A row of a frame is a series whose index holds the names of the columns.
        return value.tolist() if value.index.dtype.kind in "iu" else value.to_dict()
    if hasattr(value, "tolist"):
        return value.tolist()
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)  # str: an interval, or a period


def _comes_from(value: Any, package: str) -> bool:
    return type(value).__module__.partition(".")[0] == package


def is_frame(value: Any) -> bool:
    """True for a data frame of pandas, which need not be installed."""
    return _comes_from(value, "pandas") and type(value).__name__ == "DataFrame"


def _records(frame: Any) -> list[dict[str, Any]]:
    """The rows of a frame. What is missing in a column of floats is NaN, in any other None."""
    records: list[dict[str, Any]] = frame.to_dict("records")
    for name, column in frame.items():
        if column.dtype.kind != "f" and (missing := column.isna()).any():
            for row in np.flatnonzero(missing.to_numpy()):
                records[row][name] = None
    return records


def _as_array(value: Any) -> Any:
    """An array of what says that it is one, such as a tensor of torch, TensorFlow or JAX; else the thing itself."""
    if isinstance(value, (type, np.generic)) or not hasattr(value, "__array__"):
        return value
    return value.detach().cpu().numpy() if _comes_from(value, "torch") else np.asarray(value)


def _with_words(value: Any, path: str, found: list[str]) -> Any:
    """The value with words for NaN and infinity; adds where they were to `found`."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (float, np.floating)):
        return value if math.isfinite(value) else _word(float(value), path, found)
    if isinstance(value, Mapping):
        return {key: _with_words(each, f"{path}.{key}", found) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_words(each, f"{path}[{index}]", found) for index, each in enumerate(value)]
    if isinstance(value, np.ndarray) and value.ndim:
        if value.dtype.kind in "biu" or (value.dtype.kind == "f" and np.isfinite(value).all()):
            return value
        return [_with_words(each, f"{path}[{index}]", found) for index, each in enumerate(value)]
    if isinstance(value, msgspec.Struct):
        return _with_words(msgspec.structs.asdict(value), path, found)
    try:
        plain = _plain(value)
    except _NoWay:
        return value
    return plain if isinstance(plain, orjson.Fragment) else _with_words(plain, path, found)


def _word(value: float, path: str, found: list[str]) -> str:
    word = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    found.append(f"{path} is {word}")
    return word


class _NoWay(TypeError):
    """JSON has nothing for a value of this type."""


def _unwritable(error: BaseException) -> Failed:
    what = "a prediction cannot be written as JSON"
    # orjson has raised; its cause is what user code did, such as `model_dump`.
    cause = error.__cause__ or error
    if isinstance(cause, (_NoWay, RecursionError)) or (cause is error and isinstance(error, (TypeError, ValueError))):
        why = str(error).replace("Type is not JSON serializable: ", "no way to write a value of type ")
        return Failed(f"{what}: {why}", BAD_OUTPUT)
    return Failed(f"{what}: that raised {type(cause).__name__}", BAD_OUTPUT, user_frames(cause))
