"""Are messages of Protocol Buffers read alike from memory and from a file, and broken ones told?"""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.runtimes import wire
from support.inspected import field

# A number, a fixed one of each size, a text, and the same field again.
FIXED = bytes([2 << 3 | 5, 1, 0, 0, 0, 3 << 3 | 1, 2, 0, 0, 0, 0, 0, 0, 0])
MESSAGE = bytes([1 << 3, 0x96, 0x01]) + FIXED + field(4, b"x" * 20_000) + field(4, field(1, b"inner"))
EXPECTED = [(1, 150), (4, b"x" * 20_000), (4, field(1, b"inner"))]


def plain(fields: list[tuple[int, int | memoryview | wire.Part]]) -> list[tuple[int, int | bytes]]:
    return [(number, value if isinstance(value, int) else bytes(value)) for number, value in fields]


def test_a_file_reads_as_memory_does(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(MESSAGE)
    assert plain(list(wire.fields(wire.mapped(tmp_path / "m")))) == EXPECTED
    with (tmp_path / "m").open("rb") as file:
        data = wire.parts(file)
        assert plain(list(wire.fields(data))) == EXPECTED
        assert bytes(data[3:17]) == FIXED
        assert len(data[5:2]) == 0


def test_all_of_a_field_is_found_however_often_it_is_there() -> None:
    twice = memoryview(field(2, field(1, b"a")) + field(2, field(1, b"b") + field(1, b"c")))
    assert [bytes(each) for each in wire.messages(twice, 2, 1)] == [b"a", b"b", b"c"]


def test_of_a_field_that_is_there_several_times_the_last_counts_and_messages_are_merged() -> None:
    parts = field(2, field(1, b"a") + field(3, b"c")) + field(2, field(1, b"b"))
    data = memoryview(parts)
    assert bytes(wire.last(data, 2, 1)) == b"b"
    assert bytes(wire.merged(data, 2)) == field(1, b"a") + field(3, b"c") + field(1, b"b")
    assert bytes(wire.last(data, 2, 3)) == b"c"
    assert bytes(wire.last(data, 3, 1)) == b""
    assert wire.has(data, 2, 3)
    assert not wire.has(data, 3)


def test_of_fields_that_exclude_each_other_the_one_set_last_counts() -> None:
    one, number = field(1, field(1, b"a")), bytes([2 << 3, 7])
    found = [wire.one_of(memoryview(data), {1}, {2}) for data in (one + one, one + number, number + one, number, b"")]
    assert [(chosen, bytes(value)) for chosen, value in found] == [
        (1, 2 * field(1, b"a")), (2, b""), (1, field(1, b"a")), (2, b""), (0, b""),
    ]  # fmt: skip
    # What is not written as the field is does not count.
    assert wire.one_of(memoryview(one + bytes([1 << 3, 7])), {1})[0] == 1
    assert wire.number(memoryview(number + bytes([2 << 3 | 5, 1, 0, 0, 0])), 2) == 7


def test_of_a_map_the_last_of_a_key_counts() -> None:
    entries = [field(1, field(1, key) + field(2, value)) for key, value in ((b"k", b"old"), (b"", b""), (b"k", b"new"))]
    found = wire.entries(memoryview(b"".join(entries)), 1)
    assert {key: bytes(value) for key, value in found.items()} == {"k": b"new", "": b""}


def test_a_name_is_whole_or_none() -> None:
    assert wire.name(memoryview(b"n" * 4096)) == "n" * 4096
    with pytest.raises(wire.TooLong, match="4097 bytes"):
        wire.name(memoryview(b"n" * 4097))
    with pytest.raises(wire.Malformed, match="no text"):
        wire.name(memoryview(b"\xff"))


def test_a_message_in_large_parts_is_not_put_together() -> None:
    part = field(1, b"x" * 700_000)
    assert len(wire.merged(memoryview(part), 1)) == 700_000
    with pytest.raises(wire.Malformed, match="large parts"):
        wire.merged(memoryview(part + part), 1)


@pytest.mark.parametrize("end", [1, 2, 5, 10, 18, 20, 20_000])
def test_a_message_that_is_cut_off(end: int) -> None:
    with pytest.raises(wire.Malformed):
        list(wire.fields(memoryview(MESSAGE[:end])))


@pytest.mark.parametrize(
    "data", [b"\x0b", b"\x08" + b"\xff" * 11, b"\x12\x7f", b"\x00\x01", b"\x88\x80\x80\x80\x10\x01"]
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(wire.Malformed):
        list(wire.fields(memoryview(data)))


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(MESSAGE + MESSAGE)
    with (tmp_path / "m").open("rb") as file:
        fields = wire.fields(wire.parts(file))
        next(fields)
        (tmp_path / "m").write_bytes(MESSAGE[:100])
        with pytest.raises(wire.Malformed, match="shorter"):
            list(fields)
