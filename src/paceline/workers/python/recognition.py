"""Which class or function of a module is the service?

Contract 1 is a function `predict`; contract 2 a class with a method `predict`, every other method optional.

Rules:
- A class counts that the module defines itself, and that no other of its classes derives from.
- Where there are several, nothing is guessed: the error names them, and `service.py:Name` chooses.
"""

from __future__ import annotations

import inspect
from types import ModuleType, SimpleNamespace
from typing import Any, Final

from paceline.core.errors import ModelLoadError
from paceline.workers.python.contract import PARTS, Contract

# What many would expect to be called. Others, such as `clean`, may be helpers of the function's own.
_OF_CLASSES: Final = ("setup", "init")
_DECLARED: Final = ("inputs", "outputs", "max_batch_size", "deterministic")


def recognise(module: ModuleType, file: str) -> Contract | None:
    """The contract that a module keeps, or None.

    Raises:
        ModelLoadError: it keeps several.
    """
    classes = _classes(module)
    names = [each.__name__ for each in classes]
    has_function = _is_function(getattr(module, "predict", None))
    if has_function:
        names.append("predict")
    if len(names) > 1:
        raise ModelLoadError(
            f"{file}: several things here have a predict: {', '.join(names)}",
            hint=f"name the one to serve, such as {file}:{names[0]}",
        )
    return _of_function(module, "predict") if has_function else _of_class(classes[0]) if classes else None


def named(module: ModuleType, file: str, name: str) -> Contract:
    """The contract that the thing called `name` keeps.

    Raises:
        ModelLoadError: there is no such thing, or it keeps none.
    """
    thing = getattr(module, name, None)
    if thing is None:
        own = [each.__name__ for each in _classes(module)]
        own += [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise ModelLoadError(f"{file} has no {name!r}", hint=f"it has {', '.join(own)}" if own else None)
    if _is_function(thing):
        return _of_function(module, name)
    if not callable(getattr(thing, "predict", None)):
        raise ModelLoadError(f"{file}:{name}: expected a function, or a class or an object with a method predict")
    return _of_class(thing) if isinstance(thing, type) else _of_object(thing, name)


def objects(module: ModuleType) -> list[str]:
    """The names of the objects that have a method predict: they are served when they are named."""
    return [name for name, each in vars(module).items() if not name.startswith("_") and _predicts(each)]


def _predicts(thing: Any) -> bool:
    try:
        return not isinstance(thing, (type, ModuleType)) and callable(getattr(thing, "predict", None))
    except Exception:  # of a library that loads itself when it is needed, and cannot
        return False


def _classes(module: ModuleType) -> list[type]:
    own = [
        each
        for name, each in vars(module).items()
        if isinstance(each, type) and each.__module__ == module.__name__ and not name.startswith("_")
    ]
    able = [each for each in dict.fromkeys(own) if hasattr(each, "predict") and not _is_interface(each)]
    return [each for each in able if not any(other is not each and each in other.__mro__ for other in able)]


def _is_interface(kind: type) -> bool:
    return inspect.isabstract(kind) or getattr(kind, "_is_protocol", False)


def _is_function(thing: Any) -> bool:
    return callable(thing) and not isinstance(thing, type) and not hasattr(thing, "predict")


def _of_function(module: ModuleType, name: str) -> Contract:
    parts = {"predict": getattr(module, name)}
    if _is_function(getattr(module, "example", None)):
        parts["example"] = module.example
    owner = SimpleNamespace(**parts)
    idle = [f"{part}()" for part in _OF_CLASSES if _is_function(getattr(module, part, None))]
    note = f"{' and '.join(idle)} beside a function: not called; make it a class" if idle else None
    return Contract(f"function {name}", owner, {part: part for part in parts}, lambda: owner, _declared(module), note)


def _of_class(kind: type) -> Contract:
    needed = [each.name for each in _parameters(kind) if each.default is each.empty]
    if needed:
        raise ModelLoadError(
            f"class {kind.__name__} cannot be made without arguments: its __init__ needs {', '.join(needed)}",
            hint="give them defaults, read them in setup(), or make one in the file and name that: service.py:name",
        )
    return Contract(f"class {kind.__name__}", kind, _parts(kind), kind, _declared(kind))


def _of_object(thing: Any, name: str) -> Contract:
    label = f"{type(thing).__name__} {name}"
    return Contract(label, thing, _parts(thing), lambda: thing, _declared(thing))


def _parts(owner: Any) -> dict[str, str]:
    return {part: part for part in PARTS if hasattr(owner, part)}


def _parameters(kind: type) -> list[inspect.Parameter]:
    try:
        found = inspect.signature(kind).parameters.values()
    except (ValueError, TypeError):  # written in C
        return []
    return [each for each in found if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]


def _declared(owner: Any) -> dict[str, Any]:
    return {key: getattr(owner, key) for key in _DECLARED if hasattr(owner, key)}
