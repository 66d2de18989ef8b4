"""POST /predict and /batch-predict: request -> exact answer, against real server processes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from support.served import Answer, ServedModels

ROW = "[0,0,0,0,0,0,0,0]"

GOLDEN = {
    "a scalar": ("half_plus_two", "/predict", "1", "2.5"),
    "a scalar has the fewest digits": ("half_plus_two", "/predict", " 0.2\n", "2.1"),
    "scalars": ("half_plus_two", "/batch-predict", "[1, 2.0, 5e0]", "[2.5,3.0,4.5]"),
    "one input by name": ("half_plus_two", "/predict", '{"x": 1}', "2.5"),
    "one input by name, behind white space": ("half_plus_two", "/predict", ' \r\n\t{"x": 1}', "2.5"),
    "inputs by name, all": ("half_plus_two", "/batch-predict", '[{"x": 1}, {"x": 2}]', "[2.5,3.0]"),
    "inputs by name, some": ("half_plus_two", "/batch-predict", '[{"x": 1}, 2]', "[2.5,3.0]"),
    "no items": ("half_plus_two", "/batch-predict", "[]", "[]"),
    "two inputs": ("two", "/predict", '{"a": [1, 2.5], "b": [3, 4]}', '{"sum":[4.0,6.5],"doubled":[6,8]}'),
    "several of them": (
        "two",
        "/batch-predict",
        '[{"a": [1, 2.5], "b": [3, 4]}, {"b": [1, 0], "a": [0, 0]}]',
        '[{"sum":[4.0,6.5],"doubled":[6,8]},{"sum":[1.0,0.0],"doubled":[2,0]}]',
    ),
    "none of them": ("two", "/batch-predict", "[]", "[]"),
    "integers stay integers": ("whole", "/predict", "[9007199254740993, -1]", "[9007199254740993,-1]"),
    "a string": ("words", "/predict", '"a"', '"a"'),
    "strings": ("words", "/batch-predict", '["a", ""]', '["a",""]'),
    "two string outputs": ("text", "/predict", '"a"', '{"shown":"a","raw_bytes":"a"}'),
    "no batch dimension": (
        "fixed",
        "/predict",
        "[[1, 2, 3], [4, 5, 6.5]]",
        "[[1.0,2.0,3.0],[4.0,5.0,6.5]]",
    ),
    "several without batch dimension": (
        "fixed",
        "/batch-predict",
        "[[[1,2,3],[4,5,6]], [[0,0,0],[0,0,0]]]",
        "[[[1.0,2.0,3.0],[4.0,5.0,6.0]],[[0.0,0.0,0.0],[0.0,0.0,0.0]]]",
    ),
    "no items without batch dimension": ("fixed", "/batch-predict", "[]", "[]"),
}


def refused(served: ServedModels, model: str, path: str, body: Any) -> str:
    """The message of the 400 that a body gets."""
    answer = served[model].post(path, body)
    assert answer.status == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert {"error", "code", "request_id"} <= answer.json.keys()
    return answer.error


def good(answer: Answer) -> Any:
    assert answer.status == 200, answer.text
    return answer.json


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_predictions(served: ServedModels, case: str) -> None:
    model, path, body, expected = GOLDEN[case]
    answer = served[model].post(path, body)
    assert (answer.status, answer.text) == (200, expected)
    assert answer.headers["content-type"] == "application/json"


def test_the_model_may_be_named(served: ServedModels) -> None:
    half = served["half_plus_two"]
    assert half.post("/models/half_plus_two/predict", "1").text == "2.5"
    assert half.post("/models/half_plus_two/batch-predict", "[1]").text == "[2.5]"
    answer = half.post("/models/other/predict", "1")
    assert (answer.status, answer.json["code"]) == (404, "model_not_found")


def test_labelled_outputs_are_objects(served: ServedModels) -> None:
    flowers = served["flowers"]
    x = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], np.float32)
    labels, maps = flowers.run(x=x)
    names = [node.name for node in flowers.session.get_outputs()]
    for answer in (
        good(flowers.post("/batch-predict", x.tolist())),
        [good(flowers.post("/predict", row)) for row in x.tolist()],
    ):
        assert [item[names[0]] for item in answer] == labels.tolist()
        for item, scores in zip(answer, maps, strict=True):
            assert item[names[1]].keys() == scores.keys()
            assert np.allclose([item[names[1]][key] for key in scores], list(scores.values()), atol=1e-6)


# -- items of one batch -----------------------------------------------------------------------------------


def test_a_bad_item_gets_its_own_error(served: ServedModels) -> None:
    answer = good(served["half_plus_two"].post("/batch-predict", '[1, "a", null, 3]'))
    assert (answer[0], answer[3]) == (2.5, 3.5)
    for item in answer[1:3]:
        assert item["code"] == "signature_mismatch"
        assert item["error"].startswith("the body: Expected `float`")


def test_fault_056_an_item_that_the_model_refuses_fails_alone(served: ServedModels) -> None:
    answer = good(served["table"].post("/batch-predict", [0, 99, 1]))
    assert (answer[0], answer[2]) == ([0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0])
    assert answer[1]["code"] == "model_failed"


def test_fault_060_order_and_multiplicity(served: ServedModels) -> None:
    items = [3.0, 1.0, 3.0, 2.0, 1.0, 3.0]
    assert good(served["half_plus_two"].post("/batch-predict", items)) == [x / 2 + 2 for x in items]


def test_more_items_than_a_batch_takes(served: ServedModels) -> None:
    items = list(range(3000))
    assert good(served["half_plus_two"].post("/batch-predict", items)) == [x / 2 + 2 for x in items]


def test_a_long_list_with_a_bad_item_is_answered_whole(served: ServedModels) -> None:
    items: list[Any] = [index % 10 for index in range(5000)]
    items[1234] = "a"
    answer = served["table"].post("/batch-predict", items)
    expected = [[float(4 * item + column) for column in range(4)] if item != "a" else None for item in items]
    assert [None if isinstance(item, dict) else item for item in good(answer)] == expected
    assert int(answer.headers["x-batch-size"]) > 1
    assert "infer;dur=" in answer.headers["server-timing"]


def test_items_that_the_model_refuses_fail_alone_in_a_long_list(served: ServedModels) -> None:
    items = [index % 10 for index in range(5000)]
    for guilty in (0, 777, 4999):
        items[guilty] = 99
    answer = good(served["table"].post("/batch-predict", items))
    assert [item["code"] if isinstance(item, dict) else int(item[0] / 4) for item in answer] == [
        "model_failed" if item == 99 else item for item in items
    ]


def test_a_long_list_without_batch_dimension(served: ServedModels) -> None:
    items: list[Any] = [[[index, 2, 3], [4, 5, 6]] for index in range(5000)]
    items[17] = [1]
    answer = good(served["fixed"].post("/batch-predict", items))
    assert answer[17]["code"] == "signature_mismatch"
    del answer[17], items[17]
    assert answer == items


def test_items_by_name_run_together(served: ServedModels) -> None:
    answer = served["half_plus_two"].post("/batch-predict", [{"x": 1.0}, {"x": 2.0}, 3.0])
    assert answer.headers["x-batch-size"] == "3"


# -- bodies that are refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/predict", "/batch-predict"])
def test_fault_039_empty_body(served: ServedModels, path: str) -> None:
    assert refused(served, "half_plus_two", path, b"") == "the body is empty: expected JSON (byte 0)"


@pytest.mark.parametrize(("model", "path"), [("mlp", "/predict"), ("half_plus_two", "/batch-predict")])
@pytest.mark.parametrize(
    ("body", "offset"), [(b"[1,]", 3), (b"[1] x", 5), (b"\xef\xbb\xbf[1]", 0), (b"[1", 2), (b"[1 2]", 3)]
)
def test_fault_040_what_is_no_json_names_the_offset(
    served: ServedModels, model: str, path: str, body: bytes, offset: int
) -> None:
    assert f"byte {offset}" in refused(served, model, path, body)


def test_fault_040_what_is_no_utf8_names_the_offset(served: ServedModels) -> None:
    assert refused(served, "words", "/predict", b'  "a\xff"') == "the body is not valid UTF-8 at byte 4"
    assert refused(served, "words", "/batch-predict", b'["a", "\xff"]').endswith("at byte 7")


@pytest.mark.parametrize("path", ["/predict", "/batch-predict"])
def test_fault_041_depth(served: ServedModels, path: str) -> None:
    assert len(refused(served, "mlp", path, "[" * 100_000)) < 400


@pytest.mark.parametrize("path", ["/predict", "/batch-predict"])
@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_fault_042_nan_literals(served: ServedModels, path: str, token: str) -> None:
    assert "(byte" in refused(served, "mlp", path, f"[1, {token}]")


@pytest.mark.parametrize("number", ["1e999", "1e39", "-1e39"])
def test_fault_043_numbers_past_the_type(served: ServedModels, number: str) -> None:
    assert "ange" in refused(served, "half_plus_two", "/predict", number)
    assert "ange" in refused_item(served, "half_plus_two", number)


@pytest.mark.parametrize("item", ["[1, 9223372036854775808]", "[1, 1e3]", "[1, 1.0]", "[1, 1.5]"])
def test_fault_044_integers_past_the_type_and_fractions(served: ServedModels, item: str) -> None:
    refused(served, "whole", "/predict", item)
    refused_item(served, "whole", item)


def test_fault_046_lone_surrogate(served: ServedModels) -> None:
    refused(served, "words", "/predict", '"\\ud800"')
    refused(served, "words", "/batch-predict", '["a", "\\ud800"]')


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("[1,2]", "unexpected shape for input 'x' for model 'mlp'. Expected [-1,8], got [1,2]."),
        ("1", "the body: Expected `array`, got `int`"),
        (f"[{ROW}]", "[0]: Expected `float`, got `array`"),
        ('{"x": [1,2]}', "unexpected shape for input 'x' for model 'mlp'. Expected [-1,8], got [1,2]."),
    ],
)
def test_fault_047_wrong_rank_or_width(served: ServedModels, item: str, message: str) -> None:
    assert refused(served, "mlp", "/predict", item).startswith(message)
    answer = good(served["mlp"].post("/batch-predict", f"[{ROW}, {item}]"))
    assert len(answer[0]) == 3
    assert answer[1]["error"].startswith(message)


def test_fault_047_ragged_rows_name_the_row(served: ServedModels) -> None:
    assert refused(served, "fixed", "/predict", "[[1,2,3],[4,5]]") == "[1]: expected 3 values, got 2"


def test_fault_047_a_list_of_items_is_told_where_to_go(served: ServedModels) -> None:
    assert "/batch-predict" in refused(served, "mlp", "/predict", f"[{ROW},{ROW}]")


def test_fault_048_missing_or_unknown_inputs(served: ServedModels) -> None:
    assert "missing required field `b`" in refused(served, "two", "/predict", '{"a": [1, 2]}')
    body = '{"a": [1, 2], "b": [1, 2], "c": 1}'
    assert "unknown field `c`" in refused(served, "two", "/predict", body)
    assert "missing required field `x`" in refused(served, "mlp", "/predict", "{}")
    assert "unknown field `y`" in refused(served, "mlp", "/predict", '{"x": [], "y": 1}')


def test_fault_048_reordered_inputs_go_by_name(served: ServedModels) -> None:
    one = served["two"].post("/predict", '{"a": [1, 2], "b": [3, 4]}')
    other = served["two"].post("/predict", '{"b": [3, 4], "a": [1, 2]}')
    assert one.status == 200
    assert one.body == other.body


def test_fault_049_null_for_a_number(served: ServedModels) -> None:
    assert "got `null`" in refused(served, "mlp", "/predict", "[null,0,0,0,0,0,0,0]")


@pytest.mark.parametrize(
    ("model", "item"),
    [
        ("half_plus_two", '"1"'),
        ("half_plus_two", "true"),
        ("half_plus_two", '{"x": "1"}'),
        ("whole", "[1, false]"),
        ("words", "1"),
    ],
)
def test_fault_050_elements_of_another_type(served: ServedModels, model: str, item: str) -> None:
    assert "Expected" in refused(served, model, "/predict", item)
    assert "Expected" in refused_item(served, model, item)


def test_an_object_s_error_names_the_input(served: ServedModels) -> None:
    answer = served["mlp"].post("/predict", '{"x": [0, "a"]}')
    assert answer.error == "x[1]: Expected `float`, got `str`"
    assert answer.json["details"] == [{"path": "x[1]", "message": "Expected `float`, got `str`"}]


@pytest.mark.parametrize("model", ["half_plus_two", "two", "mlp", "words", "flowers", "fixed"])
def test_fault_051_no_rows(served: ServedModels, model: str) -> None:
    answer = served[model].post("/batch-predict", "[]")
    assert (answer.status, answer.text) == (200, "[]")


def test_fault_054_nonfinite_outputs_are_errors(served: ServedModels) -> None:
    log = served["log"]
    answer = log.post("/predict", [0, 1])
    assert (answer.status, answer.json["code"]) == (500, "nonfinite_output")
    assert [type(item) for item in good(log.post("/batch-predict", [[1, 1], [-1, 1]]))] == [list, dict]


def test_fault_057_unicode_is_intact(served: ServedModels) -> None:
    texts = ["grün", "日本語", "😀👩‍👩‍👧", "a\u0000b", "\u2028", "é", "e\u0301", '"\\/\b\f\n\r\t', ""]
    words = served["words"]
    assert good(words.post("/batch-predict", json.dumps(texts))) == texts
    assert good(words.post("/batch-predict", json.dumps(texts, ensure_ascii=False))) == texts
    for text in texts:
        assert good(words.post("/predict", json.dumps(text))) == text


@pytest.mark.parametrize("path", ["/predict", "/batch-predict"])
@pytest.mark.parametrize("given", ["text/plain", "application/octet-stream", "text/csv; charset=utf-8", "json", ""])
def test_fault_058_wrong_content_type(served: ServedModels, path: str, given: str) -> None:
    answer = served["half_plus_two"].post(path, "[1]", given)
    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "given",
    [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.api+json",
        "application/x-www-form-urlencoded",
    ],
)
def test_content_types_that_are_read(served: ServedModels, given: str) -> None:
    assert served["half_plus_two"].post("/predict", "1", given).text == "2.5"


def test_wrong_methods(served: ServedModels) -> None:
    answer = served["half_plus_two"].get("/predict")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def refused_item(served: ServedModels, model: str, item: str) -> str:
    """The message that an item gets, alone in its batch."""
    (answer,) = good(served[model].post("/batch-predict", f"[{item}]"))
    message: str = answer["error"]
    return message
