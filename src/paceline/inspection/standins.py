"""What stands in for the objects of a pickle that is followed, and not run? And how large are arrays among them?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

MOST_KEPT: Final = 512
"""Of a long list or tuple, so many entries are kept."""

MOST_NESTED: Final = 4
"""Pickles inside of pickles, and types inside of types, at most."""

_ITEM_SIZE: Final = re.compile(r"[<>|=]?([?bhilqBHILQefdgUSVaOcuM])(\d*)")
_NO_TEXT: Final = re.compile(r"_*[A-Z]\w*|_reconstruct|_frombuffer|dtype|ndarray")
_NATURAL: Final = dict(zip("?bhilqBHILQefdg", (1, 1, 2, 4, 8, 8, 1, 2, 4, 8, 8, 2, 4, 8, 16), strict=True))


class Broken(Exception):
    """The pickle cannot be followed; the message says why."""


@dataclass(eq=False, slots=True)
class Name:
    """A name in a module."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Made:
    """What calling something would give.

    Attributes:
        of: what is called: a `Name`, or whatever else.
        state: what it is filled with.
    """

    of: Any
    args: Any = ()
    state: Any = None


@dataclass(eq=False, slots=True)
class Many:
    """A list, set or dict; of long ones, the beginning."""

    items: list[Any] = field(default_factory=list)
    by_key: dict[str, Any] = field(default_factory=dict)
    length: int = 0

    def add(self, items: list[Any]) -> None:
        """Put items behind the others."""
        self.length += len(items)
        self.items += items[: max(0, MOST_KEPT - len(self.items))]

    def put(self, pairs: list[Any]) -> None:
        """Set keys to values, which alternate; keys that are no text are not kept."""
        self.length += len(pairs) // 2
        for key, value in zip(pairs[::2], pairs[1::2], strict=False):
            if isinstance(key, str) and len(self.by_key) < MOST_KEPT:
                self.by_key[key] = value


def entries(value: Any) -> list[Any]:
    """What is in a list, a tuple or an array of objects; nothing where it is none, or was not kept."""
    if isinstance(value, Made):
        value = value.state[4] if isinstance(value.state, tuple) and len(value.state) == 5 else None
    return value.items if isinstance(value, Many) else list(value) if isinstance(value, tuple) else []


def array_texts(value: Any) -> list[str] | None:
    """The texts in an array of objects; None: it is none of texts."""
    found = entries(value)
    return found if found and all(isinstance(each, str) for each in found) else None


def array_kind(value: Any) -> str | None:
    """The letter of an array's type, such as `f`, `U` or `O`; None: it is not told."""
    state = value.state if isinstance(value, Made) else None
    dtype = state.by_key.get("dtype") if isinstance(state, Many) else state[2] if isinstance(state, tuple) else None
    match = _ITEM_SIZE.fullmatch(_code(dtype))
    return match[1] if match else None


def may_be_text(value: Any) -> bool:
    """True unless it is known not to be a `str`: what a class makes is none, nor is an array or its type."""
    if isinstance(value, str):
        return True
    if value is None or isinstance(value, int | float | tuple | Many | Name):
        return False
    of = value.of if isinstance(value, Made) else None
    return not isinstance(of, Name) or _NO_TEXT.fullmatch(of.name) is None


def elements(args: Any) -> int:
    """How many elements a tensor of PyTorch's has: its arguments are storage, offset, sizes, strides ..."""
    sizes = args[2] if isinstance(args, tuple) and len(args) > 2 else None
    if not isinstance(sizes, tuple) or not all(isinstance(size, int) and size >= 0 for size in sizes):
        return 0
    return prod(sizes)


def has_objects(dtype: Any, depth: int) -> bool:
    """True when elements of a numpy type are Python objects, or in a field of a structure."""
    if depth > MOST_NESTED:
        raise Broken("an array of joblib's has no readable type")
    if isinstance(dtype, Made) and str(dtype.of) == "numpy.dtype":
        return has_objects(dtype.args, depth + 1) or has_objects(dtype.state, depth + 1)
    if isinstance(dtype, tuple):
        return any(has_objects(part, depth) if isinstance(part, Made | Many) else part in ("O", "O8") for part in dtype)
    return isinstance(dtype, Many) and any(
        has_objects(part, depth + 1) for part in dtype.by_key.values() if isinstance(part, tuple | Made)
    )


def item_bytes(dtype: Any) -> int:
    """How many bytes an element of a numpy type has.

    Raises:
        Broken: the type is none that can be read.
    """
    match = _ITEM_SIZE.fullmatch(_code(dtype))
    if match is None:
        raise Broken("an array of joblib's has no readable type")
    letter, digits = match.groups()
    if not digits:
        return _NATURAL.get(letter, 8)
    return int(digits) * (4 if letter == "U" else 1)


def _code(dtype: Any) -> str:
    """What a numpy type is made of, such as `<f8`; "" where that is not seen."""
    code = dtype.args[0] if isinstance(dtype, Made) and isinstance(dtype.args, tuple) and dtype.args else None
    return code if isinstance(code, str) else ""
