"""TensorFlow Serving's gRPC API against real server processes: how messages are read and written, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from paceline.server.messages import message
from paceline.testing import run_server
from support import grpcs, models, oip_models
from support.repositories import wait
from support.served import ServedModels
from support.tfs_grpcs import FIELDS, TYPES, array_of, ask, examples, raw, refused, tensor, typed
from support.wire import metric

WARM = ["--warmup-s", "0.05"]
HALF = {"name": "half_plus_two"}
TWO = {"name": "two"}
A = np.array([[0.5, -1.0]], np.float32)
B = np.array([[1, 2]], np.int64)
LIMITS = {"int8": (-128, 127), "int16": (-(2**15), 2**15 - 1), "uint8": (0, 255), "uint16": (0, 2**16 - 1)}
SETOSA = [5.1, 3.5, 1.4, 0.2]


@pytest.fixture(scope="module")
def half(served: ServedModels) -> Iterator[grpc.Channel]:
    with grpcs.connect(served["half_plus_two"].server) as channel:
        yield channel


@pytest.fixture(scope="module")
def two(served: ServedModels) -> Iterator[grpc.Channel]:
    with grpcs.connect(served["two"].server) as channel:
        yield channel


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """All datatypes in one model, each `in_X` to the same `out_X`."""
    folder = tmp_path_factory.mktemp("tfs")
    path = oip_models.identities(folder / "every.onnx", [name for name in oip_models.ELEMENTS if name != "BF16"])
    with run_server(path, WARM) as server, grpcs.connect(server) as channel:
        yield channel


def predict(channel: grpc.Channel, x: Any, **spec: Any) -> Any:
    return ask(channel, "Predict", model_spec={**HALF, **spec}, inputs={"x": x})


def predict_later(channel: grpc.Channel, **fields: Any) -> grpc.Future:
    request = message("tensorflow.serving.PredictRequest")
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict", request.SerializeToString)
    return call.future(request(**fields), timeout=20)


def predicted(channel: grpc.Channel, x: Any) -> list[float]:
    answer: list[float] = array_of(predict(channel, x).outputs["y"]).tolist()
    return answer


def not_predicted(channel: grpc.Channel, x: Any, code: str = "INVALID_ARGUMENT") -> str:
    return refused(channel, "Predict", code=code, model_spec=HALF, inputs={"x": x})


# -- tensors in -------------------------------------------------------------------------------------------


def test_a_response_echoes_the_name_the_resolved_version_and_the_whole_signature_name(half: grpc.Channel):
    spec = predict(half, typed(np.float32([1]))).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 1, "serving_default")
    assert predict(half, typed(np.float32([1])), signature_name="serving_default", version={"value": 1}).outputs


@pytest.mark.parametrize(
    ("given", "shape", "expected"),
    [
        ([1.0], [3], [2.5, 2.5, 2.5]),
        ([1.0, 3.0], [4], [2.5, 3.5, 3.5, 3.5]),
        ([], [2], [2.0, 2.0]),
        ([], [0], []),
        ([float(n) for n in range(100)], [100], [n / 2 + 2 for n in range(100)]),
        ([float(n) for n in range(100)], [102], [*[n / 2 + 2 for n in range(100)], 51.5, 51.5]),
    ],
)
def test_the_last_value_stands_for_those_that_are_not_given(
    half: grpc.Channel, given: list[float], shape: list[int], expected: list[float]
):
    assert predicted(half, tensor("DT_FLOAT", shape, float_val=given)) == expected


def test_values_that_are_not_packed_are_read(half: grpc.Channel):
    one_by_one = b"".join(b"\x2d" + np.float32(n).tobytes() for n in range(100))
    x = message("tensorflow.TensorProto").FromString(tensor("DT_FLOAT", [100]).SerializeToString() + one_by_one)
    assert predicted(half, x) == [n / 2 + 2 for n in range(100)]


def test_fields_behind_the_values_do_not_matter(half: grpc.Channel):
    x = tensor("DT_FLOAT", [100], float_val=range(100), uint64_val=[1, 2, 3])
    assert predicted(half, x) == [n / 2 + 2 for n in range(100)]


@pytest.mark.parametrize("write", [typed, raw])
def test_every_datatype_comes_back_as_it_was_sent(every: grpc.Channel, write: Any):
    sent: dict[str, Any] = {}
    for kind, (dtype, _) in FIELDS.items():
        name = {"object": "BYTES", "bool": "BOOL", "float32": "FP32", "float64": "FP64"}.get(kind, kind.upper())
        low, high = LIMITS.get(kind, (0, 1))
        array = np.array([[low, high], [1, 0]]).astype(kind) if kind != "object" else np.array([["", "grün"]] * 2, "O")
        sent[name] = write(array)
        assert sent[name].dtype == TYPES[dtype].number
    bits = np.array([[1.5, -0.0], [65504, 6e-8]], np.float16)
    content = {"tensor_content": bits.tobytes()} if write is raw else {"half_val": bits.view("<u2").ravel().tolist()}
    sent["FP16"] = tensor("DT_HALF", bits.shape, **content)
    answer = ask(every, "Predict", model_spec={"name": "every"}, inputs={f"in_{name}": x for name, x in sent.items()})
    assert {name.removeprefix("out_") for name in answer.outputs} == sent.keys()
    assert array_of(answer.outputs["out_FP16"]).tobytes() == bits.tobytes()
    for name in sent.keys() - {"FP16"}:
        output = answer.outputs[f"out_{name}"]
        assert not output.tensor_content
        assert output.dtype == sent[name].dtype
        if write is typed:
            assert output == sent[name], name


@pytest.mark.parametrize(("name", "dtype", "value"), [("INT8", "DT_INT8", 128), ("UINT16", "DT_UINT16", -1)])
def test_a_value_out_of_range_is_refused(every: grpc.Channel, name: str, dtype: str, value: int):
    inputs = {}
    for each in ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"):
        inputs[f"in_{each}"] = tensor(f"DT_{each}", [1, 2])
    inputs |= {"in_FP16": tensor("DT_HALF", [1, 2]), "in_FP32": tensor("DT_FLOAT", [1, 2])}
    inputs |= {"in_FP64": tensor("DT_DOUBLE", [1, 2]), "in_BYTES": tensor("DT_STRING", [1, 2])}
    zeros = ask(every, "Predict", model_spec={"name": "every"}, inputs=inputs)
    assert array_of(zeros.outputs["out_BYTES"]).tolist() == [["", ""]]
    assert array_of(zeros.outputs["out_FP16"]).tolist() == [[0, 0]]
    inputs[f"in_{name}"] = tensor(dtype, [1, 2], int_val=[value])
    text = refused(every, "Predict", model_spec={"name": "every"}, inputs=inputs)
    assert text.startswith(f"input 'in_{name}': a value is out of range for {name.lower()}")
    inputs[f"in_{name}"] = tensor(dtype, [1, 2])
    inputs["in_FP16"] = tensor("DT_HALF", [1, 2], half_val=[65536])
    assert "bit patterns" in refused(every, "Predict", model_spec={"name": "every"}, inputs=inputs)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (tensor("DT_INT32", [1], int_val=[1]), "Expects input 'x' to be float but int32 is provided"),
        (tensor("DT_COMPLEX64", [1]), "Expects input 'x' to be float but type 8 is provided"),
        (tensor("DT_FLOAT", [1], float_val=[1, 2]), "input 'x': float_val has 2 values, its tensor_shape needs 1"),
        (
            tensor("DT_FLOAT", [2], tensor_content=b"1234"),
            "input 'x': tensor_content has 4 bytes, its tensor_shape needs 8",
        ),
        (tensor("DT_FLOAT", [-1], float_val=[1]), "input 'x' has no valid tensor_shape: [-1]"),
        (tensor("DT_FLOAT", [-1] * 9), "input 'x' has no valid tensor_shape: [-1,-1,-1,-1,-1,-1,-1,-1,...]"),
        (tensor("DT_FLOAT", [0, 2**62, 2**62]), "input 'x' has no valid tensor_shape"),
        (
            tensor("DT_FLOAT", [1, 1], float_val=[1]),
            "unexpected shape for input 'x' for model 'half_plus_two'. Expected [-1], got [1,1].",
        ),
        (
            tensor("DT_FLOAT", [], float_val=[1]),
            "unexpected shape for input 'x' for model 'half_plus_two'. Expected [-1], got [].",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(half: grpc.Channel, x: Any, text: str):
    assert not_predicted(half, x).startswith(text)


def test_a_shape_without_a_rank_is_refused(half: grpc.Channel):
    x = tensor("DT_FLOAT", [], float_val=[1])
    x.tensor_shape.unknown_rank = True
    assert "no valid tensor_shape" in not_predicted(half, x)


def test_a_small_message_cannot_ask_for_a_huge_tensor(half: grpc.Channel):
    for shape in ([2**40], [2**62]):
        text = not_predicted(half, tensor("DT_FLOAT", shape, float_val=[1]), code="RESOURCE_EXHAUSTED")
        assert text.startswith(f"input 'x': {shape[0]} elements are more than the")


def test_strings_as_content_are_refused(served: ServedModels):
    with grpcs.connect(served["words"].server) as channel:
        x = tensor("DT_STRING", [1], tensor_content=b"\x01a")
        text = refused(channel, "Predict", model_spec={"name": "words"}, inputs={"x": x})
    assert text == "input 'x': strings travel in string_val, not in tensor_content"


# -- which inputs and outputs -----------------------------------------------------------------------------


def test_inputs_that_are_missing_or_too_many_are_named(two: grpc.Channel):
    a, b = typed(A), typed(B)
    assert refused(two, "Predict", model_spec=TWO, inputs={"a": a}) == (
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}."
    )
    text = refused(two, "Predict", model_spec=TWO, inputs={"a": a, "b": b, "c": b})
    assert text.endswith("Sent extra: {c}. Missing but required: {}.")
    assert "Missing but required: {b}." in refused(two, "Predict", model_spec=TWO, inputs={"a": a, "c": b})


def test_inputs_of_different_lengths_are_refused(two: grpc.Channel):
    inputs = {"a": typed(A), "b": typed(np.int64([[1, 2], [3, 4]]))}
    assert "number of rows" in refused(two, "Predict", model_spec=TWO, inputs=inputs)


def test_the_filter_chooses_outputs(two: grpc.Channel):
    fields = {"model_spec": TWO, "inputs": {"a": typed(A), "b": typed(B)}}
    assert set(ask(two, "Predict", **fields).outputs) == {"sum", "doubled"}
    answer = ask(two, "Predict", output_filter=["doubled"], **fields)
    assert list(answer.outputs) == ["doubled"]
    assert list(answer.outputs["doubled"].int64_val) == [2, 4]
    assert refused(two, "Predict", output_filter=["x"], **fields) == (
        "output tensor alias not found in signature: x Outputs expected to be in the set {doubled,sum}."
    )
    assert refused(two, "Predict", output_filter=["sum", "sum"], **fields) == "duplicate output tensor alias: sum"


# -- which model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Predict", "Classify", "Regress", "GetModelMetadata", "GetModelStatus"])
def test_a_request_without_a_model_is_refused(half: grpc.Channel, method: str):
    assert refused(half, method) == "Missing ModelSpec"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"name": "nothing"}, "Latest(nothing)"),
        ({}, "Latest()"),
        ({"name": "half_plus_two", "version": {"value": 7}}, "Specific(half_plus_two, 7)"),
        ({"name": "half_plus_two", "version": {"value": -1}}, "Specific(half_plus_two, -1)"),
        ({"name": "half_plus_two", "version": {}}, "Specific(half_plus_two, 0)"),
    ],
)
def test_what_is_not_there_is_named_in_words_that_clients_look_for(half: grpc.Channel, spec: dict, text: str):
    for method in ("Predict", "Classify", "Regress"):
        assert refused(half, method, code="NOT_FOUND", model_spec=spec) == f"Servable not found for request: {text}"


def test_an_unknown_signature_or_label_is_refused(half: grpc.Channel):
    spec = {**HALF, "signature_name": "other"}
    for method in ("Predict", "Classify", "Regress"):
        text = refused(half, method, code="FAILED_PRECONDITION", model_spec=spec)
        assert text == 'Serving signature key "other" not found.'
    spec = {**HALF, "version_label": "canary"}
    assert refused(half, "Predict", model_spec=spec) == "Unrecognized servable version label: canary"


def test_a_long_message_is_cut(half: grpc.Channel):
    text = refused(half, "Predict", code="NOT_FOUND", model_spec={"name": "n" * 5000})
    assert len(text) == 1024 + len("...TRUNCATED")
    assert text.endswith("nnn...TRUNCATED")


def test_a_message_that_is_none_is_refused(half: grpc.Channel):
    call = half.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with pytest.raises(grpc.RpcError) as error:
        call(b"\xff\xff", timeout=20)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "tensorflow.serving.PredictRequest" in error.value.details()


def test_methods_that_are_not_there_are_unimplemented(half: grpc.Channel):
    with pytest.raises(grpc.RpcError) as error:
        half.unary_unary("/tensorflow.serving.PredictionService/MultiInference")(b"", timeout=20)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.slow
def test_a_call_that_waits_ends_at_its_deadline(tmp_path: Path):
    def ask_for(loops: int) -> dict[str, Any]:
        return {"model_spec": {"name": "patient"}, "inputs": {"n": typed(np.int64([loops]))}}

    def given_up() -> float:
        codes = ("deadline_exceeded", "overloaded", "cancelled")
        return sum(metric(server, "paceline_requests_total", protocol="tfs_grpc", outcome=code) for code in codes)

    (tmp_path / "examples.json").write_text("3000")  # so long that it runs on a thread
    flags = ["--max-batch-size", "1", "--instances", "1", "--examples", str(tmp_path / "examples.json"), *WARM]
    with run_server(models.patient(tmp_path / "patient.onnx"), flags) as server, grpcs.connect(server) as channel:
        running = predict_later(channel, **ask_for(200_000))
        wait(lambda: metric(server, "paceline_running_batches") == 1)
        assert refused(channel, "Predict", code="DEADLINE_EXCEEDED", timeout=0.3, **ask_for(1)) != ""
        wait(lambda: given_up() == 1)
        assert not running.done()
        assert ask(channel, "GetModelStatus", model_spec={"name": "patient"}).model_version_status
        running.cancel()
        wait(lambda: given_up() == 2)


# -- examples ---------------------------------------------------------------------------------------------


def test_classes_have_names_and_scores(served: ServedModels):
    with grpcs.connect(served["flowers"].server) as channel:
        rows = examples({"x": SETOSA}, {"x": [6.7, 3.0, 5.2, 2.3]})
        answer = ask(channel, "Classify", model_spec={"name": "flowers"}, input=rows)
        shared = ask(channel, "Classify", model_spec={"name": "flowers"}, input=examples({}, context={"x": SETOSA}))
    scores = [{each.label: each.score for each in row.classes} for row in answer.result.classifications]
    assert [max(row, key=row.__getitem__) for row in scores] == ["setosa", "virginica"]
    (row,) = shared.result.classifications
    assert {each.label: each.score for each in row.classes} == pytest.approx(scores[0])
    assert (answer.model_spec.version.value, answer.model_spec.signature_name) == (1, "serving_default")


def test_a_regression_gives_a_number_for_each_example(half: grpc.Channel):
    answer = ask(half, "Regress", model_spec=HALF, input=examples({"x": [1.0]}, {"x": [5.0]}))
    assert [each.value for each in answer.result.regressions] == [2.5, 4.5]
    assert answer.model_spec.version.value == 1


def test_models_of_another_kind_neither_classify_nor_regress(half: grpc.Channel, two: grpc.Channel):
    text = refused(half, "Classify", model_spec=HALF, input=examples({"x": [1.0]}))
    assert text.startswith("model 'half_plus_two' has no classification signature")
    assert "no regression signature" in refused(two, "Regress", model_spec=TWO, input=examples({"a": [1.0]}))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "Input is empty."),
        (examples(), "Input is empty."),
        (examples({"y": [1.0]}), "Feature: x (data type: float) is required but could not be found, in example 0"),
        (examples({"x": [1.0]}, {"x": [1]}), "Expected type: float, got int64, in example 1"),
        (examples({"x": [1.0, 2.0]}), "Number of float values != expected.  values size: 2 but output shape: []"),
    ],
)
def test_examples_that_do_not_fit_are_refused(half: grpc.Channel, given: Any, text: str):
    assert text in refused(half, "Regress", model_spec=HALF, input=given)
