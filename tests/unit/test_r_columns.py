"""How are JSON items and R's values turned into each other? Here the bytes; what R makes of them is a system test's."""

import math
import struct

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.core.errors import InvalidRequest
from paceline.workers.frames import BadFrame
from paceline.workers.r import columns, studio
from paceline.workers.r import serialization as r
from paceline.workers.r.codec import FunctionCodec, StudioCodec
from paceline.workers.r.serialization import Value

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


def loaded(written: bytes) -> Value:
    return r.load(r.dump(written))


def frames(items: list[object]) -> list[tuple[list[int], dict[str, tuple[str, list[object]]]]]:
    """The data frames of some items: which items, and kind and values by column."""
    found = []
    for indices, table in columns.tables(items):
        value = loaded(table)
        assert value.names is not None
        by_name = dict(zip(value.names, value.items, strict=True))
        found.append((list(indices), {name: (each.kind, each.items) for name, each in by_name.items()}))
    return found


def column(*texts: bytes) -> np.ndarray:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def result(layout: int, value: bytes, *more: bytes) -> bytes:
    return r.items([r.integers([layout]), value, *more])


# -- the format -----------------------------------------------------------------------------------------------


def test_the_bytes_are_those_that_r_writes():
    # serialize(c(a = 1, b = NA), NULL, xdr = FALSE, version = 2), without the version of R that wrote it
    theirs = bytes.fromhex(
        "0e020000 02000000 000000000000f03f a20700000000f07f 02040000 01000000 0900040005000000 6e616d6573"
        "10000000 02000000 0900040001000000 61 0900040001000000 62 fe000000"
    )
    value = loaded(theirs)
    assert value == Value("double", [1.0, None], ["a", "b"])


@given(st.lists(st.none() | st.floats()))
def test_doubles_come_back_and_na_is_not_nan(values):
    back = loaded(r.doubles(values)).items
    assert [each is None for each in back] == [each is None for each in values]
    assert struct.pack(f"{len(values)}d", *(0 if each is None else each for each in back)) == struct.pack(
        f"{len(values)}d", *(0 if each is None else each for each in values)
    )


@given(st.lists(st.none() | TEXT), st.lists(st.none() | st.booleans()))
def test_strings_and_logicals_come_back(texts, flags):
    assert loaded(r.strings(texts)) == Value("character", texts)
    assert loaded(r.logicals(flags)) == Value("logical", flags)
    assert loaded(r.integers([None, -1, 2])) == Value("integer", [None, -1, 2])
    assert loaded(r.items([r.null(), r.strings(texts)], ["a", "b"])).names == ["a", "b"]


@given(st.binary() | st.binary().map(lambda tail: r.dump(b"") + tail))
def test_what_r_did_not_write_is_a_bad_frame_and_nothing_worse(data):
    try:
        assert isinstance(r.load(data), Value)
    except BadFrame:
        return


@given(st.data())
def test_a_stream_that_is_cut_off_or_changed_is_a_bad_frame_and_nothing_worse(data):
    whole = bytearray(r.dump(r.data_frame([r.doubles([1.0, None]), r.strings(["a", None])], ["x", "y"], 2)))
    whole[data.draw(st.integers(14, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    del whole[data.draw(st.integers(14, len(whole))) :]
    try:
        assert isinstance(r.load(bytes(whole)), Value)
    except BadFrame:
        return


# -- items ----------------------------------------------------------------------------------------------------


def test_each_key_is_a_column_and_numbers_are_doubles():
    assert frames([{"n": 1, "s": "a", "b": True}, {"n": 2.5, "s": None, "b": False}]) == [
        ([0, 1], {"n": ("double", [1.0, 2.5]), "s": ("character", ["a", None]), "b": ("logical", [True, False])})
    ]


def test_a_missing_key_is_null_and_a_column_of_nulls_numeric():
    assert frames([{"a": 1}, {"b": None}]) == [([0, 1], {"a": ("double", [1.0, None]), "b": ("double", [None, None])})]


def test_rows_whose_types_differ_are_kept_apart_in_order():
    assert frames([{"a": 1}, {"a": "x"}, {"a": 2, "b": None}, {"a": "y"}]) == [
        ([0, 2], {"a": ("double", [1.0, 2.0]), "b": ("double", [None, None])}),
        ([1, 3], {"a": ("character", ["x", "y"]), "b": ("double", [None, None])}),
    ]


def test_what_is_no_object_is_the_column_x():
    ((indices, found),) = frames([1, 2])
    assert (indices, found) == ([0, 1], {"x": ("double", [1.0, 2.0])})
    assert frames([]) == []
    assert frames([{}, {}]) == [([0, 1], {})]


@given(st.lists(JSON, min_size=1, max_size=5))
def test_every_item_is_in_one_data_frame(items):
    indices = [index for each, _ in frames(items) for index in each]
    assert sorted(indices) == list(range(len(items)))


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"a": {"b": ["x\0"]}}, "a.b[0]: text in R holds no NUL character (\\u0000)"),
        ({"a\0": 1}, "the item: a key holds a NUL character (\\u0000)"),
        ({"a": -(2**53) - 1}, "a: numbers in R are exact up to 2^53, got -9007199254740993; send it as text"),
        ({"a": [None, 2**70]}, "a[1]: numbers in R are exact up to 2^53, got 1180591620717411303424; send it as text"),
    ],
)
def test_an_item_that_r_cannot_hold_says_where(item, why):
    assert columns.problem(item) == why


def test_an_item_that_is_nested_too_deeply_is_refused_alone():
    deep = b"[" * 500 + b"]" * 500
    codec = FunctionCodec()
    codec.encode((column(deep, b"1"),))
    answers = codec.decode(memoryview(r.dump(r.items([result(1, r.doubles([7.0]))]))))[0]
    assert "nested more than 100 deep" in answers[0].message
    assert answers[1] == b"7.0"


def test_two_broken_texts_do_not_make_sense_together():
    codec = FunctionCodec()
    codec.encode((column(b"[1", b'{"secret":1}', b"2],3,4"),))
    answers = codec.decode(memoryview(r.dump(r.items([result(1, r.doubles([7.0]))]))))[0]
    assert isinstance(answers[0], InvalidRequest)
    assert isinstance(answers[2], InvalidRequest)
    assert answers[1] == b"7.0"


# -- predictions ----------------------------------------------------------------------------------------------


def answered(value: bytes, rows: int = 2, layout: int = 1, nonfinite: str = "error") -> list[object]:
    codec = FunctionCodec(nonfinite)
    codec.encode((column(*[b"1"] * rows),))
    answers: list[object] = codec.decode(memoryview(r.dump(r.items([result(layout, value)]))))[0].tolist()
    return answers


def test_vectors_and_columns_are_texts_for_each_row():
    assert answered(r.doubles([1.0, None])) == [b"1.0", b"null"]
    assert answered(r.strings(["a,b", None])) == [b'"a,b"', b"null"]
    named = r.items([r.integers([1, 2]), r.items([r.null(), r.doubles([1.0, 2.0])])], ["a", "b"])
    assert answered(named, layout=2) == [b'{"a":1,"b":null}', b'{"a":2,"b":[1.0,2.0]}']


def test_nonfinite_numbers_are_what_the_operator_chose():
    assert answered(r.doubles([math.inf, 1.0]), nonfinite="string") == [b'"Infinity"', b"1.0"]
    assert answered(r.doubles([math.nan, 1.0]), nonfinite="null") == [b"null", b"1.0"]
    failed, good = answered(r.doubles([math.nan, 1.0]))
    assert (failed.code, good) == ("nonfinite_output", b"1.0")


@pytest.mark.parametrize(
    "body",
    [
        r.items([]),
        r.items([result(1, r.doubles([1.0]))]),
        r.items([result(9, r.doubles([1.0, 2.0]))]),
        r.items([r.doubles([1.0])]),
        r.doubles([1.0]),
        r.items([result(2, r.items([r.doubles([1.0, 2.0])], ["a", "b"]))]),
    ],
)
def test_a_result_of_another_shape_is_a_bad_frame(body):
    codec = FunctionCodec()
    codec.encode((column(b"1", b"2"),))
    with pytest.raises(BadFrame):
        codec.decode(memoryview(r.dump(body)))


# -- Studio ---------------------------------------------------------------------------------------------------


def first_table(item: object) -> dict[str, tuple[str, list[object]]]:
    value = loaded(studio.call(item).written).items[0]
    assert value.names is not None
    return {name: (each.kind, each.items) for name, each in zip(value.names, value.items, strict=True)}


def test_strings_of_a_studio_client_are_typed():
    table = {"columns": ["n", "x", "s"], "rows": [["1", "1.5", "a"], ["2", "", "b"]], "typed": False}
    assert first_table({"dataframe1": table}) == {
        "n": ("integer", [1, 2]),
        "x": ("double", [1.5, None]),
        "s": ("character", ["a", "b"]),
    }


def test_a_mixed_column_of_a_table_is_text():
    table = {"columns": ["m"], "rows": [[1], ["a"], [True], [None]]}
    assert first_table({"dataframe1": table}) == {"m": ("character", ["1", "a", "TRUE", None])}


def test_a_table_without_rows_keeps_its_columns():
    assert first_table({"dataframe1": {"columns": ["a", "b"], "rows": []}}) == {
        "a": ("double", []),
        "b": ("double", []),
    }


@given(JSON)
def test_any_item_is_a_call_or_refused(item):
    codec = StudioCodec()
    (body,) = codec.encode((column(orjson.dumps(item)),))
    calls = r.load(body).items
    answers = codec.decode(memoryview(r.dump(r.items([result(3, r.items([], []), r.strings([])) for _ in calls]))))[0]
    assert len(calls) == (not isinstance(answers[0], InvalidRequest))
