"""How does what R returned become a JSON text for each item?

The host (`host/results.R`) has made it plain: vectors, lists and names, with one of three layouts.

Rules:
- `NA` is null. A vector of length 1 inside a prediction is the bare value; `I(x)` keeps it an array.
- JSON has neither NaN nor infinity: each fails its item, or is written as the operator chose.
- A row that is an error of R (a condition) fails alone.
"""

from __future__ import annotations

import math
from typing import Any, Final

import orjson

from paceline.core.errors import ModelFailed, PacelineError
from paceline.workers.frames import BadFrame
from paceline.workers.r.serialization import Value

ROWS, COLUMNS, TABLE = 1, 2, 3
_NULL: Final = b"null"
_SCALARS: Final = ("logical", "integer", "double")

Text = bytes | PacelineError


class PredictionWriter:
    """Writes predictions.

    Args:
        nonfinite: `error`, `null` or `string`.
    """

    def __init__(self, nonfinite: str = "error") -> None:
        self._nonfinite = nonfinite

    def texts(self, result: Value, rows: int) -> list[Text]:
        """A text for each row of a data frame, or why there is none.

        Args:
            result: list(layout, value), and where rows failed: which, and why.

        Raises:
            BadFrame: it is not what the host writes, or not of so many rows.
        """
        try:
            layout, value, *failures = result.items
            texts = self._texts(layout.items[0], value)
            if len(texts) != rows:
                raise BadFrame(f"R answered {rows} rows with {len(texts)} predictions")
            if failures:
                failed, why = failures
                for row, message in zip(failed.items, why.items, strict=True):
                    texts[row - 1] = ModelFailed(message)
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise BadFrame(f"R answered what is no result: {error}") from None
        return texts

    def _texts(self, layout: int, value: Value) -> list[Text]:
        if layout == ROWS and value.kind in _SCALARS:
            return self._scalars(value.items)
        if layout == ROWS:
            return [self._text(each) for each in elements(value)]
        if layout != COLUMNS:
            raise ValueError(f"layout {layout}")
        columns, names = [elements(column) for column in value.items], value.names or []
        return [self._text(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]

    def _scalars(self, values: list[Any]) -> list[Text]:
        """All in one text, cut at the commas."""
        text = orjson.dumps(values)
        if _NULL in text:
            return [self._text(value) for value in values]
        return [*text[1:-1].split(b",")] if values else []

    def _text(self, prediction: Any) -> Text:
        text = orjson.dumps(prediction)
        # NaN is null by now. Where there is no null, there was none.
        if prediction is None or _NULL not in text:
            return text
        found: list[str] = []
        replaced = self._replaced(prediction, "prediction", found)
        if found and self._nonfinite == "error":
            return ModelFailed(f"{found[0]}: JSON has neither NaN nor infinity", code="nonfinite_output")
        return orjson.dumps(replaced)

    def _replaced(self, value: Any, path: str, found: list[str]) -> Any:
        """The value with words for NaN and infinity, or null; adds where they were to `found`."""
        if isinstance(value, float) and not math.isfinite(value):
            word = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
            found.append(f"{path} is {word}")
            return word if self._nonfinite == "string" else None
        if isinstance(value, dict):
            return {key: self._replaced(each, f"{path}.{key}", found) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._replaced(each, f"{path}[{index}]", found) for index, each in enumerate(value)]
        return value


def elements(value: Value) -> list[Any]:
    """Of a vector its values, of a list each element as JSON has it."""
    return [_nested(each) for each in value.items] if value.kind == "list" else value.items


def _nested(value: Value) -> Any:
    if value.kind == "NULL":
        return None
    if value.kind != "list":
        return value.items[0] if len(value.items) == 1 else value.items
    if value.names is None:
        return [_nested(each) for each in value.items]
    return {name: _nested(each) for name, each in zip(value.names, value.items, strict=True)}
