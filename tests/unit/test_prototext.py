"""Protobuf's text format, read with the lines of its fields."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.config.prototext import Block, read_prototext
from paceline.core.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    def parse(text: str) -> Block:
        path = tmp_path / "f.pbtxt"
        path.write_text(text)
        return read_prototext(path)

    return parse


def test_every_form_of_a_value(read):
    block = read(
        "# a comment\n"
        "name: 'a' \"b\\n\"  kind: KIND_CPU;\n"
        "on: true, number: -3\n"
        "sizes: [1, 0x10,\n  -1]\n"
        "sizes: 7\n"
        "inner < value: 1 > inner { value: 2 } inner: { value: 3 }\n"
        "more: [{ value: 4 }, { value: 5 }]\n"
    )
    assert (block.text("name"), block.text("kind"), block.boolean("on")) == ("ab\n", "KIND_CPU", True)
    assert block.integer("number") == -3
    assert block.integers("sizes") == [1, 16, -1, 7]
    assert [inner.integer("value") for inner in block.blocks("inner") + block.blocks("more")] == [1, 2, 3, 4, 5]
    assert (block.line_of("number"), block.line_of("inner"), block.blocks("more")[0].label) == (3, 7, "more")
    assert (block.integer("none"), block.text("none"), block.block("none"), block.boolean("none")) == (
        None,
        None,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a {\nb: 1\n", 2, "expected '}', got the end of the file"),
        ("a: 1\nb\n", 2, "expected ':' or '{' behind 'b'"),
        ("\n\na: }", 3, "expected a value for 'a', got '}'"),
        ("a: [1 2]", 1, 'Expected ","'),
        ("a: 'b", 1, "String missing ending quote"),
        ("a: 1\n}", 2, "Expected identifier"),
        ("a { " * 100, 1, "messages more than 32 deep"),
    ],
)
def test_what_is_not_in_the_format_is_refused_with_its_line(read, text, line, message):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"f.pbtxt line {line})")


@pytest.mark.parametrize(
    ("text", "ask", "message"),
    [
        ("a: 'x'", lambda block: block.integer("a"), "a: must be a whole number, got 'x'"),
        ("a: 1.5", lambda block: block.integer("a"), "a: must be a whole number, got '1.5'"),
        ("a: 1\na: 2", lambda block: block.integer("a"), "a: must be there once"),
        ("a: maybe", lambda block: block.boolean("a"), "a: must be true or false, got 'maybe'"),
        ("a { b: 1 }", lambda block: block.integer("a"), "a: must be a value, got a message"),
        ("a: 1", lambda block: block.block("a"), "a: must be a message { ... }, got '1'"),
        ("a { bb: 1 }", lambda block: block.block("a").allow({"b", "c"}), "a.bb: unknown field"),
    ],
)
def test_a_field_that_is_not_what_it_should_be(read, text, ask, message):
    with pytest.raises(ConfigError, match=f"^{message.replace('{', '.').replace('}', '.').replace('...', '.*')}"):
        ask(read(text))


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path: Path = tmp_path_factory.mktemp("any") / "f.pbtxt"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        read_prototext(path)
    except ConfigError as error:
        assert str(path) in str(error)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_prototext(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"a: '\xff'")
    with pytest.raises(ConfigError, match="must be UTF-8"):
        read_prototext(tmp_path / "latin")


def test_a_byte_order_mark_and_the_line_ends_of_windows(tmp_path):
    (tmp_path / "f.pbtxt").write_bytes(b"\xef\xbb\xbf# first\r\na: 1 # one\r\nb { c: 'x' }\r\n")
    block = read_prototext(tmp_path / "f.pbtxt")
    assert (block.integer("a"), block.blocks("b")[0].text("c"), block.line_of("b")) == (1, "x", 3)
