"""Does a model keep what the file beside it promises?"""

from __future__ import annotations

import pytest

from paceline.config.triton_config import DeclaredTensor
from paceline.core.errors import ConfigError
from paceline.core.tensors import DataType, TensorSpec
from paceline.engine.beside import check_declared

REAL = [TensorSpec("x", DataType.FP32, (-1, 4)), TensorSpec("shapeless", DataType.INT64, ())]


def declared(name: str, datatype: str, *shape: int) -> DeclaredTensor:
    return DeclaredTensor(name, datatype, shape, "config.pbtxt:3")


@pytest.mark.parametrize(
    "good",
    [
        declared("x", "FP32", -1, 4),
        declared("x", "FP32", -1, -1),
        declared("x", "FP32", 8, 4),
        declared("x", "", -1, 4),
        declared("shapeless", "INT64", -1, 7),
    ],
)
def test_what_fits(good):
    check_declared("input", [good], REAL)
    check_declared("input", [], REAL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (declared("z", "FP32", -1, 4), "config.pbtxt:3: the model has no input 'z'; it has x, shapeless"),
        (declared("x", "FP64", -1, 4), "config.pbtxt:3: input 'x' is FP32, not FP64"),
        (declared("x", "FP32", -1, 5), "config.pbtxt:3: input 'x' has shape [-1, 4], not [-1, 5]"),
        (declared("x", "FP32", 4), "config.pbtxt:3: input 'x' has shape [-1, 4], not [4]"),
    ],
)
def test_what_does_not_fit(wrong, message):
    with pytest.raises(ConfigError) as caught:
        check_declared("input", [wrong], REAL)
    assert str(caught.value) == message
