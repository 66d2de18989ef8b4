"""A stream of bytes is cut into the same frames however it arrives; and what is no frame is found out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.workers.frames import HEAD, MAGIC, MOST_BYTES, About, BadFrame, FrameReader, Kind, decode, encode, head

# Around the size of the reader's own memory a frame changes from short to long.
LENGTHS = st.one_of(st.integers(0, 40), st.sampled_from([65519, 65520, 65521, 65536, 65552, 200_000]))
FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.integers(-(2**31), 2**31 - 1), LENGTHS), max_size=6)


def stream_of(frames: list[tuple[Kind, int, int]]) -> bytes:
    return b"".join(head(kind, call, length) + body_of(length) for kind, call, length in frames)


def body_of(length: int) -> bytes:
    return bytes(range(251)) * (length // 251) + bytes(range(length % 251))


@given(frames=FRAMES, cuts=st.lists(st.integers(1, 70_000), max_size=20))
def test_any_chunking_gives_the_same_frames(frames, cuts):
    stream, reader, found, at = stream_of(frames), FrameReader(), [], 0
    for size in [*cuts, len(stream)]:
        found += reader.feed(stream[at : at + size])
        at += size
    assert [(frame.kind, frame.call, len(frame.body)) for frame in found] == frames
    assert all(bytes(frame.body) == body_of(len(frame.body)) for frame in found)


@given(frames=FRAMES)
def test_a_byte_at_a_time_gives_the_same_frames(frames):
    reader = FrameReader()
    short = [(kind, call, min(length, 40)) for kind, call, length in frames]
    stream = stream_of(short)
    found = [frame for at in range(len(stream)) for frame in reader.feed(stream[at : at + 1])]
    assert [(frame.kind, frame.call, len(frame.body)) for frame in found] == short


def test_a_body_stays_what_it_was_when_more_is_read():
    reader = FrameReader()
    (first,) = reader.feed(head(Kind.RUN, 1, 3) + b"abc")
    list(reader.feed(head(Kind.RUN, 2, 3) + b"xyz"))
    assert bytes(first.body) == b"abc"


@pytest.mark.parametrize(
    "stream",
    [
        HEAD.pack(MAGIC + 1, Kind.RUN, 0, 0),
        HEAD.pack(MAGIC, Kind.RUN, 0, -1),
        HEAD.pack(MAGIC, Kind.RUN, 0, -(2**31)),
        HEAD.pack(MAGIC, 99, 0, 0),
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\0" * 16,
    ],
)
def test_what_is_no_frame_is_found_out(stream):
    with pytest.raises(BadFrame):
        list(FrameReader().feed(stream))


@given(stream=st.binary(min_size=16, max_size=200))
def test_garbage_is_never_a_frame(stream):
    reader = FrameReader()
    if int.from_bytes(stream[:4], "little", signed=True) != MAGIC:
        with pytest.raises(BadFrame):
            list(reader.feed(stream))


def test_a_long_frame_takes_no_memory_before_it_comes():
    reader = FrameReader()
    assert list(reader.feed(HEAD.pack(MAGIC, Kind.RUN, 0, 1 << 30))) == []
    assert len(reader.room()) == 1 << 30


def test_a_frame_longer_than_a_length_can_say_is_not_sent():
    with pytest.raises(BadFrame, match="too long"):
        head(Kind.RUN, 0, MOST_BYTES + 1)


def test_a_document_that_is_none_is_a_bad_frame():
    about = About(says=["function predict(batch)"], lanes=3)
    assert decode(memoryview(encode(about)), About) == about
    for wrong in (b"", b"{", b"[]", b'{"lanes": "many"}', b"\xff"):
        with pytest.raises(BadFrame, match="About"):
            decode(memoryview(wrong), About)
