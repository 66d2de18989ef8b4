"""How is a step run that loads a framework? In a process of its own, once.

Rules:
- A step is a function by name, and its arguments. What it returns is written beside its files. A step that was run
  before, with equal arguments on equal files, is not run again: so a study that was killed goes on where it was.
- Equal means: the same function, the same code of ours, the same versions of libraries, and files of the same bytes.
- That a change does not apply is a result, and kept as one. What failed is tried again.
- A process that crashes, hangs or runs out of memory costs its step, not the study.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

import paceline
from paceline.config.machine import usable_cores
from paceline.core.errors import (
    CannotChange,
    ConfigError,
    ModelLoadError,
    PacelineError,
    RuntimeUnavailable,
    StepFailed,
    UnsafeModel,
)
from paceline.optimize.processes.process import Gone, Process
from paceline.runtimes.model_files import digest

_T = TypeVar("_T", bound=msgspec.Struct)

PACKAGE: Final = "paceline.optimize"
ASKED: Final = "step.json"
OUTCOME: Final = "outcome.json"
_LOG: Final = "log.txt"
_COMMON: Final = ("paceline", "numpy", "onnx", "onnxruntime")
# What else a step's result depends on, by a part of its module's name.
_LIBRARIES: Final[Mapping[str, tuple[str, ...]]] = {
    "sklearn": ("scikit-learn", "skl2onnx", "treelite", "xgboost", "xgboost-cpu", "lightgbm", "catboost"),
    "xgboost": ("xgboost", "xgboost-cpu", "treelite"),
    "lightgbm": ("lightgbm", "treelite"),
    "catboost": ("catboost",),
    "keras": ("tensorflow", "tensorflow-cpu", "keras", "tf2onnx"),
    "savedmodel": ("tensorflow", "tensorflow-cpu", "keras", "tf2onnx"),
    "torch": ("torch", "onnxscript"),
    "torch_factory": ("torch", "onnxscript"),
    "graph": ("openvino",),
}


class Asked(msgspec.Struct):
    """What a child is to run: `step.json`.

    Attributes:
        paths: those of the arguments that are paths; they arrive as such.
    """

    call: str
    arguments: dict[str, Any]
    paths: dict[str, str]


class Outcome(msgspec.Struct, omit_defaults=True):
    """What came of a step: `outcome.json`, written last.

    Attributes:
        key: of what was asked.
        value: what it returned.
        error: class of what it raised, with `message` and `hint`.
    """

    key: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    message: str = ""
    hint: str | None = None


_ERRORS: Final[Mapping[str, type[PacelineError]]] = {
    kind.__name__: kind
    for kind in (CannotChange, StepFailed, ConfigError, RuntimeUnavailable, ModelLoadError, UnsafeModel)
}
_KEPT: Final = ("", CannotChange.__name__)


def run(
    call: str,
    returns: type[_T],
    arguments: dict[str, Any],
    folder: Path,
    *,
    timeout_s: float,
    say: Callable[[str], None] = lambda _: None,
    reuse: bool = True,
) -> _T:
    """Run a step, or find what it returned before.

    Args:
        call: `module:function` below `paceline.optimize`, such as `transforms.quantize:dynamic`.
        returns: the type that it returns.
        arguments: keywords; what is a `Path` arrives as one, and counts as its contents.
        folder: for its files; made when it is not there. A function that takes a `folder` gets it.
        say: told its progress, line by line: what the function prints.
        reuse: what it returned before; False for one whose result depends on more than its arguments.

    Raises:
        CannotChange: as the function did.
        StepFailed: with its last words.
        RuntimeUnavailable, ModelLoadError, UnsafeModel, ConfigError: as the function did.
    """
    key = key_of(call, arguments)
    outcome = _kept(folder, key) if reuse else None
    if outcome is None:
        _prepare(folder, call, arguments)
        _run(call, key, folder, timeout_s, say)
        outcome = _read(folder)
    if outcome is None or outcome.key != key:
        raise StepFailed(f"{call}: it left no result")
    if outcome.error:
        raise _ERRORS.get(outcome.error, StepFailed)(outcome.message, hint=outcome.hint)
    return msgspec.json.decode(outcome.value, type=returns)


def folder_of(root: Path, call: str, arguments: Mapping[str, Any]) -> Path:
    """The folder that belongs to a step among all steps below `root`."""
    return root / f"{call.replace(':', '.').removeprefix('transforms.')}-{key_of(call, arguments)[:12]}"


def key_of(call: str, arguments: Mapping[str, Any]) -> str:
    """A SHA-256 over everything that a step's result depends on."""
    values = {
        name: f"sha256:{digest(value)}" if isinstance(value, Path) else value for name, value in arguments.items()
    }
    document = [call, _code(), versions(call.partition(":")[0]), dict(sorted(values.items()))]
    return hashlib.sha256(msgspec.json.encode(document)).hexdigest()


def versions(*modules: str) -> dict[str, str]:
    """Of the packages that steps of these modules depend on, as far as they are installed."""
    parts = {part for module in modules for part in module.split(".")}
    libraries = [each for part, names in _LIBRARIES.items() if part in parts for each in names]
    found = {}
    for name in dict.fromkeys((*_COMMON, *libraries)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@cache
def _code() -> str:
    """A digest of all code of ours: a step may use any of it."""
    files = sorted(Path(paceline.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()


def _kept(folder: Path, key: str) -> Outcome | None:
    outcome = _read(folder)
    return outcome if outcome is not None and outcome.key == key and outcome.error in _KEPT else None


def _read(folder: Path) -> Outcome | None:
    try:
        return msgspec.json.decode((folder / OUTCOME).read_bytes(), type=Outcome)
    except (OSError, msgspec.DecodeError):
        return None


def _prepare(folder: Path, call: str, arguments: Mapping[str, Any]) -> None:
    """Empty the folder of what an interrupted run has left there, and write what is to be done."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    paths = {name: str(value.absolute()) for name, value in arguments.items() if isinstance(value, Path)}
    values = {name: value for name, value in arguments.items() if name not in paths}
    write_whole(folder / ASKED, msgspec.json.encode(Asked(call, values, paths)))


def _run(call: str, key: str, folder: Path, timeout_s: float, say: Callable[[str], None]) -> None:
    until = time.monotonic() + timeout_s
    log = folder / _LOG
    process: Process | None = None
    try:
        process = Process(
            f"{PACKAGE}.processes.child", [str(folder.absolute()), key], log=log, threads=usable_cores().whole
        )
        while True:
            said = process.receive(max(0.0, until - time.monotonic()))
            if said is True:  # the outcome is written; whatever its libraries do at exit does not matter
                return
            say(str(said))
    except TimeoutError:
        raise StepFailed(f"{call}: took longer than {timeout_s:.0f} s", hint="--budget allows more") from None
    except Gone as error:
        words = "" if process is None else process.last_words()
        raise StepFailed(f"{call}: {error}" + (f": {words}" if words else "")) from None
    finally:
        if process is not None:
            process.close()
