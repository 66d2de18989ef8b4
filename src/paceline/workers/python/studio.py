"""How is a Studio module, "Execute Python Script", served?

    def azureml_main(dataframe1=None, dataframe2=None):
        return dataframe1,

Rules:
- What stands outside `azureml_main` is evaluated once for each worker, when the module is imported, and kept.
- Each item is one call: see `studio_items.py`.
- A module that takes `parameters` is given those of the request; to any other, a request must not send some.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from paceline.core.errors import BAD_OUTPUT, InvalidRequest, ModelFailed, ModelLoadError
from paceline.workers import studio_items
from paceline.workers.frames import About, Setup
from paceline.workers.python import tables
from paceline.workers.python.reading import failed
from paceline.workers.studio_items import PORTS

if TYPE_CHECKING:
    import pandas as pd

Frames = list["pd.DataFrame | None"]
ENTRY: Final = "azureml_main"


def recognise(module: ModuleType, name: str | None = None) -> StudioService | None:
    """The service of a module that defines `azureml_main`.

    Args:
        name: for messages, where it is not the module's own.

    Raises:
        ModelLoadError: it does, but cannot be called.
        RuntimeUnavailable: pandas is not installed.
    """
    function = getattr(module, ENTRY, None)
    if not callable(function):
        return None
    tables.pandas()
    return StudioService(Module(function, name or module.__name__), module)


class Module:
    """A function `azureml_main`, and what it takes.

    Args:
        name: for messages.

    Attributes:
        ports: how many tables it takes.
        takes_parameters: it has an argument `parameters`.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.name = name
        self._function = function
        arguments = inspect.signature(function).parameters
        positional = [each for each in arguments.values() if each.kind in _POSITIONAL and each.name != "parameters"]
        open_ended = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in arguments.values())
        required = [each.name for each in positional[len(PORTS) :] if each.default is inspect.Parameter.empty]
        if required:
            raise ModelLoadError(
                f"{name}: {ENTRY}({', '.join(arguments)}): expected at most two tables and `parameters`"
            )
        self.ports = len(PORTS) if open_ended else min(len(PORTS), len(positional))
        self.takes_parameters = "parameters" in arguments

    def __call__(self, frames: Sequence[pd.DataFrame | None], parameters: Mapping[str, Any]) -> Frames:
        """Its output tables; None where it returned none in a place.

        Raises:
            ModelFailed: there are none.
            Exception: what the module raises.
        """
        padded = [*frames, *[None] * len(PORTS)][: self.ports]
        named = {"parameters": dict(parameters)} if self.takes_parameters else {}
        return _outputs(self._function(*padded, **named), self.name)


class StudioService:
    """One module.

    Args:
        beside: where `example()` is, and `deterministic = False` where equal tables may have different answers.

    Attributes:
        module: what it calls.
        about, wants_text: see `Service`.
    """

    wants_text = False

    def __init__(self, module: Module, beside: ModuleType) -> None:
        self.module = module
        self._example = getattr(beside, "example", None)
        ports = {0: "no tables", 1: "one table", 2: "two tables"}[module.ports]
        says = f"Studio module {ENTRY}: {ports}{' and parameters' if module.takes_parameters else ''}, /execute"
        self.about = About(
            says=[says],
            routes=["execute"],
            max_batch_rows=1,
            tables=module.ports,
            parameters=module.takes_parameters,
            deterministic=bool(getattr(beside, "deterministic", True)),
        )

    def setup(self, setup: Setup) -> Sequence[Any]:
        return examples_of(self._example)

    def predict(self, items: list[Any]) -> Sequence[Any]:
        return answered(items, self._run)

    def _run(self, frames: list[pd.DataFrame | None], parameters: dict[str, Any]) -> Frames:
        check_wanted(frames, self.module.ports, parameters, self.module.takes_parameters)
        return self.module(frames, parameters)


def examples_of(function: Any) -> list[Any]:
    """What the function `example()` gives: an item, or a list of items."""
    if not callable(function):
        return []
    found = function()
    return found if isinstance(found, list) else [found]


Run = Callable[[Frames, dict[str, Any]], Frames]


def answered(items: list[Any], run: Run) -> list[Any]:
    """The predictions for some items, each by a call of `run`."""
    return [_alone(item, run) for item in items]


def check_wanted(
    frames: Sequence[pd.DataFrame | None], ports: int, parameters: Mapping[str, Any], takes_parameters: bool
) -> None:
    """Refuse what would be dropped.

    Raises:
        InvalidRequest: there are more tables or parameters than are taken.
    """
    for port, frame in zip(PORTS[ports:], frames[ports:], strict=False):
        if frame is not None:
            raise InvalidRequest(f"{port}: the module takes {'one table' if ports else 'no table'}")
    if parameters and not takes_parameters:
        raise InvalidRequest(
            f"parameters: {next(iter(parameters))!r} is given, and no module takes `parameters`",
            hint=f"def {ENTRY}(dataframe1=None, dataframe2=None, parameters=None)",
        )


def _alone(item: Any, run: Run) -> Any:
    try:
        call = studio_items.read(item)
        frames = [None if table is None else tables.to_frame(table, port) for port, table in call.tables.items()]
        outputs = run(frames, call.parameters)
        return call.shape([None if frame is None else tables.to_table(frame) for frame in outputs])
    except Exception as error:
        return failed(error, ENTRY)


def _outputs(returned: Any, name: str) -> Frames:
    pandas = tables.pandas()
    if isinstance(returned, (pandas.DataFrame, pandas.Series)):
        returned = (returned,)
    if not isinstance(returned, (tuple, list)):
        text = f"{name}: {ENTRY} returned {type(returned).__name__}: expected a DataFrame or a sequence of them"
        raise ModelFailed(text, code=BAD_OUTPUT)
    found = [each.to_frame() if isinstance(each, pandas.Series) else each for each in returned]
    for each in found:
        if each is not None and not isinstance(each, pandas.DataFrame):
            text = f"{name}: {ENTRY} returned a sequence with {type(each).__name__}: expected DataFrames"
            raise ModelFailed(text, code=BAD_OUTPUT)
    return found


_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
