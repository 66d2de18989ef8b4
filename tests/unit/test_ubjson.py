"""Is a damaged UBJSON document told from a whole one?"""

from __future__ import annotations

import struct

import pytest

from paceline.runtimes.ubjson import NotUbjson, decoded


def text(value: str, mark: bytes = b"") -> bytes:
    return mark + b"L" + struct.pack(">q", len(value)) + value.encode()


NUMBERS = b"[$d#L" + struct.pack(">q", 3) + struct.pack(">3f", 1, 2, 3)
COUNTED = b"[#L" + struct.pack(">q", 2) + b"{}i\5"
INNER = (
    b"{" + text("trees") + b"[" + NUMBERS + b"{}" + COUNTED + b"]" + text("again") + COUNTED + text("on") + b"T" + b"}"
)
WHOLE = b"{" + text("learner") + INNER + text("name") + text("x", b"S") + text("many") + b"l\0\0\0\7" + b"}"


def test_a_whole_document() -> None:
    many = {"trees": [[], {}, [{}, 5]], "again": [{}, 5], "on": True}
    assert decoded(WHOLE) == {"learner": many, "name": "x", "many": 7}
    assert decoded(b"{}") == {}


def test_a_long_text() -> None:
    long = "x" * (2 << 20)
    assert decoded(b"{" + text("notes") + text(long, b"S") + b"}") == {"notes": long}


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_a_document_that_is_cut_off_anywhere(end: int) -> None:
    with pytest.raises(NotUbjson):
        decoded(WHOLE[:end])


@pytest.mark.parametrize(
    "document",
    [
        WHOLE + b" ",
        b"[]",
        b"{" + text("n") + b"[" * 100 + b"]" * 100 + b"}",
        b"{" + text("n") + b"[#l\0\0\0\x0b" + b"[#l\0\0\0\x0b" * 3,
        b"{" + text("n") + b"?}",
        b"{" + text("n") + b"[#L" + struct.pack(">q", 1) + b"T]}",
        b"{" + text("n") + b"[#L" + struct.pack(">q", 2) + b"T}",
        b"{" + text("n") + b"[$dL" + struct.pack(">q", 0) + b"}",
        b"{" + text("n") + b"[$d#L" + struct.pack(">q", -1) + b"}",
        b"{" + text("n") + b"[$d#L" + struct.pack(">q", 2**62) + b"}",
    ],
    ids=[
        "more behind it",
        "an array",
        "too deep",
        "counts of counts",
        "an unknown type",
        "a count, and an end",
        "too few",
        "a type without a count",
        "less than none",
        "absurdly many",
    ],
)
def test_a_document_that_is_none(document: bytes) -> None:
    with pytest.raises(NotUbjson):
        decoded(document)
