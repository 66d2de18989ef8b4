"""Is this expression one about sizes? PyTorch evaluates those in its files as Python.

Rules:
- Arithmetic, comparisons, names, numbers, and calls of those functions of SymPy's and PyTorch's that sizes are made of:
  `Mod(s0, Integer(2))`.
- Of attributes, only those of a tensor's shape, and how numbers are rounded. Texts are single words or numbers, and
  nothing is done with them. No name begins with an underscore.
- Evaluating it ends soon. Whole numbers have 64 bits at most, and a shift says by how much, which is little. PyTorch
  looks for common divisors, and multiplies out for that: so an upper bound of a part's terms is computed from those of
  its own parts, and is limited.
"""

from __future__ import annotations

import ast
import re
from math import inf, prod
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_WORD: Final = re.compile(r"|[A-Za-z_][\w.]*", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d{1,19}(\.\d{1,40})?(e[+-]?\d{1,3})?", re.ASCII)
_ATOMS: Final = frozenset({"Float", "Integer", "Rational", "Symbol"})
_SUMS: Final = frozenset({
    "Abs", "Add", "And", "CeilToInt", "Eq", "Equality", "FloatTrueDiv", "FloorToInt", "Ge", "GreaterThan", "Gt",
    "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "LShift", "Le", "LessThan", "Lt", "Max", "Min", "Ne", "Not",
    "Or", "RShift", "RoundDecimal", "RoundToInt", "StrictGreaterThan", "StrictLessThan", "ToFloat", "TruncToFloat",
    "TruncToInt", "Unequality", "Where", "abs", "max", "min",
})  # fmt: skip
# Common divisors are looked for in both parts of a division: the time goes with their product.
_PRODUCTS: Final = frozenset({"CeilDiv", "CleanDiv", "FloorDiv", "Mod", "ModularIndexing", "Mul", "PythonMod"})
_POWERS: Final = frozenset({"FloatPow", "Pow", "PowByNatural"})
_BY_LITTLE: Final = frozenset({"Float", "LShift", "RShift", "RoundDecimal"})
_ATTRIBUTES: Final = frozenset({
    "_sym_sqrt", "ceil", "dtype", "floor", "numel", "size", "sqrt", "storage_offset", "stride", "sym_float", "trunc",
})  # fmt: skip
_PLAIN: Final = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.operator, ast.unaryop, ast.boolop,
    ast.cmpop, ast.expr_context,
)  # fmt: skip
_MOST: Final = 20_000  # characters
_LARGEST: Final = 2**63
_LITTLE: Final = 64
_MOST_TERMS: Final = 4000  # take a second; the sizes of a deep network have hundreds
# A symbol counts as a sum of two: powers of one, and products of many, take their time as well.
_SYMBOL: Final = 2


def is_harmless(text: str) -> bool:
    """True when evaluating it does nothing but arithmetic on sizes, and little of that."""
    if len(text) > _MOST:
        return False
    try:
        _terms(ast.parse(text.strip(), mode="eval"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _terms(node: ast.AST) -> float:
    """An upper bound of the terms that a node has once all below it is multiplied out.

    Raises:
        ValueError: they are too many, or there is more in it than arithmetic on sizes.
    """
    below = list(ast.iter_child_nodes(node))
    match node:
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            terms = _terms_of_power(base, exponent)
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Mod(), right=right):
            terms = _terms(left) * _terms(right)
        case ast.BinOp(left=shifted, op=ast.LShift() | ast.RShift(), right=by):
            _require(_size(by) <= _LITTLE)
            terms = _terms(shifted)
        case ast.Call(func=ast.Name(id=name)):
            terms = _terms_of_call(name, [*node.args, *(each.value for each in node.keywords)])
        case ast.Subscript(value=held, slice=key):
            terms = _terms(held) if _is_word(key) else max(_terms(held), _terms(key))
        case ast.Name(id=name):
            _require(_NAME.fullmatch(name) is not None)
            terms = _SYMBOL
        case ast.Constant(value=int() | float() as number):
            _require(abs(number) <= _LARGEST)
            terms = 1
        case _:
            _require(_is_plain(node))
            terms = sum(_terms(each) for each in below)
    _require(terms <= _MOST_TERMS)
    return terms


def _terms_of_call(name: str, arguments: list[ast.expr]) -> float:
    if name in _POWERS:
        _require(len(arguments) == 2)
        return _terms_of_power(*arguments)
    _require(name not in _BY_LITTLE or all(_size(each) <= _LITTLE for each in arguments[1:]))
    terms = [1 if _is_word(each) else _terms(each) for each in arguments]
    if name in _ATOMS:
        return max(_SYMBOL if name == "Symbol" else 1, *terms)
    if name in _PRODUCTS:
        return prod(terms)
    _require(name in _SUMS)
    return sum(terms)


def _terms_of_power(base: ast.expr, exponent: ast.expr) -> float:
    size = _size(exponent)
    _require(size <= _LITTLE)
    return float(max(2, _terms(base)) ** max(1, size))


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("more than arithmetic on sizes")


def _size(node: ast.expr) -> float:
    """How large a constant is, without its sign; infinity: it is none."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return abs(number)
        case ast.Constant(value=str() as text) if _NUMBER.fullmatch(text):
            return abs(float(text))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return _size(inner)
        case ast.Call(func=ast.Name(id="Float" | "Integer"), args=[inner, *_]):
            return _size(inner)
        case ast.Call(func=ast.Name(id="Rational"), args=[above, below]):
            return max(_size(above), _size(below))
    return inf


def _is_plain(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute()):
            return True
        case ast.Attribute(attr=name):
            return name in _ATTRIBUTES
    return isinstance(node, _PLAIN)


def _is_word(node: ast.expr) -> bool:
    """True for a text that is one word, or a number."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    return bool(_WORD.fullmatch(node.value) or _NUMBER.fullmatch(node.value))
