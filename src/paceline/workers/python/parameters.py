"""What does `predict` want to be given? Its annotation says it.

Rules:
- Nothing, or a list: the batch, a list of decoded items.
- `np.ndarray`: the items, stacked. `pandas.DataFrame`: the items, as rows.
- Any other type: one item.
- A type that msgspec knows (dataclass, TypedDict, Struct, `list[float]`, `dict`, `str`, ...) is checked as the item
  is decoded; so is a model of pydantic.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec.inspect
import numpy as np

from paceline.core.errors import ModelLoadError, first_line
from paceline.workers.python.tracebacks import one_line

_BATCHES: Final = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_ANYTHING: Final = (inspect.Parameter.empty, Any, object)


class Takes(enum.Enum):
    """What `predict` is called with."""

    BATCH = "predict in batches"
    ITEM = "predict item by item"
    ARRAY = "predict in batches, stacked into an array"
    FRAME = "predict in batches, as a DataFrame"


@dataclass(frozen=True)
class Wanted:
    """What `predict` is called with, and what its items are.

    Attributes:
        item: the type of an item, for msgspec.
        dtype: of the stacked array; None: as numpy finds it.
    """

    takes: Takes
    item: Any = Any
    dtype: Any = None


def parameters(owner: Any, name: str) -> list[inspect.Parameter]:
    """The parameters that a caller of `owner.name` has to think of.

    Raises:
        ModelLoadError: it is a method without `self`.
    """
    function = getattr(owner, name)
    try:
        found = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # written in C
        return [inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)]
    if not isinstance(owner, type) or not isinstance(inspect.getattr_static(owner, name), types.FunctionType):
        return found
    if not found:
        raise ModelLoadError(f"{name}(): expected self as the first parameter of a method, got none")
    return found if found[0].kind is inspect.Parameter.VAR_POSITIONAL else found[1:]


def check_count(owner: Any, name: str, wanted: Sequence[str]) -> None:
    """See that `owner.name` can be called with so many arguments.

    Args:
        wanted: what they are called, for messages.

    Raises:
        ModelLoadError: it cannot.
    """
    found = parameters(owner, name)
    if not _takes(found, len(wanted)):
        raise ModelLoadError(f"{name}({_shown(found)}): expected {name}({', '.join(wanted)})")


def wanted(owner: Any, name: str, takes_item: bool = False) -> Wanted:
    """What the function `name` of `owner` wants.

    Args:
        takes_item: without an annotation, it is one item.

    Raises:
        ModelLoadError: there is no way to call it.
    """
    found = parameters(owner, name)
    if not _takes(found, 1):
        raise ModelLoadError(
            f"{name}({_shown(found)}): expected one parameter: the batch, or one item where it is annotated",
            hint=f"as a method: def {name}(self, batch)" if isinstance(owner, type) else None,
        )
    result = _of_annotation(_annotation(getattr(owner, name), found[0]), takes_item)
    if takes_item and result.takes not in (Takes.ITEM, Takes.BATCH):
        raise ModelLoadError(
            f"{name}({found[0].name}): a generator takes one item, and its annotation asks for a batch",
            hint="annotate it with the type of an item, such as list[float]; or not at all",
        )
    why = _why_unreadable(result.item)
    if why:
        raise ModelLoadError(
            f"{name}({found[0].name}): JSON cannot be decoded to its annotation: {why}",
            hint="annotate it with a dataclass, a TypedDict, a model of pydantic, np.ndarray, pd.DataFrame or a type "
            "of JSON; or not at all",
        )
    return result


def _takes(found: Sequence[inspect.Parameter], count: int) -> bool:
    try:
        inspect.Signature(found).bind(*[None] * count)
    except TypeError:
        return False
    return True


def _shown(found: Sequence[inspect.Parameter]) -> str:
    return ", ".join(each.name for each in found)


def _why_unreadable(item: Any) -> str:
    """Empty when there is a way to read one."""
    try:
        known = msgspec.inspect.type_info(item)
    except TypeError as error:
        return first_line(error)
    if not isinstance(known, msgspec.inspect.CustomType) or hasattr(item, "model_validate"):
        return ""
    return f"no way to read {getattr(item, '__qualname__', item)}"


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    if not isinstance(parameter.annotation, str):
        return parameter.annotation

    def alone() -> None:
        """Carries the one annotation: the others need not be resolved."""

    alone.__annotations__ = {parameter.name: parameter.annotation}
    # A partial has `func`; what else has no globals is an object that can be called.
    inner = inspect.unwrap(getattr(function, "func", function))
    names = getattr(inner, "__globals__", None) or vars(sys.modules[type(inner).__module__])
    try:
        return get_type_hints(alone, names)[parameter.name]
    except Exception as error:  # it is an expression, and was not evaluated yet
        raise ModelLoadError(
            f"{getattr(function, '__name__', 'predict')}({parameter.name}: {parameter.annotation}): {one_line(error)}",
            hint="the annotation says what predict is called with: import it where it is used, or leave it out",
        ) from None


def _of_annotation(annotation: Any, takes_item: bool) -> Wanted:
    if annotation in _ANYTHING:
        return Wanted(Takes.ITEM if takes_item else Takes.BATCH)
    origin = get_origin(annotation) or annotation
    if origin in (np.ndarray, np.array):  # the function is not the type, and what is meant is clear
        return Wanted(Takes.ARRAY, dtype=_dtype(annotation))
    if getattr(origin, "__name__", "") == "DataFrame" and origin.__module__.partition(".")[0] == "pandas":
        return Wanted(Takes.FRAME, dict[str, Any])
    if origin in _BATCHES and not takes_item:
        of = get_args(annotation)
        return Wanted(Takes.BATCH, of[0] if of else Any)
    return Wanted(Takes.ITEM, annotation)


def _dtype(annotation: Any) -> Any:
    """Of `NDArray[np.float32]`, which is `np.ndarray[shape, np.dtype[np.float32]]`."""
    for each in get_args(annotation):
        if get_origin(each) is np.dtype:
            scalar = get_args(each)[0]
            # `np.floating` and the like name a kind, and no dtype.
            return np.dtype(scalar) if scalar in np.sctypeDict.values() else None
    return None
