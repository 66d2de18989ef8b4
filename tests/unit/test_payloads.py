"""Are the inputs that a load test makes up valid, and do they differ?"""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paceline.core.tensors import DATATYPES, DataType, Signature, TensorSpec
from paceline.loadtest.requests import payloads
from paceline.loadtest.requests.payloads import Guess

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON, st.booleans(), st.integers(1, 300))
@example("\x9a", True, 2)  # written as \u009a: its digits are no letters
def test_variants_have_the_value_and_differ(value: object, escaped: bool, count: int):
    item = json.dumps(value, ensure_ascii=escaped).encode()
    found = payloads.variants(item, count)
    assert [json.loads(each) for each in found] == [value] * len(found)
    assert len(set(found)) == len(found) <= count
    if isinstance(value, list | dict):
        assert len(found) == count


@pytest.mark.parametrize("item", [b"17", b"1.5", b"true", b"null", b'""', b'"\\n"', '"\u00e4"'.encode()])
def test_what_can_be_written_in_one_way_only_is(item: bytes):
    assert payloads.variants(item, 100) == [item]


def test_spaces_are_few():
    item = b'{"a":[1,2,3],"b":{"c":"x: {y}, z"}}'
    assert max(map(len, payloads.variants(item, 1000))) <= len(item) + 20


def test_all_items_of_all_requests_differ():
    requests = payloads.rewritten(b'{"x":1}', rows=5, count=7)
    texts = [text for (array,) in requests for text in array.tolist()]
    assert [len(array) for (array,) in requests] == [5] * 7
    assert len(set(texts)) == 35


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], shape)


@pytest.mark.parametrize("datatype", list(DATATYPES))
def test_generated_inputs_have_the_signature(datatype: str):
    signature = Signature((spec("x", datatype, -1, 4, -1),), (), batched=True)
    requests = payloads.generated(signature, 3, Guess(open_size=2, largest=9), 20, seed=1)
    assert len(requests) == 20
    for (array,) in requests:
        assert array.shape == (3, 4, 2)
        assert array.dtype == DATATYPES[datatype].dtype
    again = payloads.generated(signature, 3, Guess(2, 9), 20, seed=1)
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(requests, again, strict=True))
    assert len({json.dumps(array.tolist(), default=str) for (array,) in requests}) == 20


def test_masks_are_ones_and_kinds_of_tokens_zeros():
    names = ("input_ids", "attention_mask", "token_type_ids")
    signature = Signature(tuple(spec(name, "INT64", -1, 8) for name in names), (), batched=True)
    ((ids, mask, kinds),) = payloads.generated(signature, 50, Guess(8, 9), 1, seed=0)
    assert set(ids.ravel()) == set(range(10))
    assert (mask.min(), mask.max(), kinds.min(), kinds.max()) == (1, 1, 0, 0)


def test_what_metadata_does_not_say_is_guessed_in_several_ways():
    closed = Signature((spec("x", "FP32", -1, 4),), (), batched=True)
    indices = Signature((spec("i", "INT64", -1, 4),), (), batched=True)
    image = Signature((spec("x", "FP32", -1, 3, -1, -1),), (), batched=True)
    assert payloads.guesses(closed) == [Guess(8, 9)]
    assert payloads.guesses(indices) == [Guess(8, 9), Guess(8, 1)]
    assert [guess.open_size for guess in payloads.guesses(image)] == [8, 1, 32, 224, 3, 128, 2]


def test_inputs_like_an_example_keep_what_may_matter():
    signature = Signature((spec("x", "FP32", -1, 4), spec("i", "INT64", -1), spec("s", "BYTES", -1)), (), batched=True)
    example = (np.array([[0.0, -2.0, 1e-7, 300.0]], np.float32), np.array([41]), np.array(["red"], object))
    requests = payloads.varied(example, signature, rows=2, count=50, seed=0)
    for floats, integers, strings in requests:
        assert np.allclose(floats, example[0], rtol=0.1)
        assert (floats[:, 0] == 0).all()
        assert floats.dtype == np.float32
        assert integers.tolist() == [41, 41]
        assert strings.tolist() == ["red", "red"]
    assert len({floats.tobytes() for floats, *_ in requests}) == 50
    assert payloads.varies(example, signature)


def test_the_largest_numbers_stay_finite():
    signature = Signature((spec("x", "FP16", -1, 2), spec("y", "FP64", -1, 1)), (), batched=True)
    example = (np.array([[65504, -65504]], np.float16), np.array([[1.7e308]]))
    for floats, doubles in payloads.varied(example, signature, 1, 50, seed=0):
        assert np.isfinite(floats).all()
        assert np.isfinite(doubles).all()


def test_words_stand_for_strings_that_nobody_gave():
    signature = Signature((spec("s", "BYTES", -1, 1),), (), batched=True)
    empty = (np.array([[""]], object),)
    assert payloads.lacks_words(empty)
    assert not payloads.lacks_words((np.array([["a"]], object),))
    assert not payloads.lacks_words((np.zeros((1, 1)),))
    assert not payloads.varies(empty, signature)
    ((words,),) = payloads.varied(empty, signature, 3, 1, seed=0, words=True)
    assert words.shape == (3, 1)
    assert all(len(text.split()) == 8 for text in words.ravel())
    assert signature.inputs[0].datatype is DataType.BYTES
