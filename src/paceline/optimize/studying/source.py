"""What is to be optimized? The model as it came, and the same in ONNX, from which all candidates are made.

Rules:
- The model as it came is the one that candidates are compared with. A factory's is the program that torch exports.
- What cannot be converted is no failure: the model is then served as it is, and it is said why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from paceline.core.errors import ConfigError, ModelLoadError, PacelineError, StepFailed, UnsafeModel
from paceline.optimize.candidate import Made
from paceline.optimize.processes import steps
from paceline.optimize.result import Converted, Equality
from paceline.optimize.search.facts import Facts
from paceline.optimize.wanted import Budget, Progress
from paceline.runtimes.bundle import is_bundle
from paceline.runtimes.formats import Format, identify
from paceline.server.models import name_of
from paceline.workers.service import is_service

_FACTORY: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_CONVERTERS: Final[Mapping[str, str]] = {
    "savedmodel": "formats.savedmodel",
    "keras": "formats.keras",
    "pt2": "formats.torch",
    "torchscript": "formats.torch",
    "xgboost": "formats.xgboost",
    "lightgbm": "formats.lightgbm",
    "catboost": "formats.catboost",
    "pickle": "formats.sklearn",
    "skops": "formats.sklearn",
}
"""By format: the module whose `convert` makes it ONNX."""
_FACTORIES: Final = "formats.torch"
_EXPORT: Final = "formats.torch_factory:export"
_OPEN_BATCH: Final = "transforms.dynamic_batch:opened"


@dataclass(frozen=True)
class Source:
    """The model that was given.

    Attributes:
        given: as the user wrote it.
        name: of the model, when it is served.
        path: None: a factory, of which there is no file yet.
        format: None: a factory.
    """

    given: str
    name: str
    path: Path | None
    format: Format | None

    @property
    def title(self) -> str:
        """Of the format, for people."""
        return "PyTorch" if self.format is None else self.format.title

    @property
    def modules(self) -> tuple[str, ...]:
        """Of the steps that a study of it may run."""
        return (self.converter, "transforms.graph") if self.converter else ("transforms.graph",)

    @property
    def converter(self) -> str:
        """The module that makes it ONNX; "" where it is."""
        return _FACTORIES if self.format is None else _CONVERTERS.get(self.format.name, "")

    @property
    def needs_leave(self) -> bool:
        """True when it may be that it is loaded with --allow-pickle alone."""
        return self.format is not None and (self.format.is_pickle or self.format.name == "skops")

    @property
    def is_onnx(self) -> bool:
        """True when nothing has to be converted."""
        return self.format is not None and self.format.name == "onnx"


class Steps:
    """Steps of one study, each in its own folder, and none past the budget."""

    def __init__(self, folder: Path, budget: Budget, progress: Progress) -> None:
        self._folder = folder
        self._budget = budget
        self._progress = progress

    def run(self, call: str, returns: type[Any], arguments: dict[str, Any], *, reuse: bool = True) -> Any:
        """Run a step; see `steps.run`."""
        folder = steps.folder_of(self._folder, call, arguments)
        timeout_s, say = self._budget.timeout_s, self._progress.doing
        return steps.run(call, returns, arguments, folder, timeout_s=timeout_s, say=say, reuse=reuse)

    def file(self, call: str, arguments: dict[str, Any], file: str) -> Path:
        """A file that the step has made.

        Raises:
            StepFailed: there is none.
        """
        path = steps.folder_of(self._folder, call, arguments) / file
        if not path.exists():
            raise StepFailed(f"{call}: it has not written {file}")
        return path


@dataclass(frozen=True)
class Onnx:
    """The model in ONNX, with an open batch dimension where that is possible.

    Attributes:
        equality: with the original; None: it was ONNX before.
        notes: on how it was made, for people.
    """

    path: Path
    facts: Facts
    equality: Equality | None = None
    notes: tuple[str, ...] = ()


def open_source(given: str, *, allow_pickle: bool) -> Source:
    """Find out what was given; nothing is loaded.

    Raises:
        ConfigError: it is nothing that can be optimized.
        ModelLoadError: there is no such file.
        UnsafeModel: it is a pickle, and that is not allowed.
        RuntimeUnavailable: it is in no format that is known.
    """
    path = Path(given)
    if not path.exists() and _FACTORY.fullmatch(given) and not is_service(given):
        return Source(given, _name(given.rpartition(":")[0].rpartition(".")[2]), None, None)
    if not path.exists():
        raise ModelLoadError(f"{path}: no such model file")
    if is_bundle(path):
        raise ConfigError(f"{path}: a bundle, which was optimized before", hint="optimize the model that it came from")
    if is_service(path) and path.suffix.lower() in (".py", ".r", ".toml"):
        raise ConfigError(f"{path}: code, which is served as it is", hint="optimize the model that it loads")
    found = identify(path)
    if not found.converts:
        raise ConfigError(f"{path}: {found.title} is served as it is", hint="optimize the model that it was made from")
    if found.is_pickle and not allow_pickle:
        raise UnsafeModel(
            f"{path}: a pickle, which can run any code when it is read",
            hint="--allow-pickle, if you trust where it comes from",
        )
    return Source(given, _name(name_of(path)), path, found)


def export_factory(source: Source, rows: Path, run: Steps) -> tuple[Path, list[str]]:
    """The program that torch exports of a factory's model, as it is served without being converted; and notes.

    It is exported each time: which files the factory reads, nobody knows.
    """
    arguments = {"factory": source.given, "rows": rows}
    made: Made = run.run(_EXPORT, Made, arguments, reuse=False)
    return run.file(_EXPORT, arguments, made.file), list(made.notes)


def to_onnx(source: Source, native: Path, rows: Path, allow_pickle: bool, run: Steps) -> Onnx:
    """The model in ONNX, and what is known of it.

    Raises:
        CannotChange, StepFailed, RuntimeUnavailable: it cannot be converted.
    """
    if source.is_onnx:
        return _opened(Onnx(native, _facts(native, run)), rows, run)
    call = f"{source.converter}:convert"
    arguments = {"model": native, "rows": rows, "allow_pickle": allow_pickle}
    made: Converted = run.run(call, Converted, arguments)
    path = run.file(call, arguments, made.file)
    return _opened(Onnx(path, _facts(path, run), made.equality, tuple(made.notes)), rows, run)


def _facts(path: Path, run: Steps) -> Facts:
    found: Facts = run.run("search.facts:read", Facts, {"model": path})
    return found


def _opened(onnx: Onnx, rows: Path, run: Steps) -> Onnx:
    """With a batch dimension that is open, if it can be opened."""
    if onnx.facts.fixed_batch is None:
        return onnx
    arguments = {"model": onnx.path, "rows": rows}
    try:
        made: Made = run.run(_OPEN_BATCH, Made, arguments)
        path = run.file(_OPEN_BATCH, arguments, made.file)
        facts = _facts(path, run)
    except PacelineError as error:
        note = f"its batch dimension stays fixed at {onnx.facts.fixed_batch}: {error.message}"
        return replace(onnx, notes=(*onnx.notes, note))
    return replace(onnx, path=path, facts=facts, notes=(*onnx.notes, *made.notes))


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text) or "model"
