"""Is this expression one about sizes? PyTorch evaluates those in its files as Python.

Rules:
- Arithmetic, comparisons, names, numbers, and calls of what is named as SymPy's functions are: `Mod(s0, Integer(2))`.
- Of attributes, only those of a tensor's shape, and how numbers are rounded. Texts are single words.
- No name begins with an underscore.
"""

from __future__ import annotations

import ast
import re
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z]\w*")
_FUNCTION: Final = re.compile(r"[A-Z][A-Za-z]+")  # not S, N or Q, which evaluate texts
_TEXT: Final = re.compile(r"[\w.]*")
_ATTRIBUTES: Final = frozenset({"ceil", "dtype", "floor", "numel", "size", "sqrt", "storage_offset", "stride", "trunc"})
_PLAIN: Final = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Tuple, ast.keyword,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
)  # fmt: skip
_MOST: Final = 20_000  # characters


def is_harmless(text: str) -> bool:
    """True when evaluating it does nothing but arithmetic on sizes."""
    if len(text) > _MOST:
        return False
    try:
        return all(_is_harmless(node) for node in ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_harmless(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return _FUNCTION.fullmatch(name) is not None
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Attribute(attr=name):
            return name in _ATTRIBUTES
        case ast.Call():
            return False
        case ast.Name(id=name):
            return _NAME.fullmatch(name) is not None
        case ast.Constant(value=str(value)):
            return _TEXT.fullmatch(value) is not None
        case ast.Constant(value=value):
            return isinstance(value, int | float)
    return isinstance(node, _PLAIN)
