"""Repositories of small models whose answers tell which version gave them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto as T
from onnx import helper

from support.models import save


def times(path: Path, factor: float, width: int = 1) -> Path:
    """`x` FP32 [N, width] -> `y` = x * factor."""
    return save(
        path,
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", T.FLOAT, ["N", width])],
        [("y", T.FLOAT, ["N", width])],
        {"factor": np.array(factor, np.float32)},
    )


def put(
    root: Path, name: str, version: int, factor: float | None = None, build: Callable[[Path], object] | None = None
) -> Path:
    """Add a version in one step, as a careful operator does; it multiplies with its number unless told otherwise."""
    folder = root / name / str(version)
    hidden = root / name / f".{version}"
    hidden.mkdir(parents=True)
    if build is None:
        times(hidden / "model.onnx", version if factor is None else factor)
    else:
        build(hidden / "model.onnx")
    hidden.rename(folder)
    return folder


def replace_file(path: Path, data: bytes) -> None:
    """Put another file in the place of one, in one step."""
    fresh = path.with_name(f".{path.name}")
    fresh.write_bytes(data)
    os.replace(fresh, path)


def wait(condition: Callable[[], object], patience_s: float = 20.0) -> None:
    """Wait until something holds."""
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)
