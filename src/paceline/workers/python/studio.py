"""How is a Studio module, "Execute Python Script", served?

    def azureml_main(dataframe1=None, dataframe2=None):
        return dataframe1,

Rules:
- What stands outside `azureml_main` is evaluated once for each worker, when the module is imported, and kept.
- Each item is one call, for a module may compute over all of its rows. An item is
      {"dataframe1": TABLE, "dataframe2": TABLE, "parameters": {...}}     -> {"tables": [TABLE, ...]}
      {"dataframe1": [ROW, ...], ...}                                     -> {"output1": [ROW, ...], ...}
      [ROW, ...]                                                          -> [ROW, ...], of the first output
      ROW                                                                 -> ROW
  where ROW is an object of values by column, and TABLE is as in `tables.py`.
- A module that takes `parameters` is given those of the request; to any other, a request must not send some.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from paceline.core.errors import InvalidRequest, ModelLoadError
from paceline.workers.frames import About, Setup
from paceline.workers.python import tables
from paceline.workers.python.reading import failed
from paceline.workers.python.service import Failed

if TYPE_CHECKING:
    import pandas as pd

Frames = list["pd.DataFrame | None"]
Outputs = list[dict[str, Any] | None]
ENTRY: Final = "azureml_main"
PORTS: Final = ("dataframe1", "dataframe2")
_KEYS: Final = frozenset((*PORTS, "parameters"))


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
            tables.BadTable: there are none.
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
        return _answer(item, run)
    except Exception as error:
        return failed(error, ENTRY)


def _answer(item: Any, run: Run) -> Any:
    frames, parameters, shape = _read(item)
    try:
        outputs = [None if frame is None else tables.to_table(frame) for frame in run(frames, parameters)]
    except tables.BadTable as error:
        return Failed(str(error), "bad_model_output")
    return shape(outputs)


def _read(item: Any) -> tuple[list[pd.DataFrame | None], dict[str, Any], Callable[[Outputs], Any]]:
    """The tables and parameters of an item, and how its answer is written."""
    if isinstance(item, list):
        return [tables.to_frame(tables.of_records(item, "the item"), "the item")], {}, _first_rows
    if not isinstance(item, dict):
        raise InvalidRequest("expected a row (an object of values by column), a list of rows, or tables by name")
    if not (item.keys() <= _KEYS and item.keys() & set(PORTS)):
        return [tables.to_frame(tables.of_records([item], "the item"), "the item")], {}, _only_row
    given = [item.get(port) for port in PORTS]
    parameters = item.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("parameters: expected an object")
    frames = [_frame(table, port) for table, port in zip(given, PORTS, strict=True)]
    as_rows = any(isinstance(table, list) for table in given)
    return frames, parameters, _all_rows if as_rows else _all_tables


def _frame(table: Any, port: str) -> pd.DataFrame | None:
    if table is None:
        return None
    if isinstance(table, list):
        return tables.to_frame(tables.of_records(table, port), port)
    try:
        return tables.to_frame(msgspec.convert(table, tables.Table), port)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{port}: {error}") from None


def _all_tables(outputs: Outputs) -> Any:
    return {"tables": outputs}


def _all_rows(outputs: Outputs) -> Any:
    return {f"output{number}": tables.to_records(table) for number, table in enumerate(outputs, 1) if table is not None}


def _first_rows(outputs: Outputs) -> Any:
    return tables.to_records(outputs[0]) if outputs and outputs[0] is not None else []


def _only_row(outputs: Outputs) -> Any:
    rows = _first_rows(outputs)
    if len(rows) == 1:
        return rows[0]
    return Failed(
        f"the module returned {len(rows)} rows for one: send a list of rows to get as many as there are",
        "bad_model_output",
    )


def _outputs(returned: Any, name: str) -> Frames:
    pandas = tables.pandas()
    if isinstance(returned, (pandas.DataFrame, pandas.Series)):
        returned = (returned,)
    if not isinstance(returned, (tuple, list)):
        raise tables.BadTable(
            f"{name}: {ENTRY} returned {type(returned).__name__}: expected a DataFrame or a sequence of them"
        )
    found = [each.to_frame() if isinstance(each, pandas.Series) else each for each in returned]
    for each in found:
        if each is not None and not isinstance(each, pandas.DataFrame):
            raise tables.BadTable(
                f"{name}: {ENTRY} returned a sequence with {type(each).__name__}: expected DataFrames"
            )
    return found


_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
