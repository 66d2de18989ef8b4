"""Large tensors in shared memory: what somebody looks at is not overwritten, and no offset leads out of it."""

from __future__ import annotations

import os
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.workers import tensors
from paceline.workers.arena import Arena
from paceline.workers.frames import BadFrame

LARGE = tensors.LARGE_BYTES // 8


def pair() -> tuple[Arena, Arena]:
    """The reader's and the writer's view of the same memory."""
    reader = Arena.new()
    return reader, Arena(os.dup(reader.descriptor))


def sent(writer: Arena, reader: Arena, *arrays: np.ndarray, lend: bool = True) -> tensors.Tensors:
    body = b"".join(bytes(piece) for piece in tensors.encode(arrays, writer))
    return tensors.decode(memoryview(body), reader, lend=lend)[0]


def test_large_tensors_do_not_travel():
    reader, writer = pair()
    large = np.arange(LARGE, dtype=np.int64)
    assert sum(map(len, tensors.encode([large], writer))) < 256
    (got,) = sent(writer, reader, large)
    np.testing.assert_array_equal(got, large)
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1


@settings(max_examples=50)
@given(
    steps=st.lists(
        st.tuples(st.lists(st.integers(LARGE - 8, 3 * LARGE), min_size=1, max_size=2), st.integers(0, 5)), max_size=12
    )
)
def test_what_is_held_keeps_its_values(steps):
    reader, writer = pair()
    held: list[tuple[np.ndarray, int]] = []
    for number, (sizes, dropped) in enumerate(steps):
        reader.offer()
        arrays = [np.full(size, number, np.int64) for size in sizes]
        held += [(array, number) for array in sent(writer, reader, *arrays)]
        held = held[dropped:]
        assert all((array == value).all() for array, value in held)
    del held, steps


def test_memory_that_is_let_go_is_used_again_and_what_is_held_is_bounded():
    reader, writer = pair()
    for _ in range(20):
        reader.offer()
        sent(writer, reader, np.zeros(LARGE))
    assert os.fstat(reader.descriptor).st_size < 2 << 20
    held = []
    for number in range(20):
        reader.offer()
        held += sent(writer, reader, np.full(LARGE, number))
    assert os.fstat(reader.descriptor).st_size < 4 << 20
    assert [array[0] for array in held] == list(range(20))


@pytest.mark.parametrize(("at", "size"), [(-64, 10), (0, 1 << 40), (1 << 40, 10), (64, -1)])
def test_no_offset_leads_out_of_it(at, size):
    reader, writer = pair()
    writer.writable(1 << 20)
    with pytest.raises(BadFrame, match="outside"):
        reader.read(at, size)


def test_nobody_can_take_memory_away_from_under_the_other():
    _, writer = pair()
    writer.writable(1 << 20)
    with pytest.raises(PermissionError):
        os.ftruncate(writer.descriptor, 0)


@given(body=st.binary(max_size=80))
def test_a_body_that_is_none_is_a_bad_frame_or_small(body):
    found: tensors.Tensors = ()
    with suppress(BadFrame):
        found, _ = tensors.decode(memoryview(body))
    assert all(tensor.size <= len(body) for tensor in found)


@given(
    rows=st.lists(st.binary(max_size=30), max_size=10),
    cut=st.integers(0, 200),
)
def test_texts_arrive_as_they_were_or_not_at_all(rows, cut):
    column = np.empty(len(rows), object)
    column[:] = rows
    body = b"".join(bytes(piece) for piece in tensors.encode([column]))
    ((got,), failed) = tensors.decode(memoryview(body))
    assert got.tolist() == rows
    assert failed == []
    if cut < len(body) - 64:
        with pytest.raises(BadFrame):
            tensors.decode(memoryview(body[:cut]))
