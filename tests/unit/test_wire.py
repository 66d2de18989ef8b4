"""Are messages of Protocol Buffers read alike from memory and from a file, and broken ones told?"""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.runtimes import wire
from support.inspected import field

# A number, a fixed one of each size, a text, and the same field again.
FIXED = bytes([2 << 3 | 5, 1, 0, 0, 0, 3 << 3 | 1, 2, 0, 0, 0, 0, 0, 0, 0])
MESSAGE = bytes([1 << 3, 0x96, 0x01]) + FIXED + field(4, b"x" * 20_000) + field(4, field(1, b"inner"))
EXPECTED = [(1, 150), (2, 1), (3, 2), (4, b"x" * 20_000), (4, field(1, b"inner"))]


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
    assert bytes(wire.first(twice, 2, 1)) == b"a"
    assert bytes(wire.first(twice, 3, 1)) == b""


@pytest.mark.parametrize("end", [1, 2, 5, 10, 18, 20, 20_000])
def test_a_message_that_is_cut_off(end: int) -> None:
    with pytest.raises(wire.Malformed):
        list(wire.fields(memoryview(MESSAGE[:end])))


@pytest.mark.parametrize("data", [b"\x0b", b"\x08" + b"\xff" * 11, b"\x12\x7f"])
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
