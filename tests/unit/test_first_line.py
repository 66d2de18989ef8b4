"""Of what an exception says, people are shown one line."""

import pytest

from paceline.core.errors import first_line, named_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("too small\nand much more"), "too small"),
        (ValueError("\n  after an empty line  \nmore"), "after an empty line"),
        (AssertionError(), "AssertionError"),
        (RuntimeError(" \n "), "RuntimeError"),
        (ValueError("x" * 900), "x" * 500),
    ],
)
def test_the_first_line_is_short_and_says_something(error: Exception, said: str):
    assert first_line(error) == said


@pytest.mark.parametrize(("error", "said"), [(KeyError("a"), "KeyError: 'a'"), (AssertionError(), "AssertionError")])
def test_a_class_is_named_once(error: Exception, said: str):
    assert named_line(error) == said
