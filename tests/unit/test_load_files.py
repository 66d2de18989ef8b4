"""Which requests do files of rows, of bodies and of recordings hold, and what is wrong with others?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from paceline.core.errors import ConfigError
from paceline.core.tensors import DATATYPES, Signature, TensorSpec
from paceline.loadtest.requests import files, openapi_examples, replay
from paceline.loadtest.requests.servers import ITEMS


def signature(*inputs: tuple[str, str, tuple[int, ...]]) -> Signature:
    return Signature(tuple(TensorSpec(n, DATATYPES[d], s) for n, d, s in inputs), (), batched=True)


TWO = signature(("a", "FP32", (-1, 2)), ("b", "INT64", (-1,)))
ROW = signature(("x", "FP32", (-1, 3)))


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


# -- rows -----------------------------------------------------------------------------------------------------


def test_plain_rows_are_sent_as_they_are_written(tmp_path):
    path = write(tmp_path, "rows.jsonl", '{"a": [1.50, 2], "b": 3}\n\n  {"b":4,"a":[0,0]}  \n')
    found = files.inputs(path, TWO, 1, as_items=True)
    assert found.signature is ITEMS
    assert [array.tolist() for (array,) in found.requests] == [[b'{"a": [1.50, 2], "b": 3}'], [b'{"b":4,"a":[0,0]}']]


def test_rows_become_tensors_for_other_protocols(tmp_path):
    path = write(tmp_path, "rows.json", '[{"a": [1, 2], "b": 3}, {"a": [4, 5], "b": 6}, {"a": [7, 8], "b": 9}]')
    found = files.inputs(path, TWO, 2, as_items=False)
    assert [[array.tolist() for array in each] for each in found.requests] == [
        [[[1, 2], [4, 5]], [3, 6]],
        [[[7, 8], [1, 2]], [9, 3]],
    ]
    assert found.requests[0][0].dtype == np.float32


def test_rows_of_other_lengths_are_requests_of_their_own(tmp_path):
    open_width = signature(("x", "FP32", (-1, -1)))
    path = write(tmp_path, "rows.jsonl", "[1, 2]\n[1, 2, 3]\n")
    shapes = [array.shape for (array,) in files.inputs(path, open_width, 1, as_items=False).requests]
    assert shapes == [(1, 2), (1, 3)]


def test_csv_is_read_by_the_signature(tmp_path):
    path = write(tmp_path, "rows.csv", "p,q,r\n1,2,3\n")
    assert files.inputs(path, ROW, 1, as_items=True).requests[0][0].tolist() == [b"[1,2,3]"]
    assert files.inputs(path, None, 1, as_items=True).requests[0][0].tolist() == [b'{"p":1,"q":2,"r":3}']


def test_a_long_file_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BODIES", 3)
    path = write(tmp_path, "rows.jsonl", "[1, 2, 3]\n" * 7)
    found = files.inputs(path, ROW, 2, as_items=False)
    assert len(found.requests) == 3
    assert found.note == f"of {path} the first 6 rows are sent"
    np.save(tmp_path / "rows.npy", np.ones((7, 3)))
    found = files.inputs(tmp_path / "rows.npy", ROW, 2, as_items=False)
    assert [array.shape for (array,) in found.requests] == [(2, 3)] * 3
    assert found.note.endswith("the first 6 rows are sent")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.jsonl", "[1, 2, 3]\n[1, 2\n", "row 2: expected JSON"),
        ("rows.jsonl", "[1, 2, 3]\n[1, 2]\n", "Expected [-1,3], got [1,2]. (in what begins with [1, 2])"),
        ("rows.jsonl", '["a", 2, 3]\n', "values do not fit"),
        ("rows.jsonl", "", "expected rows, got none"),
        ("rows.json", '{"x": 1}', "expected a list in JSON"),
        ("rows.csv", "a,b\n1\n", "row 1: expected 2 fields, got 1"),
        ("rows.npy", "no array", ""),
    ],
)
def test_rows_that_cannot_be_sent_are_errors_that_name_them(tmp_path, name: str, text: str, message: str):
    path = write(tmp_path, name, text)
    with pytest.raises(ConfigError) as error:
        files.inputs(path, ROW, 1, as_items=False)
    assert error.value.message.startswith(f"{path}: ")
    assert message in error.value.message


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.jsonl: no such file"):
        files.inputs(tmp_path / "none.jsonl", ROW, 1, as_items=True)
    with pytest.raises(ConfigError, match=r"none\.json: no such file"):
        files.bodies([tmp_path / "none.json"], None)


def test_arrays_have_the_names_and_the_types_of_the_inputs(tmp_path):
    np.savez(tmp_path / "rows.npz", a=np.ones((3, 2)), b=np.arange(3, dtype=np.int8))
    found = files.inputs(tmp_path / "rows.npz", TWO, 2, as_items=False)
    assert [[array.dtype.name for array in each] for each in found.requests] == [["float32", "int64"]] * 2
    assert found.requests[1][1].tolist() == [2, 0]
    with pytest.raises(ConfigError, match=r"rows\.npz: .*missing required input"):
        files.inputs(tmp_path / "rows.npz", ROW, 2, as_items=False)
    np.savez(tmp_path / "wrong.npz", a=np.ones((3, 2)), b=np.array([0.5, 1, 2]))
    with pytest.raises(ConfigError, match="'b' is INT64; float64 values do not fit"):
        files.inputs(tmp_path / "wrong.npz", TWO, 2, as_items=False)
    with pytest.raises(ConfigError, match="arrays are for a model whose inputs are tensors"):
        files.inputs(tmp_path / "rows.npz", None, 1, as_items=True)


def test_bodies_are_what_is_in_the_files(tmp_path):
    one, two = write(tmp_path, "one.json", "[1]"), write(tmp_path, "two.bin", "x")
    assert files.bodies([one, two], None) == ((b"[1]", b"x"), "application/json")
    assert files.bodies([two], None) == ((b"x",), "application/octet-stream")
    assert files.bodies([one], "text/csv") == ((b"[1]",), "text/csv")


# -- recordings -----------------------------------------------------------------------------------------------


def test_a_recording_is_in_the_order_of_its_times(tmp_path):
    lines = [
        {"at": "2024-05-01T12:00:01.500Z", "body": {"x": 1}, "path": "/p"},
        {"at": "2024-05-01T14:00:01+02:00", "body": "text"},
        {"at": 1714564802, "body_base64": "AAEC"},
    ]
    path = write(tmp_path, "requests.jsonl", "\n".join(json.dumps(line) for line in lines))
    found = replay.read(path)
    assert (found.at_s - found.at_s[0]).tolist() == [0.0, 0.5, 1.0]
    assert found.bodies == (b'"text"', b'{"x": 1}', b"\0\1\2")
    assert found.paths == ("", "/p", "")
    assert not found.is_json


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no JSON", ":2: expected a request: JSON is malformed"),
        ('{"body": 1}', ":2: expected a request: Object missing required field `at`"),
        ('{"at": 1, "body": 1, "url": "x"}', "unknown field `url`"),
        ('{"at": "soon", "body": 1}', ":2: at: expected seconds or an ISO 8601 time, got 'soon'"),
        ('{"at": null, "body": 1}', ":2: at: expected seconds or an ISO 8601 time, got 'None'"),
        ('{"at": 1, "body": 1, "path": "predict"}', ":2: path: expected one that begins with /, got 'predict'"),
        ('{"at": 1}', ":2: expected one of the keys body and body_base64"),
        ('{"at": 1, "body": 1, "body_base64": ""}', ":2: expected one of the keys body and body_base64"),
        ('{"at": 1, "body_base64": "!"}', ":2: body_base64: "),
        ("", ": expected two or more requests, got 1"),
    ],
)
def test_what_is_no_request_is_an_error_with_its_line(tmp_path, line: str, message: str):
    path = write(tmp_path, "requests.jsonl", f'{{"at": 0, "body": 1}}\n{line}\n')
    with pytest.raises(ConfigError) as error:
        replay.read(path)
    assert error.value.message.startswith(f"{path}:")
    assert message in error.value.message


# -- examples of an OpenAPI document --------------------------------------------------------------------------


def test_examples_are_found_where_a_document_has_them():
    def route(**media: object) -> dict:
        return {"post": {"requestBody": {"content": {"application/json": media}}}}

    reference = {"$ref": "#/components/schemas/Item"}
    found = openapi_examples.of(
        {
            "paths": {
                "/a": route(example={"x": 1}),
                "/b": route(examples={"good": {"value": [1]}}),
                "/c": route(schema={"examples": ["text"]}),
                "/d": route(schema=reference),
                "/e": route(schema={"properties": {"item": reference, "n": {"type": "integer"}}, "required": ["item"]}),
                "/unknown": route(schema={"type": "object", "properties": {"n": {"type": "integer"}}}),
                "/endless": route(schema={"$ref": "#/components/schemas/Endless"}),
                "/get": {"get": {}},
            },
            "components": {
                "schemas": {
                    "Item": {"properties": {"x": {"example": 2.5}, "y": {"default": True}}},
                    "Endless": {"$ref": "#/components/schemas/Endless"},
                }
            },
        }
    )
    item = {"x": 2.5, "y": True}
    expected = {"/a": {"x": 1}, "/b": [1], "/c": "text", "/d": item, "/e": {"item": item}}
    assert {path: json.loads(text) for path, text in found.items()} == expected


@pytest.mark.parametrize("document", [{}, {"paths": []}, {"paths": {"/a": 1}}, {"paths": {"/a": {"post": {}}}}])
def test_a_document_without_examples_has_none(document: dict):
    assert openapi_examples.of(document) == {}
