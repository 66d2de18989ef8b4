"""Which rows are in the user's files? Inputs by the model's names, and labels.

Rules:
- Arrays are taken by name, or in their order where their names are none of the model's. The columns of a table are also
  put side by side, as the one matrix that a model takes. What fits in no way is refused, with what is there and what
  is expected.
- The columns of a table are never taken in their order by a model that knows what its own are called.
- Values keep their precision: a file of doubles stays one, though the model takes floats. Its library, which the
  conversion is compared with, has them so too.
- No row is used to calibrate and to judge.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array, DataType, TensorSpec
from paceline.optimize.data import files
from paceline.optimize.data.files import Contents
from paceline.optimize.data.rows import Rows, finite

_CALIBRATION_SHARE: Final = 0.2
_MOST_CALIBRATION: Final = 512
_SHOWN: Final = 8
_TABLES: Final = (".csv", ".parquet", ".pq")
_ITEMS: Final = (".json", ".jsonl", ".ndjson")


class Split(NamedTuple):
    """Rows that share none."""

    calibration: Rows
    evaluation: Rows


def read(data: Path, labels: str | None, inputs: Sequence[TensorSpec]) -> Rows:
    """Rows for a model with these inputs.

    Args:
        data: .npz (arrays by name), .npy, .csv, .parquet, .json (a list of items, `{"instances": [...]}`, or lists by
            name) or .jsonl.
        labels: a column, or an array, of `data`; or a file; or `FILE:COLUMN`.
        inputs: of the model, in its order; axis 0 of each counts rows. Empty: everything is taken as it is called.

    Raises:
        ConfigError: a file cannot be read, or does not fit the model.
        RuntimeUnavailable: the library for its format is not installed.
    """
    contents = files.read(data, "--data")
    true: Array | None = None
    if labels is not None and labels in contents.arrays:
        true = contents.arrays[labels]
        contents = contents.without(labels)
    elif labels is not None:
        true = _labels(labels, data, contents)
    rows = Rows(_matched(contents, inputs, data))
    _check_counts(rows.inputs, data)
    return rows if true is None else Rows(rows.inputs, _checked_labels(true, f"--labels {labels}", rows.count, data))


def split(rows: Rows, seed: int, calibration: int | None = None) -> Split:
    """Divide rows into those that quantization is calibrated with, and those that candidates are judged on.

    Which ones is up to the seed alone. They are drawn evenly along the sorted labels: so each class, or range of
    values, has its share in both.

    Args:
        calibration: how many; None: a fifth, 512 at most. One row at least is left to judge on.
    """
    count = rows.count
    if calibration is None:
        calibration = min(int(np.ceil(count * _CALIBRATION_SHARE)), _MOST_CALIBRATION)
    calibration = min(calibration, count - 1)
    order = np.random.default_rng(seed).permutation(count)
    if rows.labels is not None and rows.labels.ndim == 1:
        order = order[np.argsort(rows.labels[order], kind="stable")]
    chosen = np.zeros(count, bool)
    places = ((np.arange(calibration) + 0.5) * count / max(calibration, 1)).astype(np.int64)
    chosen[order[places]] = True
    return Split(rows.take(np.flatnonzero(chosen)), rows.take(np.flatnonzero(~chosen)))


def uncalibrated(rows: Rows) -> str:
    """Why ranges of values cannot be learned from these rows; "" where they can.

    They cannot where there is one row or none, a value is missing or infinite, or a tensor of them is always the same.
    """
    if rows.count < 2:
        return f"{rows.count} rows to calibrate with: at least 2 are needed, a few hundred of real traffic do"
    constant = {name: bool((array == array[:1]).all()) for name, array in rows.inputs.items()}
    for name, array in rows.inputs.items():
        if array.dtype.kind != "f":
            continue
        bad = int((~finite(array)).sum())
        if bad:
            return f"calibration rows: {name!r} is NaN or infinite in {bad:,} of {rows.count:,} rows"
        if constant[name]:
            return f"calibration rows: {name!r} is the same in all {rows.count:,} rows"
    return f"calibration rows: all {rows.count:,} rows are the same" if all(constant.values()) else ""


# -- labels -----------------------------------------------------------------------------------------------------------


def _labels(labels: str, data: Path, contents: Contents) -> Array:
    """Those of a file; `FILE:COLUMN` names one of its arrays."""
    path, column = Path(labels), ""
    if not path.exists() and ":" in labels:
        name, _, column = labels.rpartition(":")
        path = Path(name)
    if not path.exists():
        raise ConfigError(
            f"--labels {labels}: there is no such file, and no such column in {data}: it has {_listed(contents.arrays)}"
        )
    arrays = files.read(path, "--labels").arrays
    if column and column not in arrays:
        raise ConfigError(f"--labels {labels}: {path} has no {column!r}: it has {_listed(arrays)}")
    if not column and len(arrays) != 1:
        raise ConfigError(
            f"--labels {labels}: expected one array, or one column, got {len(arrays)}: {_listed(arrays)}",
            hint=f"name one: --labels {labels}:{next(iter(arrays), 'COLUMN')}",
        )
    return arrays[column] if column else next(iter(arrays.values()))


def _checked_labels(labels: Array, where: str, rows: int, data: Path) -> Array:
    if labels.ndim > 1 and labels.shape[1:] == (1,) * (labels.ndim - 1):
        labels = labels.reshape(len(labels))
    if labels.ndim == 0 or labels.ndim > 2:
        raise ConfigError(f"{where}: expected one label for each row, got an array of shape {list(labels.shape)}")
    if len(labels) != rows:
        raise ConfigError(f"{where}: expected {rows:,} labels, for as many rows as {data} has, got {len(labels):,}")
    if labels.dtype.kind not in "biufU":
        raise ConfigError(f"{where}: expected labels that are numbers or text, got {labels.dtype}")
    if labels.dtype.kind == "f":
        missing = np.flatnonzero(~finite(labels))
        if len(missing):
            raise ConfigError(
                f"{where}: labels are missing, or not finite, in {len(missing):,} of {len(labels):,} rows, "
                f"first in row {missing[0] + 1}"
            )
    return labels


# -- inputs -----------------------------------------------------------------------------------------------------------


def _matched(contents: Contents, inputs: Sequence[TensorSpec], data: Path) -> Mapping[str, Array]:
    arrays = contents.arrays
    if not inputs:
        return {name or "input": _as_read(array) for name, array in arrays.items()}
    if all(spec.name in arrays for spec in inputs):
        return {spec.name: _fitted(arrays[spec.name], spec, data) for spec in inputs}
    if len(inputs) == 1 and contents.is_table:
        return {inputs[0].name: _fitted(_side_by_side(arrays, inputs[0], data), inputs[0], data)}
    if len(inputs) == len(arrays) and not contents.is_table and not any(spec.name in arrays for spec in inputs):
        # Their own names say nothing: `arr_0`, or none at all.
        return {spec.name: _fitted(each, spec, data) for spec, each in zip(inputs, arrays.values(), strict=True)}
    raise _unlike([spec.name for spec in inputs], arrays, data)


def _unlike(names: Sequence[str], arrays: Mapping[str, Array], data: Path) -> ConfigError:
    """The error about names that are not the model's."""
    missing = [name for name in names if name not in arrays]
    unknown = [name for name in arrays if name not in names]
    kind, others = ("unknown", unknown) if 0 < len(unknown) < len(arrays) else ("found", list(arrays))
    return ConfigError(
        f"{data}: it does not have the model's inputs: missing: {_listed(missing)}; {kind}: {_listed(others)}",
        hint=_names_in(data, names),
    )


def _names_in(data: Path, names: Sequence[str]) -> str:
    """How a file of this kind has names; in full, for it is there to be copied."""
    ending = data.suffix.lower()
    if ending in _TABLES:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(names)
        return f"columns: {line.getvalue()}"
    fields = ", ".join(f"{msgspec.json.encode(name).decode()}: ..." for name in names)
    if ending in _ITEMS:
        return f"of each row: {{{fields}}}"
    return f"np.savez({str(data.with_suffix('.npz'))!r}, **{{{fields}}})"


def _side_by_side(arrays: Mapping[str, Array], spec: TensorSpec, data: Path) -> Array:
    """The columns of a table as one matrix, or as whatever a row of the model is when it is laid flat."""
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if spec.labels:
        if not arrays.keys() >= set(spec.labels):
            raise _unlike(spec.labels, arrays, data)
        arrays = {name: arrays[name] for name in spec.labels}
    numbers = spec.datatype is not DataType.BYTES
    odd = [name for name, array in arrays.items() if array.ndim != 1 or (array.dtype.kind == "U") == numbers]
    if odd:
        wanted = "numbers" if numbers else "text"
        raise ConfigError(
            f"{data}: the columns become the input {spec.name!r}, and {_listed(odd)} is not of {wanted}",
            hint="--labels COLUMN takes what is true out of the table",
        )
    matrix = np.stack(list(arrays.values()), axis=1)
    trailing = spec.shape[1:]
    if -1 in trailing or matrix.shape[1:] == trailing:
        return matrix
    if int(np.prod(trailing)) != matrix.shape[1]:
        raise ConfigError(
            f"{data}: the input {spec.name!r} takes {int(np.prod(trailing))} columns, got {len(arrays)}: "
            f"{_listed(arrays)}",
            hint="--labels COLUMN takes what is true out of the table",
        )
    return matrix.reshape(-1, *trailing)


def _fitted(array: Array, spec: TensorSpec, data: Path) -> Array:
    """The array as the input takes it: its shape is checked, its kind of numbers is changed where nothing is lost."""
    where = f"{data}: input {spec.name!r}"
    if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] in (1, -1):
        array = array[:, None]
    if array.ndim == 2 and array.shape[1] == 1 and len(spec.shape) == 1:
        array = array[:, 0]
    if len(array.shape) != len(spec.shape) or not _fits(array.shape[1:], spec.shape[1:]):
        expected = ["rows", *("any" if size == -1 else size for size in spec.shape[1:])]
        raise ConfigError(f"{where}: expected the shape [{', '.join(map(str, expected))}], got {list(array.shape)}")
    return _of_kind(array, spec.datatype, where)


def _of_kind(array: Array, wanted: DataType, where: str) -> Array:
    kind = array.dtype.kind
    if wanted is DataType.BYTES:
        if kind != "U":
            raise ConfigError(f"{where}: expected text, got {array.dtype}")
        return array
    if kind not in "biuf":
        raise ConfigError(f"{where}: expected {wanted.label}, got {'text' if kind == 'U' else array.dtype}")
    if wanted.is_float:
        return array if kind == "f" else array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    if kind == "f":
        if not (np.isfinite(array) & (array == np.floor(array))).all():
            raise ConfigError(f"{where}: expected {wanted.label}, got numbers that are not whole, or missing")
        array = array.astype(np.int64)
    held = array.astype(wanted.dtype)
    if not (held == array).all():
        raise ConfigError(f"{where}: expected {wanted.label}, got numbers from {array.min()} to {array.max()}")
    return held


def _as_read(array: Array) -> Array:
    if array.dtype.kind not in "biufU":
        raise ConfigError(f"expected numbers or text, got {array.dtype}")
    return array


def _fits(got: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(want in (-1, have) for have, want in zip(got, wanted, strict=True))


def _check_counts(inputs: Mapping[str, Array], data: Path) -> None:
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
        raise ConfigError(f"{data}: different numbers of rows: {shown}")
    if not counts or 0 in counts.values():
        raise ConfigError(f"{data}: there are no rows")


def _listed(names: object) -> str:
    found = [repr(name) if name else "one without a name" for name in names]  # type: ignore[attr-defined]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (", ".join(found[:_SHOWN]) + more) or "nothing"
