"""Rows as items of JSON, and predictions as arrays."""

import json

import numpy as np
import pytest

from paceline.core.errors import ModelFailed
from paceline.optimize.data import items


def test_several_inputs_make_an_object_and_a_single_one_is_the_item():
    both = {"age": np.array([31.0, 44.0]), "town": np.array(["Gent", "Oudenaarde"])}
    assert [json.loads(each) for each in items.items(both)] == [
        {"age": 31.0, "town": "Gent"},
        {"age": 44.0, "town": "Oudenaarde"},
    ]
    assert [json.loads(each) for each in items.items({"input": np.eye(2)})] == [[1.0, 0.0], [0.0, 1.0]]


def test_the_example_is_the_first_row_without_a_hole_in_the_digits_of_its_type():
    both = {
        "age": np.array([np.nan, 0.1, 3.0], np.float32),
        "town": np.array(["Gent", "Zürich", "Oslo"]),
        "seen": np.array([[True], [False], [True]]),
    }
    assert items.example(both) == '{"age":0.1,"town":"Zürich","seen":[false]}'
    assert items.example({"input": np.array([[1, 2], [3, 4]], np.uint8)}) == "[1,2]"
    assert items.example({"input": np.array([[0.5]], np.float16)}) == "[0.5]"
    assert items.example({"text": np.array(["a", "b"])}) == '"a"'


def test_there_is_no_example_where_rows_have_holes_or_are_large():
    assert items.example({"input": np.full((3, 2), np.inf)}) == ""
    assert items.example({"input": np.full((1, 30_000), 10)}) == ""
    assert items.example({"text": np.array(["ö" * 40_000])}) == ""


def test_objects_become_an_array_for_each_key():
    said = [b'{"label": "yes", "probabilities": {"no": 0.25, "yes": 0.75}}'] * 3
    found = items.outputs(said)
    assert found["label"].tolist() == ["yes"] * 3
    assert found["probabilities"].tolist() == [[0.25, 0.75]] * 3


def test_bare_values_are_the_prediction():
    assert items.outputs([b"1.5", b"2.5"])["prediction"].tolist() == [1.5, 2.5]


def test_a_row_that_failed_is_its_error():
    with pytest.raises(ModelFailed, match="too short"):
        items.outputs([b"1", ModelFailed("too short")])


@pytest.mark.parametrize("said", [[b'{"a": 1}', b'{"b": 1}'], [b"[1, 2]", b"[1]"], [b'{"a": 1}', b"1"]])
def test_predictions_of_different_forms_are_an_error(said: list[bytes]):
    with pytest.raises(ModelFailed, match="differ"):
        items.outputs(said)
