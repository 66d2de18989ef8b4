"""Which rows are candidates judged on? Inputs by name, and labels where the user has them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array

_LABELS: Final = "__labels__"


@dataclass(frozen=True, eq=False)
class Rows:
    """Real inputs of a model.

    Attributes:
        inputs: by the model's names, in its order; each of shape [rows, ...]. Text is an array of `str` (dtype `U`).
        labels: what is true, of shape [rows]; None where nobody knows.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int(next(iter(self.inputs.values())).shape[0])

    def take(self, indices: NDArray[np.int64]) -> Rows:
        """Those rows, in that order."""
        labels = None if self.labels is None else self.labels[indices]
        return Rows({name: array[indices] for name, array in self.inputs.items()}, labels)

    def digest(self) -> str:
        """A SHA-256 over names, types, shapes and values."""
        sha = hashlib.sha256()
        for name, array in {**self.inputs, **({} if self.labels is None else {_LABELS: self.labels})}.items():
            sha.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def save(self, path: Path) -> None:
        """Write an .npz file that `load` reads."""
        arrays = dict(self.inputs) if self.labels is None else {**self.inputs, _LABELS: self.labels}
        np.savez(path, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Rows:
        """Read what `save` wrote.

        Raises:
            ConfigError: it is not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read as rows: {error}") from error
        labels = arrays.pop(_LABELS, None)
        return cls(arrays, labels)


def finite(array: Array) -> Array:
    """Which rows of numbers hold neither NaN nor infinity: booleans of shape [rows]."""
    return np.asarray(np.isfinite(array.reshape(len(array), -1)).all(axis=1))
