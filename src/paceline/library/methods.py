"""A function of a list that is a method: whose batches does a call join? Those of its object.

Rules:
- An object's batches go with it, and a copy of it has its own.
- Pickled is the name alone: batches, locks and threads stay in their process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from paceline.library.batching import Options, name_of


class PerObject:
    """Base of what stands in for a function, in a module or in a class.

    Attributes:
        function: what runs.
    """

    _attribute = ""

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        self.function = function
        self._options = options

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    def __get__(self, instance: object | None, owner: type | None = None) -> Self:
        if instance is None:
            return self
        held = getattr(instance, "__dict__", None)
        if not isinstance(held, dict):
            what = "classmethod" if isinstance(instance, type) else "method of an object without __dict__"
            raise TypeError(f"paceline.batched: {name_of(self.function)} is a {what}: no place for its batches")
        # Not under the method's own name: Python would look there first, and in a copy find what is the original's.
        place = f"_{self._attribute}_batched"
        found: Self | None = held.get(place)
        if found is not None and getattr(found.function, "__self__", instance) is not instance:
            del held[place]
            found = None
        if found is None:
            found = type(self)(self.function.__get__(instance, owner), self._options)
            found._attribute = self._attribute
            found = held.setdefault(place, found)
        return found

    def __reduce__(self) -> Any:
        owner = getattr(self.function, "__self__", None)
        return self.function.__qualname__ if owner is None else (getattr, (owner, self._attribute))
