"""The binary tensor extension and every datatype, over real servers."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from paceline.testing import run_server
from support import oip, oip_models

INTEGERS = ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
DATATYPES = ["BOOL", *INTEGERS, "FP16", "FP32", "FP64", "BYTES"]
DTYPES = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    name: ("<u" if name.startswith("U") else "<i") + str(int(name.strip("UINT")) // 8) for name in INTEGERS
}


def values(name: str) -> list[Any]:
    """Two rows of two, the extremes among them."""
    if name == "BOOL":
        return [True, False, False, True]
    if name == "BYTES":
        return ["", "über", "a\u0000b", "🙂"]
    if name in INTEGERS:
        limits = np.iinfo(DTYPES[name])
        return [int(limits.min), int(limits.max), 1, 0]
    return [0.1, -1.5, float(np.finfo(DTYPES[name]).max), 0.0]


def packed(name: str, items: list[Any]) -> bytes:
    if name == "BYTES":
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in items)
    return np.array(items, DTYPES[name]).tobytes()


def tensor(name: str, **more: Any) -> dict[str, Any]:
    return {"name": f"in_{name}", "shape": [2, 2], "datatype": name, **more}


def binary(name: str, blob: bytes) -> dict[str, Any]:
    return tensor(name, parameters={"binary_data_size": len(blob)})


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = oip_models.identities(tmp_path_factory.mktemp("oip") / "types.onnx", DATATYPES)
    with run_server(path, ["--warmup-s", "0.05"]) as server, oip.connect(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = oip_models.identities(tmp_path_factory.mktemp("oip") / "brain.onnx", ["BF16"])
    with run_server(path, ["--warmup-s", "0.05"]) as server, oip.connect(server.url) as client:
        yield client


def all_binary() -> tuple[dict[str, Any], list[bytes]]:
    blobs = [packed(name, values(name)) for name in DATATYPES]
    inputs = [binary(name, blob) for name, blob in zip(DATATYPES, blobs, strict=True)]
    return {"inputs": inputs, "parameters": {"binary_data_output": True}}, blobs


def test_every_datatype_in_binary_both_ways(types: httpx.Client) -> None:
    body, blobs = all_binary()
    # Offsets of every remainder, so that tensors start on and off their alignment.
    for padding in range(8):
        body["id"] = "x" * (padding + 1)
        response = oip.infer(types, "types", body, *blobs)
        assert response.headers["content-type"] == "application/octet-stream"
        document, got = oip.split(response)
        assert [output["datatype"] for output in document["outputs"]] == DATATYPES
        assert got == {f"out_{name}": blob for name, blob in zip(DATATYPES, blobs, strict=True)}


def test_every_datatype_in_json_both_ways_and_mixed_with_binary(types: httpx.Client) -> None:
    half = packed("FP16", values("FP16"))
    inputs = [binary(name, half) if name == "FP16" else tensor(name, data=values(name)) for name in DATATYPES]
    outputs = [{"name": f"out_{name}", "parameters": {"binary_data": name == "FP16"}} for name in DATATYPES]
    document, blobs = oip.split(oip.infer(types, "types", {"inputs": inputs, "outputs": outputs}, half))
    assert blobs == {"out_FP16": half}
    for name, output in zip(DATATYPES, document["outputs"], strict=True):
        assert output["shape"] == [2, 2]
        if name not in ("FP16", "FP32"):
            assert output["data"] == values(name)
        elif name == "FP32":
            assert np.array_equal(np.array(output["data"], "f4"), np.array(values(name), "f4"))


def test_floats_are_as_short_as_they_can_be(types: httpx.Client) -> None:
    body, blobs = all_binary()
    body["outputs"] = [{"name": "out_FP32"}, {"name": "out_FP64"}]
    text = oip.infer(types, "types", body, *blobs).text
    assert '"data":[0.1,-1.5,3.4028235e+38,0.0]' in text
    assert '"data":[0.1,-1.5,1.7976931348623157e+308,0.0]' in text


def test_zero_rows_in_binary(types: httpx.Client) -> None:
    inputs = [binary(name, b"") | {"shape": [0, 2]} for name in DATATYPES]
    body = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    document, blobs = oip.split(oip.infer(types, "types", body, b""))
    assert all(output["shape"] == [0, 2] for output in document["outputs"])
    assert set(blobs.values()) == {b""}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_json_length_counts_inflated_bytes(types: httpx.Client, encoding: str) -> None:
    body, blobs = all_binary()
    text = json.dumps(body).encode()
    squeeze = gzip.compress if encoding == "gzip" else zlib.compress
    headers = {"content-encoding": encoding, oip.HEADER.lower(): str(len(text))}
    response = types.post("/v2/models/types/infer", content=squeeze(text + b"".join(blobs)), headers=headers)
    assert oip.split(response)[1]["out_INT64"] == packed("INT64", values("INT64"))


def test_fp16_travels_in_binary_only(types: httpx.Client) -> None:
    body, blobs = all_binary()
    at = DATATYPES.index("FP16")
    del body["parameters"]
    message = oip.error(oip.infer(types, "types", body, *blobs))
    assert message.startswith("sending FP16 data via JSON is not supported. Please use the binary data format")
    body["inputs"][at] = tensor("FP16", data=[1, 2, 3, 4])
    message = oip.error(oip.infer(types, "types", body, *blobs[:at], *blobs[at + 1 :]))
    assert message.startswith("receiving FP16 data via JSON is not supported. Please use the binary data for")


def test_bf16_travels_in_binary_only(brain: httpx.Client) -> None:
    blob = oip_models.bfloat16_bits([1.0, -2.5, -0.0, 2.0**127]).tobytes()
    body = {"inputs": [binary("BF16", blob)], "parameters": {"binary_data_output": True}}
    for padding in range(2):
        body["id"] = "x" * (padding + 1)
        document, blobs = oip.split(oip.infer(brain, "brain", body, blob))
        assert document["outputs"][0]["datatype"] == "BF16"
        assert blobs["out_BF16"] == blob
    message = oip.error(oip.infer(brain, "brain", {"inputs": [binary("BF16", blob)]}, blob))
    assert message.startswith("sending BF16 data via JSON")
    message = oip.error(oip.infer(brain, "brain", {"inputs": [tensor("BF16", data=[1, 2, 3, 4])]}))
    assert message.startswith("receiving BF16 data via JSON")


def test_a_raw_binary_request_is_all_tensor(brain: httpx.Client) -> None:
    for rows in (0, 1, 3):
        blob = oip_models.bfloat16_bits([1.5] * (2 * rows)).tobytes()
        document, blobs = oip.split(oip.infer(brain, "brain", blob, header="0"))
        assert document["outputs"][0]["shape"] == [rows, 2]
        assert blobs == {"out_BF16": blob}
    message = oip.error(oip.infer(brain, "brain", b"123", header="0"))
    assert message == "input byte size mismatch for input 'in_BF16' for model 'brain'. Expected 0, got 3"


def test_a_raw_binary_request_needs_a_model_of_one_input(types: httpx.Client) -> None:
    message = oip.error(oip.infer(types, "types", b"12345678", header="0"))
    assert "must only have 1 input" in message


# -- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "-1",
        "-0",
        "+5",
        "0x10",
        "1e3",
        "",
        "five",
        "5, 5",
        "999999",
        "9" * 30,
        "9" * 5000,
        "18446744073709551621",
    ],
)
def test_fault_062_a_json_length_that_is_negative_absurd_or_past_the_body(brain: httpx.Client, value: str) -> None:
    oip.error(oip.infer(brain, "brain", b"{}", b"1234", header=value))


def test_fault_062_a_json_length_that_cuts_the_json(brain: httpx.Client) -> None:
    blob = bytes(8)
    length = len(json.dumps({"inputs": [binary("BF16", blob)]}))
    for wrong in (1, length - 1, length + 1, length + 8):
        oip.error(oip.infer(brain, "brain", {"inputs": [binary("BF16", blob)]}, blob, header=str(wrong)))


def test_fault_062_too_few_and_too_many_bytes(brain: httpx.Client) -> None:
    body = {"inputs": [binary("BF16", bytes(8))], "parameters": {"binary_data_output": True}}
    message = oip.error(oip.infer(brain, "brain", body, bytes(5)))
    assert message == ("unexpected size for input 'in_BF16', expecting 3 additional bytes for model 'brain'")
    message = oip.error(oip.infer(brain, "brain", body, bytes(9)))
    assert message == "unexpected additional input data for model 'brain'"
    oip.error(oip.infer(brain, "brain", body))  # binary tensors announced, and no header


@pytest.mark.parametrize("size", [-1, -8, 2**63, 10**40, "8", 7, 9])
def test_fault_062_a_tensor_size_that_is_negative_absurd_or_not_the_shape(brain: httpx.Client, size: object) -> None:
    asked = tensor("BF16", parameters={"binary_data_size": size})
    oip.error(oip.infer(brain, "brain", {"inputs": [asked]}, bytes(16)))


def test_fault_063_a_shape_that_overflows_in_binary(brain: httpx.Client) -> None:
    for shape in ([2**62, 4], [2**63, 2], [-1, 2], [2**40, 2**40, 0]):
        asked = binary("BF16", b"") | {"shape": shape}
        assert "shape" in oip.error(oip.infer(brain, "brain", {"inputs": [asked]}, b""))


@pytest.mark.parametrize(
    ("blob", "text"),
    [
        (b"\x01\x00", "incomplete string length indicator"),
        (b"\x05\x00\x00\x00abc", "incomplete string data"),
        (b"\xff\xff\xff\xffabc", "incomplete string data"),
        (b"\x01\x00\x00\x00a", "unexpected number of string elements 1"),
        (b"\x01\x00\x00\x00a" * 5, "unexpected number of string elements 5"),
        (b"\x01\x00\x00\x00\xff" * 4, "UTF-8"),
    ],
)
def test_bytes_elements_that_do_not_add_up(types: httpx.Client, blob: bytes, text: str) -> None:
    body, blobs = all_binary()
    body["inputs"][-1] = binary("BYTES", blob)
    assert text in oip.error(oip.infer(types, "types", body, *blobs[:-1], blob))


def test_a_bool_is_0_or_1(types: httpx.Client) -> None:
    body, blobs = all_binary()
    assert "BOOL" in oip.error(oip.infer(types, "types", body, b"\x00\x01\x02\x01", *blobs[1:]))
