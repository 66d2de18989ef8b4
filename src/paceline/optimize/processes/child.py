"""The process that runs one step: `python -m paceline.optimize.processes.child`. See `steps.py`."""

from __future__ import annotations

import importlib
import inspect
import io
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec

from paceline.core.errors import PacelineError, RuntimeUnavailable, StepFailed, named_line
from paceline.optimize.processes.process import Line
from paceline.optimize.processes.steps import ASKED, OUTCOME, PACKAGE, Asked, Outcome, write_whole


class _Progress(io.TextIOBase):
    """What the step prints, told line by line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        for each in whole:
            if each.strip():
                self._line.send(each.rpartition("\r")[2])
        return len(text)


def main() -> None:
    """Run the step that the folder asks for, and write what came of it."""
    line = Line.inherited()
    folder, key = Path(sys.argv[1]), sys.argv[2]
    sys.stdout = _Progress(line)
    try:
        outcome = Outcome(key, value=msgspec.Raw(msgspec.json.encode(_called(folder))))
    except BaseException as error:  # user code may raise anything, SystemExit too
        traceback.print_exc()
        told = _told(error)
        outcome = Outcome(key, error=type(told).__name__, message=told.message, hint=told.hint)
    write_whole(folder / OUTCOME, msgspec.json.encode(outcome))
    line.send(True)


def _called(folder: Path) -> Any:
    asked = msgspec.json.decode((folder / ASKED).read_bytes(), type=Asked)
    module, _, name = asked.call.partition(":")
    function = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    place = {"folder": folder} if "folder" in inspect.signature(function).parameters else {}
    return function(**asked.arguments, **{key: Path(path) for key, path in asked.paths.items()}, **place)


def _told(error: BaseException) -> PacelineError:
    if isinstance(error, PacelineError):
        return error
    if isinstance(error, ModuleNotFoundError):
        missing = str(error.name).partition(".")[0]
        return RuntimeUnavailable(f"{missing} is not installed", hint="pip install 'paceline[optimize]'")
    if isinstance(error, MemoryError):
        return StepFailed("out of memory")
    return StepFailed(named_line(error))


if __name__ == "__main__":
    main()
