"""ONNX models that between them have every datatype and every kind of shape that the protocol knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto as T
from onnx import helper

from support.models import save

ELEMENTS = {
    "BOOL": T.BOOL,
    "UINT8": T.UINT8,
    "UINT16": T.UINT16,
    "UINT32": T.UINT32,
    "UINT64": T.UINT64,
    "INT8": T.INT8,
    "INT16": T.INT16,
    "INT32": T.INT32,
    "INT64": T.INT64,
    "FP16": T.FLOAT16,
    "FP32": T.FLOAT,
    "FP64": T.DOUBLE,
    "BF16": T.BFLOAT16,
    "BYTES": T.STRING,
}


def identities(path: Path, datatypes: list[str]) -> Path:
    """For each datatype an input `in_NAME` [N, 2] and an output `out_NAME`, the same."""
    nodes = [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in datatypes]
    inputs = [(f"in_{name}", ELEMENTS[name], ["N", 2]) for name in datatypes]
    outputs = [(f"out_{name}", ELEMENTS[name], ["N", 2]) for name in datatypes]
    return save(path, nodes, inputs, outputs)


def scaled(path: Path) -> Path:
    """Without a batch dimension: `x` FP32 [2, 3], `s` FP32 [] -> `y` = x * s [2, 3], `total` [], of y."""
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
    ]
    return save(
        path,
        nodes,
        [("x", T.FLOAT, [2, 3]), ("s", T.FLOAT, [])],
        [("y", T.FLOAT, [2, 3]), ("total", T.FLOAT, [])],
    )


def text(path: Path) -> Path:
    """`x` BYTES [N, 1] -> `y`, the same."""
    return save(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", T.STRING, ["N", 1])],
        [("y", T.STRING, ["N", 1])],
    )


def bfloat16_bits(values: list[float]) -> np.ndarray:
    """The upper halves of float32 numbers, which is what BF16 is."""
    return (np.array(values, np.float32).view(np.uint32) >> 16).astype("<u2")
