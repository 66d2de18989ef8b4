"""How do several modules serve as one? Data passes from each to the next, in one worker.

Rules:
- With a Studio module among them, tables pass: an item is what `studio.py` says, and a function or a class in between
  is given the rows of the first table, and gives one row for each. Without one, items pass.
- Modules in Python share this interpreter, each with its own view of it (`namespaces.py`), or one namespace
  (`share_globals`). Those in R run in an R process of their own, below this one, that ends with it.
- What fails says the name of its module, where there are several.
- A worker whose R process has died is of no use: it ends, and is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from paceline.config.pipeline_file import ModuleEntry, PipelineFile, read_pipeline
from paceline.core.errors import ConfigError, InvalidRequest, ModelFailed, ModelLoadError
from paceline.workers.frames import About, Setup
from paceline.workers.python import score, studio
from paceline.workers.python.arguments import Arguments
from paceline.workers.python.items import ItemService
from paceline.workers.python.namespaces import Shared, View, check_bundles
from paceline.workers.python.reading import failed
from paceline.workers.python.recognition import recognise as recognise_written
from paceline.workers.python.service import INVALID, Failed, Service, run_good
from paceline.workers.python.stages import ItemStage, RStage, Stage, StudioStage
from paceline.workers.python.surroundings import BUNDLE_FOLDER, bundle_of, expect_scoring, variables_for

_ENTRIES: Final = (studio.ENTRY, "predict", "init", "run", "example", "deterministic")


def recognise(path: Path, arguments: Arguments) -> Service:
    """The service that a `pipeline.toml` describes, or one module of it (`arguments.name`).

    Raises:
        ModelLoadError: a module is none, or the modules do not fit together.
        BaseException: as a script does when it is imported.
    """
    try:
        file = read_pipeline(path).only(arguments.name)
    except ConfigError as error:
        raise ModelLoadError(error.message, hint=error.hint) from None
    stages = _shared(file) if file.share_globals else [_own(entry, file.path) for entry in file.modules]
    of_tables = any("execute" in stage.about.routes for stage in stages)
    return TablePipeline(file, stages) if of_tables else ItemPipeline(file, stages)


class _Pipeline:
    """What both kinds have in common.

    Attributes:
        about, wants_text: see `Service`.
    """

    about: About
    wants_text: bool

    def __init__(self, file: PipelineFile, stages: Sequence[Stage]) -> None:
        self._file = file
        self._stages = stages

    def setup(self, setup: Setup) -> Sequence[Any]:
        """Initialise all modules; the examples of the first."""
        examples = [stage.setup(setup) for stage in self._stages]
        return examples[0]

    @contextmanager
    def _named(self, stage: Stage) -> Iterator[None]:
        """Put the name of the module before what goes wrong in it."""
        try:
            yield
        except Exception as error:
            if len(self._stages) == 1:
                raise
            found = failed(error, "the code")
            text = f"{stage.name}: {found.message}"
            if found.code == INVALID:
                raise InvalidRequest(text) from None
            raise ModelFailed(text, code=found.code, detail=found.detail) from None

    def _says(self) -> list[str]:
        names = " -> ".join(stage.name for stage in self._stages)
        python = [entry for entry in self._file.modules if not entry.is_r]
        shared = ", those in Python sharing their globals" if self._file.share_globals and len(python) > 1 else ""
        return [
            f"pipeline of {len(self._stages)} modules{shared}: {names}",
            *[f"{stage.name}: {'; '.join(stage.about.says)}" for stage in self._stages],
        ]


class TablePipeline(_Pipeline):
    """Modules that pass tables."""

    wants_text = False

    def __init__(self, file: PipelineFile, stages: Sequence[Stage]) -> None:
        super().__init__(file, stages)
        self.about = About(
            says=self._says(),
            routes=["execute"],
            max_batch_rows=1,
            tables=stages[0].ports,
            parameters=any(stage.takes_parameters for stage in stages),
            deterministic=all(stage.about.deterministic for stage in stages),
        )

    def predict(self, items: list[Any]) -> Sequence[Any]:
        return studio.answered(items, self._run)

    def _run(self, frames: studio.Frames, parameters: dict[str, Any]) -> studio.Frames:
        studio.check_wanted(frames, self.about.tables, parameters, self.about.parameters)
        for stage in self._stages:
            with self._named(stage):
                # A module has a table for each of its ports; what one makes beyond that ends with it.
                frames = stage.run_tables(frames[: stage.ports], parameters)
        return frames


class ItemPipeline(_Pipeline):
    """Modules that pass items."""

    wants_text = True

    def __init__(self, file: PipelineFile, stages: Sequence[Stage]) -> None:
        super().__init__(file, stages)
        most = [stage.about.max_batch_rows for stage in stages if stage.about.max_batch_rows is not None]
        self.about = About(
            says=self._says(),
            max_batch_rows=min(most) if most else None,
            deterministic=all(stage.about.deterministic for stage in stages),
        )

    def predict(self, items: list[Any]) -> Sequence[Any]:
        results: Sequence[bytes | Failed] = [bytes(item) for item in items]
        for stage in self._stages:
            with self._named(stage):
                results = run_good(list(results), stage.run_items)
        return [each if isinstance(each, Failed) else msgspec.Raw(each) for each in results]


def _own(entry: ModuleEntry, file: Path) -> Stage:
    """A module with its own view of the interpreter, or its own R."""
    if entry.is_r:
        return RStage(entry.name, entry.script, entry.bundle, file.stem)
    from paceline.workers.python.loading import import_module

    view = _view(entry)
    with view.in_force():
        return _stage(entry, import_module(entry.script.resolve()), view)


def _shared(file: PipelineFile) -> list[Stage]:
    """All modules in one namespace, as when one interpreter runs them all.

    Raises:
        ModelLoadError: two of them collide.
    """
    extracted = [(entry, bundle_of(entry.script, entry.bundle)) for entry in file.modules if not entry.is_r]
    check_bundles([(entry.name, folder / BUNDLE_FOLDER) for entry, folder in extracted if folder is not None])
    folders = list(dict.fromkeys(folder / BUNDLE_FOLDER for _, folder in extracted if folder is not None))
    scripts = list(dict.fromkeys(entry.script.resolve().parent for entry in file.modules))
    working = next((folder for _, folder in extracted if folder is not None), Path.cwd())
    view, shared = View([*folders, *scripts], working), Shared()
    stages: list[Stage] = []
    for entry in file.modules:
        if entry.is_r:
            stages.append(RStage(entry.name, entry.script, entry.bundle, file.path.stem))
            continue
        with view.in_force():
            expect_scoring(entry.script.resolve())
            stages.append(_stage(entry, shared.run(entry.name, entry.script.resolve(), _ENTRIES), view))
    return stages


def _view(entry: ModuleEntry) -> View:
    script = entry.script.resolve()
    expect_scoring(script)
    folder = bundle_of(script, entry.bundle)
    if folder is None:
        return View([script.parent], Path.cwd(), variables_for(script))
    return View([folder / BUNDLE_FOLDER, script.parent], folder, variables_for(script))


def _stage(entry: ModuleEntry, module: ModuleType, view: View) -> Stage:
    """What a module turned out to be.

    Raises:
        ModelLoadError: nothing that can be part of a pipeline.
    """
    of_tables = studio.recognise(module, entry.name)
    if of_tables is not None:
        return StudioStage(entry.name, of_tables, view)
    scoring = score.recognise(module)
    if scoring is not None:
        return ItemStage(entry.name, scoring, view)
    contract = recognise_written(module, entry.script.name)
    if contract is None:
        raise ModelLoadError(
            f"{entry.script.name} holds nothing that a pipeline could call",
            hint="looked for azureml_main, init() and run(data), a function predict, or a class with a method predict",
        )
    if contract.streams or "fetch" in contract.parts or "inputs" in contract.declared:
        raise ModelLoadError(
            f"{entry.script.name}: {contract.label} streams, fetches or takes tensors: it cannot be part of a pipeline",
            hint="serve it on its own",
        )
    return ItemStage(entry.name, ItemService(contract), view)
