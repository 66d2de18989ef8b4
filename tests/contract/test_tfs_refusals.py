"""What TensorFlow Serving's REST API refuses, in which words, against real server processes."""

from __future__ import annotations

import pytest

from support.served import Answer, Served, ServedModels


def predict(model: Served, body: object) -> Answer:
    return model.post(f"/v1/models/{model.name}:predict", body)


def refused(model: Served, body: object) -> str:
    """The message of the 400 that a body gets."""
    answer = predict(model, body)
    assert answer.status == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert {"error", "code", "request_id"} <= answer.json.keys()
    return answer.error


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("half_plus_two", "[]", "JSON Value: [] Is not object"),
        ("half_plus_two", "{}", "Missing 'inputs' or 'instances' key"),
        (
            "half_plus_two",
            '{"inputs": [1], "instances": [1]}',
            'JSON Value: {"inputs":[1],"instances":[1]} Not formatted correctly expecting only one of '
            "'inputs' or 'instances' keys to exist",
        ),
        (
            "half_plus_two",
            '{"instances": 1}',
            "JSON Value: {\"instances\":1} Expecting 'instances' to be a list/array",
        ),
        (
            "half_plus_two",
            '{"instances": []}',
            "JSON Value: {\"instances\":[]} No values in 'instances' array",
        ),
        ("two", '{"instances": []}', "JSON Value: {\"instances\":[]} No values in 'instances' array"),
        (
            "half_plus_two",
            '{"signature_name": 1, "inputs": [1]}',
            'JSON Value: {"signature_name":1,"inputs":[1]} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        (
            "half_plus_two",
            '{"signature_name": "x", "inputs": [1]}',
            'Serving signature name: "x" not found in signature def',
        ),
        (
            "two",
            '{"instances": [1]}',
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map",
        ),
        (
            "two",
            '{"inputs": [1]}',
            "inputs is a plain value/list, but expecting an object as multiple input tensors required "
            "as per tensorinfo_map",
        ),
        (
            "half_plus_two",
            '{"instances": [{"x": 1}, 2]}',
            "Expecting object but got list at item 1 of input list",
        ),
        (
            "half_plus_two",
            '{"instances": [1, {"x": 2}]}',
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            "fixed",
            '{"instances": [[1, 2, 3]]}',
            "model 'fixed' has no batch dimension, so 'instances' cannot be laid one behind the other: "
            "send its tensors under 'inputs' to :predict",
        ),
        ("words", '{"instances": [{"b64": "?"}]}', 'Unable to base64 decode: "?"'),
        (
            "words",
            '{"inputs": {"x": [{"b64": 1}]}}',
            'Input: x. JSON Value: {"b64":1} not formatted correctly for base64 data',
        ),
        (
            "half_plus_two",
            '{"inputs": 3}',
            "JSON Value: 3 found at incorrect level: 0 in the JSON DOM. Expected at level: 1",
        ),
    ],
)
def test_what_a_body_must_be(served: ServedModels, model: str, body: str, message: str) -> None:
    assert refused(served[model], body) == message


def test_the_quoted_piece_is_bounded(half: Served) -> None:
    message = refused(half, {"inputs": [1.0, "x" * 100_000]})
    assert message.startswith('JSON Value: "xxx')
    assert len(message) < 400


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        '{"inputs": [1],}',
        '{"inputs": [1]} x',
        b'\xef\xbb\xbf{"inputs": [1]}',
        b'{"inputs": ["\xff"]}',
    ],
)
def test_fault_039_and_040_what_is_no_json_names_the_offset(half: Served, body: str | bytes) -> None:
    assert "byte" in refused(half, body)


def test_fault_041_depth(half: Served) -> None:
    assert refused(half, '{"inputs": ' + "[" * 100_000) == "the JSON is nested too deeply"


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_fault_042_nan_literals(half: Served, token: str) -> None:
    assert "(byte" in refused(half, f'{{"instances": [1, {token}]}}')


def test_fault_043_numbers_past_every_type(half: Served) -> None:
    assert refused(half, '{"inputs": [1e999]}') == "JSON Parse error: a number is too large"
    message = "Cannot convert JSON value: 1e39 to float without loss of precision."
    assert refused(half, '{"inputs": [1, 1e39]}') == message


def test_fault_044_integers_past_the_type(served: ServedModels) -> None:
    message = "JSON Value: 9223372036854775808 Type: Number is not of expected type: int64"
    element = "Failed to process element: 1 of 'instances' list. Error: "
    assert refused(served["whole"], '{"instances": [[1, 2], [3, 9223372036854775808]]}') == element + message
    assert refused(served["whole"], '{"inputs": [[1, 9223372036854775808]]}') == message


@pytest.mark.parametrize("number", ["1.0", "1.5", "1e0"])
def test_fault_044_fractions_for_an_integer(served: ServedModels, number: str) -> None:
    message = refused(served["whole"], f'{{"inputs": [[1, {number}]]}}')
    assert message.endswith("Type: Number is not of expected type: int64")


def test_fault_046_lone_surrogate(served: ServedModels) -> None:
    refused(served["words"], '{"instances": ["\\ud800"]}')


def test_fault_047_ragged_rows_name_the_row(served: ServedModels) -> None:
    row = "[0,0,0,0,0,0,0,0]"
    body = f'{{"instances": [{row}, {row}, [1, 2]]}}'
    answer = predict(served["mlp"], body)
    assert answer.error == (
        "Failed to process element: 2 of 'instances' list. Error: "
        "Encountered list at unexpected size: 2 at level: 0 expected size: 8. JSON Value: [1,2]"
    )
    assert answer.json["details"][0]["path"] == "instances[2]"
    body = f'{{"inputs": [{row}, [1, 2]]}}'
    expected = "Encountered list at unexpected size: 2 at level: 1 expected size: 8. JSON Value: [1,2]"
    assert refused(served["mlp"], body) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"instances": [[1, [2]], [3, 4]]}',
            "Failed to process element: 0 of 'instances' list. Error: "
            "Encountered list at unexpected level: 1 expected < 1. JSON Value: [2]",
        ),
        (
            '{"instances": [[1, 2], 3]}',
            "Failed to process element: 1 of 'instances' list. Error: "
            "JSON Value: 3 found at incorrect level: 0 in the JSON DOM. Expected at level: 1",
        ),
        ('{"inputs": [[]]}', "unexpected shape for input 'x' for model 'mlp'. Expected [-1,8], got [1,0]."),
        ('{"inputs": []}', "JSON Value: [] has no elements. Expected rank: 2"),
        (
            '{"instances": [[1, 2]]}',
            "unexpected shape for input 'x' for model 'mlp'. Expected [-1,8], got [1,2].",
        ),
    ],
)
def test_fault_047_lists_and_values_mixed_or_of_another_shape(served: ServedModels, body: str, message: str) -> None:
    assert refused(served["mlp"], body) == message


def test_fault_048_missing_named_input(served: ServedModels) -> None:
    two = served["two"]
    assert refused(two, '{"inputs": {"a": [[1, 2]]}}') == "Missing named input: b in 'inputs' object."
    assert refused(two, '{"instances": [{"a": [1, 2], "b": [1, 2]}, {"a": [1, 2]}]}') == (
        "Failed to process element: 1 of 'instances' list. JSON object: {\"a\":[1,2]} keys must be equal to: a,b"
    )
    more = refused(two, '{"instances": [{"a": [1, 2], "b": [1, 2], "c": 1}]}')
    assert more.endswith("keys must be equal to: a,b")
    uneven = refused(two, '{"inputs": {"a": [[1, 2]], "b": [[1, 2], [3, 4]]}}')
    assert uneven == "inputs differ in their number of rows: a: 1, b: 2"


def test_fault_048_reordered_inputs_go_by_name(served: ServedModels) -> None:
    one = predict(served["two"], '{"instances": [{"a": [1, 2], "b": [3, 4]}]}')
    other = predict(served["two"], '{"instances": [{"b": [3, 4], "a": [1, 2]}]}')
    assert one.status == 200
    assert one.body == other.body


def test_fault_049_null_for_a_number(half: Served) -> None:
    message = refused(half, '{"instances": [1, null]}')
    assert message.endswith("JSON Value: null Type: Null is not of expected type: float")


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("half_plus_two", '{"inputs": ["1"]}', 'JSON Value: "1" Type: String is not of expected type: float'),
        ("half_plus_two", '{"inputs": [true]}', "JSON Value: true Type: True is not of expected type: float"),
        (
            "half_plus_two",
            '{"inputs": [{"b64": "YQ"}]}',
            'JSON Value: {"b64":"YQ"} Type: Object is not of expected type: float',
        ),
        ("whole", '{"inputs": [[1, false]]}', "JSON Value: false Type: False is not of expected type: int64"),
        ("words", '{"inputs": [1]}', "JSON Value: 1 Type: Number is not of expected type: string"),
    ],
)
def test_fault_050_elements_of_another_type(served: ServedModels, model: str, body: str, message: str) -> None:
    assert refused(served[model], body) == message


def test_fault_050_names_the_input_and_the_row(served: ServedModels) -> None:
    body = '{"instances": [{"a": [1, 2], "b": [1, 2]}, {"a": [1, "x"], "b": [1, 2]}]}'
    answer = predict(served["two"], body)
    assert answer.error == (
        "Failed to process element: 1 key: a of 'instances' list. Error: "
        'JSON Value: "x" Type: String is not of expected type: float'
    )
    assert answer.json["details"][0]["path"] == "instances[1].a[1]"
