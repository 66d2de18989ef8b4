"""Is this expression one about sizes? PyTorch evaluates those in its files as Python.

Rules:
- Arithmetic, comparisons, names, numbers, and calls of those functions of SymPy's and PyTorch's that sizes are made of:
  `Mod(s0, Integer(2))`.
- Of attributes, only those of a tensor's shape, and how numbers are rounded. Texts are single words, and nothing is
  done with them. No name begins with an underscore.
- Evaluating it ends soon: numbers have 64 bits at most, and a power or a shift says by how much, which is little, also
  where powers are taken of powers.
"""

from __future__ import annotations

import ast
import re
from math import inf
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_TEXT: Final = re.compile(r"|[A-Za-z_][\w.]*|\d{1,19}(\.\d{1,19})?", re.ASCII)
_FUNCTIONS: Final = frozenset({
    "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "FloatTrueDiv", "FloorDiv",
    "FloorToInt", "Ge", "GreaterThan", "Gt", "IntTrueDiv", "Integer", "IsNonOverlappingAndDenseIndicator", "Le",
    "LessThan", "Lt", "Max", "Min", "Mod", "ModularIndexing", "Mul", "Ne", "Not", "Or", "PythonMod", "Rational",
    "RoundToInt", "StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat", "TruncToFloat", "TruncToInt",
    "Unequality", "Where",
})  # fmt: skip
_BY_LITTLE: Final = frozenset({"Float", "LShift", "RShift", "RoundDecimal"})
_POWERS: Final = frozenset({"FloatPow", "Pow", "PowByNatural"})
_ATTRIBUTES: Final = frozenset({"ceil", "dtype", "floor", "numel", "size", "sqrt", "storage_offset", "stride", "trunc"})
_PLAIN: Final = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.operator, ast.unaryop, ast.boolop,
    ast.cmpop, ast.expr_context,
)  # fmt: skip
_MOST: Final = 20_000  # characters
_LARGEST: Final = 2**63
_LITTLE: Final = 64
_LARGEST_EXPONENT: Final = 8


def is_harmless(text: str) -> bool:
    """True when evaluating it does nothing but arithmetic on sizes, and little of that."""
    if len(text) > _MOST:
        return False
    try:
        return _is_harmless(ast.parse(text.strip(), mode="eval"), 1)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_harmless(node: ast.AST, power: int) -> bool:
    """Judge a node and all below it, the value of which is raised to a power."""
    below = list(ast.iter_child_nodes(node))
    match node:
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            return _is_harmless_power(base, exponent, power)
        case ast.BinOp(left=shifted, op=ast.LShift() | ast.RShift(), right=by):
            return _size(by) <= _LITTLE and _is_harmless(shifted, power)
        case ast.Call(func=ast.Name(id=name)):
            return _is_harmless_call(name, _arguments(node), power)
        case ast.Call(func=ast.Attribute()):
            pass
        case ast.Attribute(attr=name) if name not in _ATTRIBUTES:
            return False
        case ast.Attribute():
            pass
        case ast.Subscript(value=held, slice=key):
            below = [held] if _is_word(key) else [held, key]
        case ast.Name(id=name):
            return _NAME.fullmatch(name) is not None
        case ast.Constant(value=int() | float() as number):
            return abs(number) <= _LARGEST
        case _ if not isinstance(node, _PLAIN):
            return False
    return all(_is_harmless(each, power) for each in below)


def _is_harmless_call(name: str, arguments: list[ast.expr], power: int) -> bool:
    if name in _POWERS:
        return len(arguments) == 2 and _is_harmless_power(arguments[0], arguments[1], power)
    if name in _BY_LITTLE and not all(_size(each) <= _LITTLE for each in arguments[1:]):
        return False
    known = name in _FUNCTIONS or name in _BY_LITTLE
    return known and all(_is_word(each) or _is_harmless(each, power) for each in arguments)


def _is_harmless_power(base: ast.expr, exponent: ast.expr, power: int) -> bool:
    size = _size(exponent)
    if size > _LARGEST_EXPONENT or size * power > _LITTLE:
        return False
    return _is_harmless(base, max(1, int(size)) * power)


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(each.value for each in call.keywords)]


def _size(node: ast.expr) -> float:
    """How large a constant is, without its sign; infinity: it is none."""
    match node:
        case ast.Constant(value=int() as number):
            return abs(number)
        case ast.UnaryOp(op=ast.USub(), operand=inner) | ast.Call(func=ast.Name(id="Integer"), args=[inner]):
            return _size(inner)
        case ast.Call(func=ast.Name(id="Rational"), args=[above, below]):
            return max(_size(above), _size(below))
    return inf


def _is_word(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and _TEXT.fullmatch(node.value) is not None
