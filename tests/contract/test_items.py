"""User code that takes items of JSON, through every protocol: the same item gives the same prediction."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from support import grpcs, tfs_grpcs
from support.recording import Recording, recording

LENGTH = "Inference-Header-Content-Length"
ITEMS = [
    1,
    -1e-30,
    2**63,
    'grün 😀 \u0000 " \\',
    True,
    None,
    [],
    {"a": [1, {"b": None}], "": "x"},
    {"b64": "eA=="},
    "x" * 5000,
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    with recording(tmp_path_factory.mktemp("items"), "--max-queue-requests", "8", "--max-batch-size", "4") as service:
        yield service


# -- protocols: items to predictions ----------------------------------------------------------------------


def one_by_one(service: Recording, items: Sequence[Any]) -> list[Any]:
    return [good(service.post("/predict", json.dumps(item))) for item in items]


def a_list(service: Recording, items: Sequence[Any]) -> list[Any]:
    return good(service.post("/batch-predict", json.dumps(items)))


def instances(service: Recording, items: Sequence[Any]) -> list[Any]:
    return good(service.post(f"/v1/models/{service.name}:predict", {"instances": items}))["predictions"]


def whole_tensor(service: Recording, items: Sequence[Any]) -> list[Any]:
    return good(service.post(f"/v1/models/{service.name}:predict", {"inputs": items}))["outputs"]


def oip_json(service: Recording, items: Sequence[Any]) -> list[Any]:
    tensor = {"name": "item", "datatype": "BYTES", "shape": [len(items)], "data": texts(items)}
    (output,) = good(service.post(f"/v2/models/{service.name}/infer", {"inputs": [tensor]}))["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("prediction", "BYTES", [len(items)])
    return [json.loads(text) for text in output["data"]]


def oip_binary(service: Recording, items: Sequence[Any]) -> list[Any]:
    blob = packed(items)
    tensor = {"name": "item", "datatype": "BYTES", "shape": [len(items)]}
    tensor["parameters"] = {"binary_data_size": len(blob)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    answer = service.post(
        f"/v2/models/{service.name}/infer", head + blob, "application/octet-stream", {LENGTH: str(len(head))}
    )
    assert answer.status == 200, answer.text
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return unpacked(answer.body[int(headers[LENGTH.lower()]) :])


def oip_grpc_raw(service: Recording, items: Sequence[Any]) -> list[Any]:
    return by_grpc(service, items, raw_input_contents=[packed(items)])


def oip_grpc_typed(service: Recording, items: Sequence[Any]) -> list[Any]:
    return by_grpc(service, items, bytes_contents=[text.encode() for text in texts(items)])


def by_grpc(service: Recording, items: Sequence[Any], bytes_contents: Any = None, **fields: Any) -> list[Any]:
    tensor: dict[str, Any] = {"name": "item", "datatype": "BYTES", "shape": [len(items)]}
    if bytes_contents is not None:
        tensor["contents"] = {"bytes_contents": bytes_contents}
    with grpcs.connect(service.server) as channel:
        answer = grpcs.ask(channel, "ModelInfer", model_name=service.name, inputs=[tensor], **fields)
    return unpacked(answer.raw_output_contents[0])


def tfs_grpc(service: Recording, items: Sequence[Any]) -> list[Any]:
    tensor = tfs_grpcs.typed(np.array(texts(items), object))
    with grpcs.connect(service.server) as channel:
        answer = tfs_grpcs.ask(channel, "Predict", model_spec={"name": service.name}, inputs={"item": tensor})
    return [json.loads(text) for text in tfs_grpcs.array_of(answer.outputs["prediction"])]


Protocol = Callable[[Recording, Sequence[Any]], list[Any]]
PROTOCOLS: dict[str, Protocol] = {
    "plain predict": one_by_one,
    "plain batch-predict": a_list,
    "TensorFlow Serving rows": instances,
    "TensorFlow Serving columns": whole_tensor,
    "Open Inference JSON": oip_json,
    "Open Inference binary": oip_binary,
    "Open Inference gRPC, raw": oip_grpc_raw,
    "Open Inference gRPC, typed": oip_grpc_typed,
    "TensorFlow Serving gRPC": tfs_grpc,
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_items_give_the_same_predictions(service: Recording, protocol: str) -> None:
    predictions = PROTOCOLS[protocol](service, ITEMS)
    assert [prediction["item"] for prediction in predictions] == ITEMS


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fault_60_equal_items_keep_their_order_and_number(service: Recording, protocol: str) -> None:
    before = len(service.ran)
    items = [f"{protocol} {number}" for number in (3, 1, 3, 2, 1, 3)]
    predictions = PROTOCOLS[protocol](service, items)
    assert [prediction["item"] for prediction in predictions] == items
    if protocol != "plain predict":  # one after the other, nothing is under way any more
        assert sorted(service.ran[before:]) == sorted(set(items))


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "plain predict"])
def test_fault_51_no_items_are_answered_with_no_predictions(service: Recording, protocol: str) -> None:
    assert PROTOCOLS[protocol](service, []) == []


# -- what goes wrong --------------------------------------------------------------------------------------


def test_in_a_list_an_item_fails_alone(service: Recording) -> None:
    predictions = a_list(service, ["good 1", "poison", {"a": 1}, "poison", "good 2"])
    assert [prediction.get("item") for prediction in predictions] == ["good 1", None, {"a": 1}, None, "good 2"]
    assert predictions[1] == predictions[3]
    assert predictions[1]["code"] == "model_failed"
    assert "ValueError" in predictions[1]["error"]
    assert predictions[1]["request_id"]


def test_fault_56_the_poison_of_one_list_is_not_in_another(service: Recording) -> None:
    longer = [f"innocent {number}" for number in range(11)]
    predictions = a_list(service, [*longer, "poison", *longer])
    assert [prediction.get("item") for prediction in predictions] == [*longer, None, *longer]


@pytest.mark.parametrize("path", ["/predict", "/v1/models/recording:predict"])
def test_without_a_place_for_it_the_error_is_the_answer(service: Recording, path: str) -> None:
    body: Any = '"poison"' if path == "/predict" else {"instances": [1, "poison"]}
    answer = service.post(path, body)
    assert (answer.status, answer.json["code"]) == (500, "model_failed")


def test_over_grpc_the_error_is_the_status(service: Recording) -> None:
    request = grpcs.REQUEST(
        model_name=service.name,
        inputs=[{"name": "item", "datatype": "BYTES", "shape": [2]}],
        raw_input_contents=[packed([1, "poison"])],
    )
    tensor = tfs_grpcs.typed(np.array(texts([1, "poison"]), object))
    with grpcs.connect(service.server) as channel:
        assert "ValueError" in grpcs.refused(channel, request, "INTERNAL")
        spec = {"name": service.name}
        assert "ValueError" in tfs_grpcs.refused(
            channel, "Predict", "INTERNAL", model_spec=spec, inputs={"item": tensor}
        )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "empty"),
        (b"[1,", "byte 3"),
        (b"[1,2] 3", "byte 7"),
        (b'[1,{"a":1,}]', "byte 10"),
        (b'[1,"\xff"]', "byte 4"),
        (b"\xef\xbb\xbf[1]", "byte 0"),
        (b"[NaN]", "byte 1"),
        (b'["\\udc00 and more"]', "byte"),
        (b"[" * 100_000, "deep"),
        (b'{"a":1}', "array"),
    ],
)
def test_faults_39_to_46_what_is_no_list_is_refused_with_the_place(service: Recording, body: bytes, text: str) -> None:
    answer = service.post("/batch-predict", body)
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.parametrize(("body", "text"), [(b"", "empty"), (b"{", "byte 1"), (b'"\xff"', "byte 1"), (b"1 2", "byte")])
def test_what_is_no_item_is_refused_with_the_place(service: Recording, body: bytes, text: str) -> None:
    answer = service.post("/predict", body)
    assert answer.status == 400
    assert text in answer.error


def test_fault_43_a_number_that_nothing_can_hold_is_its_items_fault(service: Recording) -> None:
    answer = service.post("/batch-predict", b'["before", 1e999, "after"]')
    first, second, third = answer.json
    assert (first["item"], third["item"]) == ("before", "after")
    assert second["code"] == "invalid_request"
    assert service.post("/predict", b"1e999").status == 400


def test_an_element_that_is_no_json_is_named(service: Recording) -> None:
    tensor = {"name": "item", "datatype": "BYTES", "shape": [2], "data": ["1", "oops"]}
    answer = service.post(f"/v2/models/{service.name}/infer", {"inputs": [tensor]})
    assert answer.status == 400
    assert "item[1]" in answer.error
    blob = struct.pack("<I", 4) + b"oops"
    described = {"name": "item", "datatype": "BYTES", "shape": [1]}
    request = grpcs.REQUEST(model_name=service.name, inputs=[described], raw_input_contents=[blob])
    with grpcs.connect(service.server) as channel:
        assert "item[0]" in grpcs.refused(channel, request)
        strings = tfs_grpcs.typed(np.array(["1", "oops"], object))
        spec = {"name": service.name}
        assert "item[1]" in tfs_grpcs.refused(channel, "Predict", model_spec=spec, inputs={"item": strings})


def test_fault_52_a_list_that_can_never_wait_is_refused_and_an_equal_one_is_not(service: Recording) -> None:
    answer = service.post("/batch-predict", list(range(100, 133)))
    assert (answer.status, answer.json["code"]) == (413, "request_too_large")
    assert len(a_list(service, ["the same"] * 33)) == 33


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"instances": 1}, "instances: Expected `array`"),
        ({"inputs": {"item": [1]}}, "inputs: Expected `array`"),
        ({"instances": [1], "inputs": [1]}, "one of the keys"),
        ({}, "one of the keys"),
        ([1], "Expected `object`"),
        ({"instances": [1], "signature_name": "other"}, "other"),
    ],
)
def test_what_tensorflow_serving_would_not_take_is_refused(service: Recording, body: Any, text: str) -> None:
    answer = service.post(f"/v1/models/{service.name}:predict", body)
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_items_are_not_classified(service: Recording, verb: str) -> None:
    answer = service.post(f"/v1/models/{service.name}:{verb}", {"examples": [{"a": 1}]})
    assert answer.status == 400
    assert "signature" in answer.error


# -- what is told about it --------------------------------------------------------------------------------


def test_metadata_says_bytes_in_and_out(service: Recording) -> None:
    found = service.get(f"/v2/models/{service.name}").json
    assert found["inputs"] == [{"name": "item", "datatype": "BYTES", "shape": [-1]}]
    assert found["outputs"] == [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}]


@pytest.mark.parametrize("query", ["", "?for=batch-predict", "?for=v1", "?for=v2"])
def test_without_an_example_it_is_told_how_to_give_one(service: Recording, query: str) -> None:
    answer = service.get(f"/example{query}")
    assert answer.status == 400
    assert "example()" in answer.error
    assert "--examples" in answer.error


# -- how protocols write items ----------------------------------------------------------------------------


def good(answer: Any) -> Any:
    assert answer.status == 200, answer.text
    return answer.json


def texts(items: Sequence[Any]) -> list[str]:
    return [json.dumps(item, ensure_ascii=False) for item in items]


def packed(items: Sequence[Any]) -> bytes:
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in (text.encode() for text in texts(items)))


def unpacked(raw: bytes) -> list[Any]:
    items = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        items.append(json.loads(raw[4 : 4 + size]))
        raw = raw[4 + size :]
    return items
