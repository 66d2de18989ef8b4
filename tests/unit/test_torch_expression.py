"""Are expressions about sizes told from code?"""

from __future__ import annotations

import pytest

from paceline.runtimes.torch_expression import is_harmless


@pytest.mark.parametrize(
    "text",
    [
        "s77",
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s17', positive=True, integer=True))",
        "Min(Integer(16), Mul(Integer(16), Symbol('s77')))",
        "2*s0 + FloorDiv(s1, 2)",
        "L['y'].size()[0] == L['x'].size()[0]",
        "not (s0 <= 1 or s0 > 3.5)",
    ],
)
def test_arithmetic_on_sizes_is_let_through(text: str):
    assert is_harmless(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Symbol('s0').__class__",
        "().__class__.__bases__",
        "S('__import__(chr(111))')",
        "Symbol('s0; import os')",
        "Symbol('a b')",
        "open('/etc/passwd')",
        "eval('1')",
        "(lambda: 0)()",
        "[x for x in L]",
        "L['x'].tofile('y')",
        "Symbol('s0')('x')",
        "s0; s1",
        "s0 !",
        "",
        "(" * 10_000,
        "1+" * 15_000 + "1",
        f"{'-' * 5000}1",
        "_s",
        "b'x'",
        "f'{s0}'",
        "(s0 := 1)",
    ],
)
def test_anything_else_is_not(text: str):
    assert not is_harmless(text)
