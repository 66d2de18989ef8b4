"""Kinds of signature that TensorFlow Serving's JSON meets, without a server."""

from __future__ import annotations

import json
import resource
import time
from typing import Any

import numpy as np
import pytest

from paceline.core.errors import InvalidRequest, SignatureMismatch
from paceline.core.tensors import DataType, Signature, TensorSpec
from paceline.server.protocols.tfs_answers import Answers, classified_by, regressed_by
from paceline.server.protocols.tfs_requests import RequestReader


def spec(name: str, datatype: DataType, *shape: int, labels: tuple[str, ...] = ()) -> TensorSpec:
    return TensorSpec(name, datatype, shape, labels)


def signature(inputs: list[TensorSpec], outputs: list[TensorSpec], *, batched: bool = True) -> Signature:
    return Signature(tuple(inputs), tuple(outputs), batched)


def reader(*inputs: TensorSpec, batched: bool = True) -> RequestReader:
    return RequestReader(signature(list(inputs), [], batched=batched), "m")


def answers(*outputs: TensorSpec, nonfinite: str = "error", batched: bool = True) -> Answers:
    return Answers(signature([], list(outputs), batched=batched), nonfinite)


def refused(read: RequestReader, body: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read.predict(body.encode())
    return caught.value.message


# -- requests -------------------------------------------------------------------------------------------------


def test_rows_for_a_model_that_takes_one_at_a_time() -> None:
    (array,), in_rows = reader(spec("x", DataType.FP32, 1, 2)).predict(b'{"instances": [[1, 2], [3, 4], [5, 6]]}')
    assert in_rows
    assert array.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_rows_that_influence_one_another_can_be_laid_one_behind_the_other() -> None:
    (array,), in_rows = reader(spec("x", DataType.INT64, -1), batched=False).predict(b'{"instances": [1, 2]}')
    assert in_rows
    assert array.tolist() == [1, 2]


def test_a_scalar_input_without_batch_dimension() -> None:
    read = reader(spec("x", DataType.FP64), spec("y", DataType.BOOL), batched=False)
    (x, y), in_rows = read.predict(b'{"inputs": {"x": 0.1, "y": true}}')
    assert not in_rows
    assert (x.shape, x.item(), y.item()) == ((), 0.1, True)
    assert refused(read, '{"instances": [{"x": 0.1, "y": true}]}').startswith("model 'm' has no batch dimension")


def test_an_input_called_b64_has_no_row_objects_of_its_own() -> None:
    read = reader(spec("b64", DataType.BYTES, -1))
    (array,), _ = read.predict(b'{"instances": [{"b64": "YQ=="}]}')
    assert array.tolist() == [b"a"]
    (array,), _ = read.predict(b'{"inputs": {"b64": ["YQ=="]}}')
    assert array.tolist() == ["YQ=="]


def test_names_that_are_no_identifiers() -> None:
    read = reader(spec("a b:0", DataType.FP32, -1), spec("$[0].x", DataType.FP32, -1))
    arrays, _ = read.predict(b'{"instances": [{"a b:0": 1, "$[0].x": 2}]}')
    assert [array.tolist() for array in arrays] == [[1], [2]]
    message = refused(read, '{"instances": [{"a b:0": 1, "$[0].x": [2]}]}')
    assert message.startswith("Failed to process element: 0 key: $[0].x of 'instances' list.")


@pytest.mark.parametrize(
    ("datatype", "good", "bad", "word"),
    [
        (DataType.UINT8, 255, 256, "uint8"),
        (DataType.UINT8, 0, -1, "uint8"),
        (DataType.INT16, -32768, -32769, "int16"),
        (DataType.INT32, 2**31 - 1, 2**31, "int32"),
        (DataType.UINT64, 2**64 - 1, 2**64, "uint64"),
        (DataType.INT64, -(2**63), -(2**63) - 1, "int64"),
    ],
)
def test_fault_044_bounds_of_integers(datatype: DataType, good: int, bad: int, word: str) -> None:
    read = reader(spec("x", datatype, -1))
    (array,), _ = read.predict(json.dumps({"inputs": [good]}).encode())
    assert array.tolist() == [good]
    expected = f"JSON Value: {bad} Type: Number is not of expected type: {word}"
    assert refused(read, json.dumps({"inputs": [0, bad]})) == expected


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # a server says so itself, see serve()
@pytest.mark.parametrize(("datatype", "word"), [(DataType.FP16, "half"), (DataType.FP32, "float")])
def test_fault_043_bounds_of_floats(datatype: DataType, word: str) -> None:
    message = refused(reader(spec("x", datatype, -1)), '{"instances": [1, -1e300]}')
    assert message.endswith(f"Cannot convert JSON value: -1e300 to {word} without loss of precision.")


def test_fault_047_ragged_below_the_rows() -> None:
    read = reader(spec("x", DataType.BYTES, -1, 2, 2))
    body = '{"instances": [[["a", "b"], ["c", "d"]], [["e", "f"], ["g"]]]}'
    assert refused(read, body) == (
        "Failed to process element: 1 of 'instances' list. Error: "
        'Encountered list at unexpected size: 1 at level: 1 expected size: 2. JSON Value: ["g"]'
    )


def test_examples_are_values_or_lists_as_the_input_needs() -> None:
    read = reader(spec("age", DataType.FP32, -1, 1), spec("size", DataType.INT64, -1))
    age, size = read.examples(b'{"examples": [{"age": 3, "size": [4]}, {"age": [5.5], "size": 6}]}')
    assert (age.tolist(), size.tolist()) == ([[3.0], [5.5]], [4, 6])


def test_columns_must_be_equally_long() -> None:
    read = reader(spec("a", DataType.FP32, -1), spec("b", DataType.FP32, -1))
    with pytest.raises(SignatureMismatch, match="inputs differ in their number of rows: a: 1, b: 2"):
        read.predict(b'{"inputs": {"a": [1], "b": [1, 2]}}')


# -- answers --------------------------------------------------------------------------------------------------

NONFINITE = np.array([[0.1, np.nan], [np.inf, -np.inf]], np.float32)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("null", "[[0.1,null],[null,null]]"),
        ("bare", "[[0.1,NaN],[Infinity,-Infinity]]"),
    ],
)
def test_nonfinite_outputs(policy: str, expected: str) -> None:
    y = spec("y", DataType.FP32, -1, 2)
    assert answers(y, nonfinite=policy).rows((NONFINITE,)).decode() == f'{{"predictions":{expected}}}'
    assert answers(y, nonfinite=policy).columns((NONFINITE,)).decode() == f'{{"outputs":{expected}}}'


@pytest.mark.parametrize(("policy", "expected"), [("null", "null"), ("bare", "NaN"), ("string", '"NaN"')])
def test_nonfinite_scalars_among_several_outputs(policy: str, expected: str) -> None:
    write = answers(spec("y", DataType.FP32, -1), spec("n", DataType.INT64, -1), nonfinite=policy)
    outputs = (np.array([np.nan, 0.1], np.float32), np.array([1, 2], np.int64))
    rows = write.rows(outputs).decode()
    assert rows == '{"predictions":[{"y":%s,"n":1},{"y":0.1,"n":2}]}' % expected  # noqa: UP031


def test_scalars_without_batch_dimension() -> None:
    y = spec("y", DataType.FP32)
    write = answers(y, spec("z_bytes", DataType.BYTES), batched=False)
    outputs = (np.array(0.1, np.float32), np.array("a", object))
    assert write.columns(outputs) == b'{"outputs":{"y":0.1,"z_bytes":{"b64":"YQ=="}}}'
    with pytest.raises(InvalidRequest, match="Tensor name: y has no shape information"):
        write.rows(outputs)
    assert answers(y, batched=False).columns(outputs[:1]) == b'{"outputs":0.1}'


def test_rows_need_outputs_of_one_length() -> None:
    write = answers(spec("y", DataType.FP32, -1), spec("z", DataType.FP32, -1), batched=False)
    with pytest.raises(InvalidRequest, match="z has inconsistent batch size: 2 expecting batch size: 1"):
        write.rows((np.zeros(1, np.float32), np.zeros(2, np.float32)))


def test_bf16_bits_are_shown_as_numbers() -> None:
    bits = np.array([0x3FC0, 0xC000], np.uint16)
    assert answers(spec("y", DataType.BF16, -1)).rows((bits,)) == b'{"predictions":[1.5,-2.0]}'


# -- classification and regression ----------------------------------------------------------------------------

SCORES = spec("scores", DataType.FP32, -1, 2)
CLASSES = spec("classes", DataType.BYTES, -1, 2)


def classified(*outputs: TensorSpec, values: tuple[Any, ...]) -> str:
    scores, labels = classified_by(signature([], list(outputs)), "m")
    return answers(*outputs).classification(values, scores, labels).decode()


def test_classification_by_the_reference_s_names() -> None:
    scores = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    classes = np.array([["a", "b"], ["b", "a"]], object)
    expected = '{"results":[[["a",0.25],["b",0.75]],[["b",1.0],["a",0.0]]]}'
    assert classified(CLASSES, SCORES, values=(classes, scores)) == expected
    assert classified(SCORES, values=(scores[:1],)) == '{"results":[[["",0.25],["",0.75]]]}'


def test_regression_of_a_column_or_a_vector() -> None:
    values = np.array([[0.1], [2.0]], np.float32)
    for outputs in ([spec("y", DataType.FP32, -1, 1)], [CLASSES, spec("outputs", DataType.FP32, -1)]):
        index = regressed_by(signature([], outputs), "m")
        assert index == len(outputs) - 1
        assert answers(*outputs).regression((values,) * len(outputs), index) == b'{"results":[0.1,2.0]}'


@pytest.mark.parametrize(
    "outputs",
    [
        [spec("y", DataType.FP32, -1, 2)],
        [spec("y", DataType.INT64, -1)],
        [spec("y", DataType.FP32, -1), spec("z", DataType.FP32, -1)],
    ],
)
def test_no_regression_and_no_classification(outputs: list[TensorSpec]) -> None:
    for kind in (regressed_by, classified_by):
        with pytest.raises(InvalidRequest, match="use :predict"):
            kind(signature([], outputs), "m")


# -- bounds ---------------------------------------------------------------------------------------------------


def test_no_elements_for_a_boolean_input() -> None:
    assert "has no elements" in refused(reader(spec("x", DataType.BOOL, -1, 2)), '{"inputs": []}')


def test_a_long_string_costs_memory_in_proportion() -> None:
    body = b'{"inputs": "' + b"a" * (2 << 20) + b'", "x": NaN}'
    read = RequestReader(signature([spec("x", DataType.FP32, -1)], []), "m", tokens=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidRequest):
        read.predict(body)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # in KiB


def test_a_string_without_end_costs_time_in_proportion() -> None:
    body = b'{"inputs": "' + b'\\"' * (1 << 20)
    read = RequestReader(signature([spec("x", DataType.FP32, -1)], []), "m", tokens=True)
    began = time.process_time()
    assert "byte" in refused(read, body.decode())
    assert time.process_time() - began < 2


def test_integers_of_onnxruntime_by_row() -> None:
    write = answers(spec("label", DataType.INT64, -1), spec("p", DataType.FP32, -1, 2))
    label, p = np.array([1, 2], np.longlong), np.array([[0.1, 0.9], [1, 0]], np.float32)
    assert json.loads(write.rows((label, p))) == {
        "predictions": [{"label": 1, "p": [0.1, 0.9]}, {"label": 2, "p": [1.0, 0.0]}]
    }


def test_whole_numbers_as_scores() -> None:
    write = answers(spec("votes", DataType.INT64, -1, 2, labels=("a", "b")))
    votes = np.array([[1, 2], [3, 4]], np.longlong)
    assert json.loads(write.classification((votes,), 0, None)) == {
        "results": [[["a", 1], ["b", 2]], [["a", 3], ["b", 4]]]
    }


def test_nonfinite_numbers_as_text_leave_the_others_their_digits() -> None:
    write = answers(spec("y", DataType.FP32, -1), nonfinite="string")
    assert write.columns((np.array([0.1, np.nan, -np.inf], np.float32),)) == b'{"outputs":[0.1,"NaN","-Infinity"]}'
