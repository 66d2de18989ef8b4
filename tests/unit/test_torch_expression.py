"""Are expressions about sizes told from code?"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from paceline.runtimes.torch_expression import is_harmless


def total(names: Iterable[str]) -> str:
    return f"Add({', '.join(names)})"


def symbols(count: int) -> list[str]:
    return [f"Symbol('s{place}', positive=True, integer=True)" for place in range(count)]


ROWS, WIDE = symbols(2)
HALVED = f"FloorDiv(Add(FloorDiv(Add({WIDE}, Integer(-3)), Integer(4)), Integer(-3)), Integer(4))"
MANY = total(symbols(40))


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
        "Pow(Add(Pow(Symbol('s0'), Integer(2)), Integer(-1)), Rational(1, 2))",
        "Mul(Symbol('s0'), Pow(Symbol('s1'), Integer(-1)))",
        "s0**2 << 3",
        "Mod(s0, 8) == 0 and s0 <= 9223372036854775807",
        "Float('2.5', precision=53) * s0",
        "L['x'].stride()[1] if True else -1",
        f"FloatPow(ToFloat({ROWS}), Float('0.5', precision=53))",
        f"FloatPow(ToFloat({ROWS}), Float('-0.5', precision=53))",
        "s0**0.5 / torch._sym_sqrt(torch.sym_float(s0))",
        "Float('0.00069999999999999999', precision=53) * s0",
        "Float('1.0000000000000001e-5', precision=53) * s0",
        "Float('1.0e+18', precision=53) * s0",
        f"Mul(Integer(768), {ROWS}, Pow({HALVED}, Integer(2)), Pow({HALVED}, Integer(2)))",
        "max(1, ((-3) + L['x'].size()[3]) // 4)*max(1, ((-3) + L['x'].size()[2]) // 4) != 1",
        total(symbols(300)),
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


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9",
        "s0**s1",
        "2**12",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "Pow(Integer(9), Integer(10000000000))",
        "PowByNatural(Integer(9), Symbol('s0'))",
        "Pow(2, exp=10000000000)",
        "((((9**8)**8)**8)**8)",
        "(1 + (2 * (9**8)**8))**8",
        "Pow(Pow(Pow(9, 8), 8), 8)",
        "1 << 10**9",
        "1 << 1000000000",
        "LShift(Integer(1), Integer(1000000000))",
        "9223372036854775809",
        "Integer('9999999999999999999999')",
        "Integer(Float('1e999999999'))",
        "Integer(Float('.1e999999999'))",
        "Integer(Float('1.0e-999999999'))",
        f"Float('1.{'0' * 41}', precision=53)",
        "Pow(s0, Float('1.0e+9', precision=53))",
        "Pow(s0, Float('nan', precision=53))",
        "Float('1.5', precision=9999999999)",
        "Float('1.5', 9999999999)",
        "RoundDecimal(Integer(3), Integer(-9999999999))",
        "RisingFactorial(9, 1000000000)",
        "Product(s0, (s0, 1, 100000000))",
        "'a' * 8589934592",
        "(0,) * 8589934592",
        "L['x' * 8589934592]",
    ],
)
def test_what_would_take_forever_is_not_either(text: str):
    assert not is_harmless(text)


@pytest.mark.parametrize(
    "text",
    [
        "FloorDiv(Pow(Pow(Add(x,y,z,w,1),8),8), Add(x,3))",
        f"FloorDiv(Pow({MANY}, Integer(8)), Add(s0, Integer(1)))",
        f"PythonMod(Pow({MANY}, Integer(8)), Add(s0, Integer(1)))",
        f"CleanDiv(Pow({MANY}, Integer(8)), Add(s0, Integer(1)))",
        f"ModularIndexing(Add(Pow({MANY}, Integer(8)), Pow({MANY}, Integer(7))), Integer(1), Add(s0, Integer(1)))",
        f"FloorDiv(Mul({', '.join(f'Add(s{place}, 1)' for place in range(20))}), Add(s0, 3))",
        "FloorDiv(Add(a**8*b**8*c**8*d**8*e**8*f**8, 1), Add(a**7*b**7*c**7*d**7*e**7*f**7, 3))",
        f"PythonMod({total(symbols(80))}, {total([*symbols(79), '2'])})",
        f"({'+'.join(f'a{place}' for place in range(80))}) % ({'+'.join(f'a{place}' for place in range(1, 80))})",
        f"PythonMod({total(f'Pow({each}, 5)' for each in symbols(10))}, "
        f"{total(f'Pow({each}, 4)' for each in symbols(10))})",
        "FloorDiv(" * 12 + "s0" + "".join(f", Add(s{place}, 1))" for place in range(12)),
    ],
)
def test_what_takes_forever_once_it_is_multiplied_out_is_not_either(text: str):
    assert not is_harmless(text)
