"""Which calls of a cached function are the same, and how much room does a value take?

Rules:
- Arguments are compared by what they hold, as bytes: what a caller changes later changes no key.
- 1, 1.0, True and "1" are four keys; a list and a tuple of the same are one.
- `f(1)` and `f(x=1)` are one key.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import msgspec

_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")
_SHARED: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


class KeyMaker:
    """Makes the keys of one function.

    Args:
        own: the user's function of the arguments, which gives the key; None: all arguments are.
    """

    def __init__(self, name: str, function: Callable[..., Any], own: Callable[..., Any] | None) -> None:
        self._name = name
        self._own = own
        self._function = function
        self._signature = inspect.signature(function)

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The key of a call.

        Raises:
            TypeError: the arguments are not plain data, or not those of the function.
        """
        named: Mapping[str, Any] = kwargs
        if self._own is not None:
            whole: Any = self._own(*args, **kwargs)
        else:
            if kwargs:
                try:
                    bound = self._signature.bind(*args, **kwargs)
                except TypeError:
                    self._function(*args, **kwargs)  # which says it in the words that everybody knows
                    raise
                args, named = bound.args, bound.kwargs
            # Always both: f([1], {"a": 1}) is not f(1, a=1).
            whole = (args, named)
        try:
            return _ENCODER.encode(whole)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(self._explained(args, named)) from error

    def _explained(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> str:
        if self._own is not None:
            return f"{self._name}: key=... gave what is not plain data (numbers, strings, lists, dicts)"
        for place, value in (*enumerate(args), *named.items()):
            try:
                _ENCODER.encode(value)
            except (TypeError, ValueError, OverflowError, RecursionError):
                return (
                    f"{self._name}: argument {place!r} is a {type(value).__name__}, which cannot be part of a key; "
                    "say what tells calls apart: key=lambda ...: ..."
                )
        return f"{self._name}: its arguments cannot be made a key"


def size_of(value: Any, most: float = float("inf")) -> int:
    """Bytes that a value takes with all that it holds; nearly, for what is not Python's own.

    Args:
        most: stop counting above it.
    """
    total, seen, rest = 0, set[int](), [value]
    while rest and total <= most:
        each = rest.pop()
        if id(each) in seen or isinstance(each, _SHARED):
            continue
        seen.add(id(each))
        total += sys.getsizeof(each)
        if isinstance(each, dict):
            rest += each.keys()
            rest += each.values()
        elif isinstance(each, list | tuple | set | frozenset):
            rest += each
        else:
            rest += _parts(each)
            total += _outside(each)
    return total


def _parts(value: Any) -> list[Any]:
    """What the attributes of an object hold."""
    held = list(getattr(value, "__dict__", {}).values())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        held += [getattr(value, name, None) for name in names if name not in ("__dict__", "__weakref__")]
    return held


def _outside(value: Any) -> int:
    """Memory of an array or a table that `sys.getsizeof` does not see: that of a view is somebody else's."""
    size = getattr(value, "nbytes", 0)
    if isinstance(value, bytes | bytearray | memoryview) or not isinstance(size, int):
        return 0
    return max(0, size - sys.getsizeof(value))
