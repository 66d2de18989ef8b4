"""Inference over gRPC against a real server: how messages are read and written, and what must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from paceline.server.messages import message
from paceline.testing import RunningServer, run_server
from support import grpcs, models, oip_models

FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
A = np.array([[0.5, -1.0]], "<f4")
B = np.array([[1, 2]], "<i8")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = models.two_in_two_out(tmp_path_factory.mktemp("grpc") / "pair.onnx")
    with run_server(path, ["--warmup-s", "0.05", "--server-name", "triton"]) as server:
        yield server


@pytest.fixture(scope="module")
def channel(pair: RunningServer) -> Iterator[grpc.Channel]:
    with grpcs.connect(pair) as channel:
        yield channel


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    path = oip_models.identities(tmp_path_factory.mktemp("grpc") / "every.onnx", [*FIELDS])
    with run_server(path, ["--warmup-s", "0.05"]) as server, grpcs.connect(server) as channel:
        yield channel


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    path = oip_models.text(tmp_path_factory.mktemp("grpc") / "text.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as server, grpcs.connect(server) as channel:
        yield channel


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    path = models.identity(tmp_path_factory.mktemp("grpc") / "half.onnx", oip_models.ELEMENTS["FP16"])
    with run_server(path, ["--warmup-s", "0.05"]) as server, grpcs.connect(server) as channel:
        yield channel


def request(a: np.ndarray = A, b: np.ndarray = B, **more: Any) -> Any:
    """A raw request; what is given replaces the usual."""
    fields: dict[str, Any] = {
        "model_name": "pair",
        "inputs": [grpcs.described("a", a, "FP32"), grpcs.described("b", b, "INT64")],
        "raw_input_contents": [a.tobytes(), b.tobytes()],
    }
    return grpcs.REQUEST(**{**fields, **more})


def typed(**contents: Any) -> Any:
    a = {**grpcs.described("a", A, "FP32"), "contents": {"fp32_contents": A.ravel().tolist()}}
    b = {**grpcs.described("b", B, "INT64"), "contents": {"int64_contents": B.ravel().tolist()}}
    return grpcs.REQUEST(model_name="pair", inputs=[{**a, **contents}, b])


def outputs(response: Any) -> dict[str, np.ndarray]:
    """Every output is raw, in the order of its description."""
    assert len(response.outputs) == len(response.raw_output_contents)
    kinds = {"FP32": "<f4", "INT64": "<i8"}
    return {
        each.name: np.frombuffer(raw, kinds[each.datatype]).reshape(each.shape)
        for each, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def test_raw_and_typed_contents_give_raw_outputs(channel: grpc.Channel) -> None:
    for asked in (request(), typed()):
        response = grpcs.ask(channel, "ModelInfer", request=asked)
        assert (response.model_name, response.model_version, response.id) == ("pair", "1", "")
        got = outputs(response)
        assert list(got) == ["sum", "doubled"]
        assert np.array_equal(got["sum"], A + B)
        assert np.array_equal(got["doubled"], B + B)


def test_requested_outputs_decide_which_and_in_which_order(channel: grpc.Channel) -> None:
    names = [{"name": "doubled"}, {"name": "sum"}]
    assert list(outputs(grpcs.ask(channel, "ModelInfer", request=request(outputs=names)))) == ["doubled", "sum"]
    assert list(outputs(grpcs.ask(channel, "ModelInfer", request=request(outputs=names[:1])))) == ["doubled"]


def test_inputs_may_come_in_any_order_and_raw_contents_follow_them(channel: grpc.Channel) -> None:
    swapped = request(
        inputs=[grpcs.described("b", B, "INT64"), grpcs.described("a", A, "FP32")],
        raw_input_contents=[B.tobytes(), A.tobytes()],
    )
    for _ in range(3):
        assert np.array_equal(outputs(grpcs.ask(channel, "ModelInfer", request=swapped))["sum"], A + B)


def test_requests_that_look_alike_differ_in_their_tensors_ids_and_shapes(channel: grpc.Channel) -> None:
    random = np.random.default_rng(3)
    for number in range(40):
        rows = 1 + number % 3
        a = random.standard_normal((rows, 2)).astype("<f4")
        b = random.integers(-9, 9, (rows, 2)).astype("<i8")
        shape = () if number % 4 else ({"name": "doubled"},)
        name = ("", f"{number:04}", "ü\u20ac", "\U0001f600")[number % 4]
        asked = request(a, b, id=name, outputs=shape, model_version="" if number % 5 else "1")
        response = grpcs.ask(channel, "ModelInfer", request=asked)
        got = outputs(response)
        assert response.id == name
        assert np.array_equal(got["doubled"], b + b)
        if not shape:
            assert np.array_equal(got["sum"], a + b.astype("<f4"))


def test_an_id_that_is_no_text_is_refused_also_where_others_looked_alike(channel: grpc.Channel) -> None:
    good = request(id="wxyz").SerializeToString()
    method = channel.unary_unary(f"/{grpcs.SERVICE}/ModelInfer")
    for _ in range(2):
        assert message("inference.ModelInferResponse").FromString(method(good, timeout=20)).id == "wxyz"
    with pytest.raises(grpc.RpcError) as caught:
        method(good.replace(b"wxyz", b"wx\xff\xfe"), timeout=20)
    assert caught.value.code().name == "INVALID_ARGUMENT"  # type: ignore[attr-defined]


@pytest.mark.parametrize("raw", [True, False])
def test_every_datatype(every: grpc.Channel, raw: bool) -> None:
    kinds = {label: oip_models.ELEMENTS[label] for label in FIELDS}
    values = {label: np.array([[0, 1], [1, 0]], _dtype(label)) for label in kinds}
    inputs = [grpcs.described(f"in_{label}", array, label) for label, array in values.items()]
    if not raw:
        for each, (label, array) in zip(inputs, values.items(), strict=True):
            each["contents"] = {FIELDS[label]: array.ravel().tolist()}
    contents = [array.tobytes() for array in values.values()] if raw else []
    response = grpcs.ask(
        every, "ModelInfer", request=grpcs.REQUEST(model_name="every", inputs=inputs, raw_input_contents=contents)
    )
    assert [each.datatype for each in response.outputs] == [*FIELDS]
    assert list(response.raw_output_contents) == [array.tobytes() for array in values.values()]


def _dtype(label: str) -> str:
    return {"BOOL": "?", "FP32": "<f4", "FP64": "<f8"}.get(label, label.lower())


def test_text_raw_and_typed(text: grpc.Channel) -> None:
    items = [b"", "über".encode(), b"\xff\x00"]
    packed = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    described = {"name": "x", "shape": [3, 1], "datatype": "BYTES"}
    raw = {"inputs": [described], "raw_input_contents": [packed]}
    typed = {"inputs": [{**described, "contents": {"bytes_contents": items}}]}
    for fields in (raw, typed):
        if fields is typed:
            packed = packed.replace(b"\xff\x00", b"ok")
            fields["inputs"][0]["contents"]["bytes_contents"] = [*items[:2], b"ok"]  # type: ignore[index]
        else:
            fields["raw_input_contents"] = [packed.replace(b"\xff\x00", b"ok")]
        response = grpcs.ask(text, "ModelInfer", model_name="text", **fields)
        assert response.raw_output_contents[0] == packed.replace(b"\xff\x00", b"ok")


def test_half_floats_are_raw_only(half: grpc.Channel) -> None:
    x = np.array([[0.1, -2, 65504]], "<f2")
    raw = {"model_name": "half", "inputs": [grpcs.described("x", x, "FP16")], "raw_input_contents": [x.tobytes()]}
    assert grpcs.ask(half, "ModelInfer", **raw).raw_output_contents[0] == x.tobytes()
    contents = {**grpcs.described("x", x, "FP16"), "contents": {"fp32_contents": [0.1, -2, 65504]}}
    shown = grpcs.refused(half, grpcs.REQUEST(model_name="half", inputs=[contents]))
    assert shown == ("receiving FP16 data in contents is not supported. Please use raw_input_contents for input 'x'")


def _with(**changes: Any) -> Any:
    """A raw request with input `a` changed."""
    a = {**grpcs.described("a", A, "FP32"), **changes}
    return request(inputs=[a, grpcs.described("b", B, "INT64")])


REFUSALS: dict[str, tuple[Any, str]] = {
    "both contents": (
        _with(contents={"fp32_contents": [1, 2]}),
        "contents field must not be specified when using raw_input_contents for 'a' for model 'pair'",
    ),
    "too few raw": (
        request(raw_input_contents=[A.tobytes()]),
        "raw_input_contents has 1 entries, and none for input 'b' for model 'pair'",
    ),
    "too many raw": (
        request(raw_input_contents=[A.tobytes(), B.tobytes(), b"x"]),
        "unexpected additional input data for model 'pair'",
    ),
    "byte size": (
        request(raw_input_contents=[A.tobytes() + b"1234", B.tobytes()]),
        "input byte size mismatch for input 'a' for model 'pair'. Expected 8, got 12",
    ),
    "datatype": (_with(datatype="FP64"), "inference input 'a' data-type is 'FP64', but model 'pair' expects 'FP32'"),
    "shape": (_with(shape=[2]), "unexpected shape for input 'a' for model 'pair'. Expected [-1,2], got [2]."),
    "negative shape": (
        _with(shape=[-1, 2]),
        "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer",
    ),
    "impossible shape": (
        _with(shape=[2**62, 2**62]),
        f"input 'a' has an impossible shape: [{2**62},{2**62}]",
    ),
    "unknown input": (_with(name="c"), "expected 2 inputs but got 2 inputs for model 'pair'. Got input(s) ['c', 'b']"),
    "input twice": (
        request(inputs=[grpcs.described("a", A, "FP32")] * 2),
        "input 'a' already exists in request",
    ),
    "no inputs": (grpcs.REQUEST(model_name="pair"), "expected 2 inputs but got 0 inputs for model 'pair'."),
    "unknown output": (
        request(outputs=[{"name": "no"}]),
        "unexpected inference output 'no' for model 'pair'. Its outputs are ['sum', 'doubled']",
    ),
    "output twice": (request(outputs=[{"name": "sum"}] * 2), "output 'sum' already exists in request"),
    "reserved parameter": (
        request(parameters={"triton_x": {"bool_param": True}}),
        "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
    ),
    "timeout": (request(parameters={"timeout": {"string_param": "1"}}), "Unable to parse 'timeout'"),
    "classification": (
        request(outputs=[{"name": "sum", "parameters": {"classification": {"int64_param": -1}}}]),
        "Unable to parse 'classification'",
    ),
    "shared memory in": (
        _with(parameters={"shared_memory_region": {"string_param": "r"}}),
        "Unable to find shared memory region: 'r'",
    ),
    "shared memory out": (
        request(outputs=[{"name": "sum", "parameters": {"shared_memory_region": {"string_param": "r"}}}]),
        "Unable to find shared memory region: 'r'",
    ),
    "typed count": (
        typed(contents={"fp32_contents": [1.0]}),
        "Shape does not match true shape of 'fp32_contents' field: input 'a' of shape [1,2] has 2 elements, got 1",
    ),
    "another type's field": (
        typed(contents={"int_contents": [1, 2]}),
        "Shape does not match true shape of 'fp32_contents' field",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_fault_is_refused_in_tritons_words(channel: grpc.Channel, case: str) -> None:
    asked, text = REFUSALS[case]
    for _ in range(2):
        assert grpcs.refused(channel, asked).startswith(text)
        grpcs.ask(channel, "ModelInfer", request=request())


def test_a_number_out_of_its_datatypes_range_is_refused(every: grpc.Channel) -> None:
    inputs = [
        {**grpcs.described(f"in_{label}", np.zeros((1, 2)), label), "contents": {field: [0, 300]}}
        for label, field in {"INT8": "int_contents"}.items()
    ]
    shown = grpcs.refused(every, grpcs.REQUEST(model_name="every", inputs=inputs))
    assert shown == "input 'in_INT8': a value of int_contents is out of range for INT8: -128 to 127"


def test_models_that_are_not_there_and_messages_that_are_none(channel: grpc.Channel) -> None:
    assert grpcs.refused(channel, request(model_name="no"), "NOT_FOUND") == (
        "Request for unknown model: 'no' is not found"
    )
    assert grpcs.refused(channel, request(model_name=""), "NOT_FOUND") == "Request for unknown model: '' is not found"
    assert grpcs.refused(channel, request(model_version="9"), "NOT_FOUND") == (
        "Request for unknown model: 'pair' version 9 is not found"
    )
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{grpcs.SERVICE}/ModelInfer")(b"\xff\xff", timeout=20)
    assert caught.value.code().name == "INVALID_ARGUMENT"  # type: ignore[attr-defined]
    assert "not a inference.ModelInferRequest" in caught.value.details()  # type: ignore[attr-defined]


def test_methods_that_are_not_offered(channel: grpc.Channel) -> None:
    for name in ("SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{grpcs.SERVICE}/{name}")(b"", timeout=20)
        assert caught.value.code().name == "UNIMPLEMENTED"  # type: ignore[attr-defined]


def test_deadlines(channel: grpc.Channel) -> None:
    late = request(parameters={"timeout": {"int64_param": 1}})
    with pytest.raises(grpc.RpcError) as caught:
        grpcs.ask(channel, "ModelInfer", request=late)
    assert caught.value.code().name in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")  # type: ignore[attr-defined]
    for parameter in ({"int64_param": 0}, {"int64_param": 5_000_000}, {"uint64_param": 2**63}):
        grpcs.ask(channel, "ModelInfer", request=request(parameters={"timeout": parameter}))


def test_a_refusal_for_lack_of_time_says_when_to_come_back(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        grpcs.ask(channel, "ModelInfer", request=request(parameters={"timeout": {"int64_param": 1}}))
    error: Any = caught.value
    if error.code().name == "RESOURCE_EXHAUSTED":
        trailers = dict(error.trailing_metadata())
        assert int(trailers["grpc-retry-pushback-ms"]) >= 1
        status = message("google.rpc.Status").FromString(trailers["grpc-status-details-bin"])
        retry = message("google.rpc.RetryInfo")()
        assert status.code == 8
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.seconds + retry.retry_delay.nanos > 0


def test_zero_rows(channel: grpc.Channel) -> None:
    a, b = np.zeros((0, 2), "<f4"), np.zeros((0, 2), "<i8")
    for asked in (request(a, b), request(a, b, raw_input_contents=[])):
        for _ in range(2):
            got = outputs(grpcs.ask(channel, "ModelInfer", request=asked))
            assert got["sum"].shape == (0, 2)


def test_what_is_said_about_server_and_model(channel: grpc.Channel, pair: RunningServer) -> None:
    assert grpcs.ask(channel, "ServerLive").live
    assert grpcs.ask(channel, "ServerReady").ready
    assert grpcs.ask(channel, "ModelReady", name="pair", version="1").ready
    server = grpcs.ask(channel, "ServerMetadata")
    assert (server.name, "statistics" in server.extensions) == ("triton", True)
    described = grpcs.ask(channel, "ModelMetadata", name="pair")
    assert list(described.versions) == ["1"]
    assert [(each.name, each.datatype, list(each.shape)) for each in described.inputs] == [
        ("a", "FP32", [-1, 2]),
        ("b", "INT64", [-1, 2]),
    ]
    config = grpcs.ask(channel, "ModelConfig", name="pair").config
    assert config.max_batch_size >= 1
    assert [list(each.dims) for each in config.input] == [[2], [2]]
    assert config.HasField("model_transaction_policy")


def test_statistics_are_those_of_rest(channel: grpc.Channel) -> None:
    (before,) = grpcs.ask(channel, "ModelStatistics").model_stats
    grpcs.ask(channel, "ModelInfer", request=request())
    (after,) = grpcs.ask(channel, "ModelStatistics", name="pair").model_stats
    assert after.inference_count - before.inference_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1


def test_without_a_repository_models_do_not_come_and_go(channel: grpc.Channel) -> None:
    text = "explicit model load / unload is not allowed if polling is enabled"
    for name, fields in (
        ("RepositoryIndex", {}),
        ("RepositoryModelLoad", {"model_name": "pair"}),
        ("RepositoryModelUnload", {"model_name": "pair"}),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            grpcs.ask(channel, name, **fields)
        error: Any = caught.value
        assert (error.code().name, error.details()) == ("UNAVAILABLE", text)


def test_a_model_that_is_not_there_is_not_ready(served):
    with grpcs.connect(served["mlp"].server) as channel:
        assert not grpcs.ask(channel, "ModelReady", name="nothing").ready
        assert not grpcs.ask(channel, "ModelReady", name="mlp", version="9").ready
        assert grpcs.ask(channel, "ModelReady", name="mlp").ready
