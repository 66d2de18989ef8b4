"""How does a function that makes a PyTorch module become a model? `torch.export` turns it into a .pt2 file.

Rules:
- The user's code is imported here, and so in the process of a step alone. The folder that the command is run in comes
  first among those that Python imports from.
- Rows fit `forward` by name; a single array needs no name. Axis 0 is left open, if the module allows.
- The module itself is called first: what it makes of the rows is not to be told in the words of a compiler.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from paceline.core.errors import CannotChange, ConfigError
from paceline.core.tensors import Array, DataType
from paceline.optimize.candidate import Made
from paceline.optimize.data.rows import Rows
from paceline.runtimes.torch_library import first_line, library

_MODEL: Final = "model.pt2"
_EXAMPLE_ROWS: Final = 2  # with one, PyTorch takes the size for a constant


def export(*, factory: str, rows: Path, folder: Path) -> Made:
    """Call the factory and export what it makes.

    Args:
        factory: `module:function`; the function takes no argument, and returns a `torch.nn.Module`.

    Raises:
        ConfigError: there is no such function, it fails, or the rows do not fit `forward`.
        CannotChange: `torch.export` does not follow the module.
    """
    module, given = _made(factory), Rows.load(rows).inputs
    example = _example(module, given, factory)
    _call(module, example, given, factory)
    program, notes = _exported(module, example)
    library().export.save(program, str(folder / _MODEL))
    return Made(file=_MODEL, notes=notes)


def _made(factory: str) -> Any:
    torch = library()
    made = _function(factory)()
    if not isinstance(made, torch.nn.Module):
        raise ConfigError(f"{factory}: expected a function that returns a torch.nn.Module, got {type(made).__name__}")
    return made.eval()


def _function(factory: str) -> Callable[[], Any]:
    name, _, attribute = factory.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{factory}: there is no module '{error.name}'", hint="it is looked for in the folder that this is run in"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"{factory}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{factory}: expected a function, got {type(found).__name__}")
    function: Callable[[], Any] = found
    return function


def _example(module: Any, rows: Mapping[str, Array], factory: str) -> dict[str, Any]:
    """Tensors for `forward`, by its arguments' names."""
    taken = _taken(module)
    needed = [each.name for each in taken if each.default is each.empty]
    given = dict(rows)
    if len(given) == 1 and len(needed) <= 1 and taken:
        given = {needed[0] if needed else taken[0].name: next(iter(given.values()))}
    unknown = set(given) - {each.name for each in taken}
    if unknown or not set(needed) <= set(given):
        raise ConfigError(f"{factory}: {_beside(module, rows)}")
    return {each.name: _tensor(given[each.name]) for each in taken if each.name in given}


def _taken(module: Any) -> list[inspect.Parameter]:
    """The arguments of `forward` that can be given by name."""
    arguments = inspect.signature(module.forward).parameters.values()
    return [each for each in arguments if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]


def _call(module: Any, example: Mapping[str, Any], rows: Mapping[str, Array], factory: str) -> None:
    try:
        with library().no_grad():
            module(**example)
    except Exception as error:  # whatever the user's code raises
        said = f"forward fails on the rows: {first_line(error)}"
        raise ConfigError(f"{factory}: {said}; {_beside(module, rows)}") from error


def _beside(module: Any, rows: Mapping[str, Array]) -> str:
    """What `forward` takes, and what the rows have."""
    takes = ", ".join(repr(each.name) for each in _taken(module)) or "nothing by name"
    have = ", ".join(f"{name!r} {_kind(each)} {list(each.shape[1:])}" for name, each in rows.items())
    return f"forward takes {takes}; the rows have {have}"


def _kind(array: Array) -> str:
    return next((each.label for each in DataType if each.dtype == array.dtype), array.dtype.name)


def _tensor(array: Array) -> Any:
    """A few rows; doubles as single precision, in which modules are."""
    array = np.resize(array, (_EXAMPLE_ROWS, *array.shape[1:]))
    return library().tensor(array.astype(np.float32) if array.dtype == np.float64 else array)


def _exported(module: Any, example: dict[str, Any]) -> tuple[Any, list[str]]:
    torch = library()
    rows = torch.export.Dim("rows")
    try:
        return torch.export.export(module, (), example, dynamic_shapes={name: {0: rows} for name in example}), []
    except Exception as error:  # it raises what the module does, and what its compilers do
        why = first_line(error)
    try:
        single = {name: tensor[:1] for name, tensor in example.items()}
        return torch.export.export(module, (), single), [f"torch.export fixes the batch size at 1: {why}"]
    except Exception as error:
        raise CannotChange(
            f"torch.export cannot follow the module: {first_line(error)}",
            hint="see PyTorch's page on torch.export for what a module may do; or serve it as code",
        ) from error
