import json

import numpy as np
import pytest

from paceline.core.tensors import DataType, Signature, TensorSpec
from paceline.server.example_bodies import ExampleBodies


def bodies(*arrays: np.ndarray, datatype: DataType = DataType.FP32, batched: bool = True) -> ExampleBodies:
    specs = tuple(TensorSpec(f"x{index}", datatype, (-1, *array.shape[1:])) for index, array in enumerate(arrays))
    return ExampleBodies(Signature(specs, specs, batched), arrays)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_short(dtype):
    values = np.array([[0.0, 3.0, -2.0, 0.123456, 12.345678, 0.00001234567, 1e-30]], dtype)
    shown = json.loads(bodies(values).predict())
    kept = 0 if dtype == np.float16 else 1e-30
    small = 1.235e-5 if dtype != np.float16 else pytest.approx(1.235e-5, rel=0.02)
    assert shown == [0, 3, -2, 0.1235, pytest.approx(12.3457, abs=0.003), small, kept]


def test_whole_floats_are_written_as_integers():
    assert bodies(np.array([[0.0, 16.0, 7.5]], np.float32)).predict() == b"[0,16,7.5]"
    assert bodies(np.array([2.0], np.float32)).predict() == b"2"
    assert bodies(np.array([[[1.0, 2.0], [10.0, 0.5]]], np.float32)).predict() == b"[[1,2],[10,0.5]]"


@pytest.mark.parametrize("value", [65504.0, 3.4028235e38, 1e12, -123456789.25])
def test_large_floats_stay_what_they_are(value):
    kind = np.float16 if value == 65504.0 else np.float64
    assert json.loads(bodies(np.array([[value]], kind)).predict()) == [value]


def test_what_json_lacks_becomes_a_number():
    assert json.loads(bodies(np.array([[np.nan]], np.float32)).predict()) == [0]


def test_integers_text_and_truth_are_kept():
    assert bodies(np.array([[2**63 + 1]], np.uint64), datatype=DataType.UINT64).predict() == b"[9223372036854775809]"
    assert bodies(np.array([["1.0", "it's"]], object), datatype=DataType.BYTES).predict() == b'["1.0","it\'s"]'
    assert bodies(np.array([[True]]), datatype=DataType.BOOL).predict() == b"[true]"


def test_every_protocol_has_its_own_form():
    two = bodies(np.array([[1.5]], np.float32), np.array([[2.0]], np.float32))
    assert json.loads(two.predict()) == {"x0": [1.5], "x1": [2]}
    assert json.loads(two.batch_predict()) == [{"x0": [1.5], "x1": [2]}] * 2
    assert json.loads(two.tensorflow()) == {"instances": [{"x0": [1.5], "x1": [2]}]}
    assert json.loads(two.open_inference())["inputs"][1] == {
        "name": "x1",
        "shape": [1, 1],
        "datatype": "FP32",
        "data": [2],
    }


def test_a_model_without_rows_has_columns():
    whole = bodies(np.array([[1.0, 2.0]], np.float32), batched=False)
    assert whole.predict() == b"[[1,2]]"
    assert whole.tensorflow() == b'{"inputs":[[1,2]]}'


def test_half_precision_is_for_plain_json_only():
    half = bodies(np.array([[1.0]], np.float16), datatype=DataType.FP16)
    assert half.predict() == b"[1]"
    assert half.tensorflow() is None
    assert half.open_inference() is None
    brain = bodies(np.array([[1]], np.uint16), datatype=DataType.BF16)
    assert brain.predict() is None
    assert brain.batch_predict() is None
