"""What does a pipeline need of one of its modules, whatever language and contract it has?

Rules:
- A stage takes tables and gives tables, or takes items and gives items. Studio modules know tables only; functions,
  classes and `predict_fn` in R know items, and are given the rows of a table where tables pass.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import numpy as np

from paceline.core.errors import InstanceLost, InvalidRequest, ModelFailed, PacelineError
from paceline.workers import studio_items
from paceline.workers.frames import About, Setup
from paceline.workers.python import studio, tables
from paceline.workers.python.namespaces import View
from paceline.workers.python.service import INVALID, Failed, Service
from paceline.workers.python.values import ValueWriter

if TYPE_CHECKING:
    from paceline.workers.worker import Worker

_EXIT_CODE: Final = 70
# The server ends a worker whose batch takes too long, and R with it.
_PATIENCE_S: Final = 24 * 3600.0


class Stage(Protocol):
    """One module.

    Attributes:
        name: as `pipeline.toml` says.
        about: what was recognised.
        ports: how many tables it takes.
        takes_parameters: those of a request mean something to it.
    """

    name: str
    about: About
    ports: int
    takes_parameters: bool

    def setup(self, setup: Setup) -> Sequence[Any]:
        """Initialise; its examples."""

    def run_tables(self, frames: studio.Frames, parameters: Mapping[str, Any]) -> studio.Frames:
        """Tables to tables."""

    def run_items(self, texts: Sequence[bytes]) -> Sequence[bytes | Failed]:
        """Items to predictions, as JSON."""


class StudioStage:
    """A Studio module in Python."""

    def __init__(self, name: str, service: studio.StudioService, view: View) -> None:
        self.name = name
        self.about = service.about
        self.ports = service.module.ports
        self.takes_parameters = service.module.takes_parameters
        self._service = service
        self._view = view

    def setup(self, setup: Setup) -> Sequence[Any]:
        with self._view.in_force():
            return self._service.setup(setup)

    def run_tables(self, frames: studio.Frames, parameters: Mapping[str, Any]) -> studio.Frames:
        with self._view.in_force():
            return self._service.module(frames, parameters)

    def run_items(self, texts: Sequence[bytes]) -> Sequence[bytes | Failed]:
        raise AssertionError("tables pass where there is a Studio module")


class _Rows:
    """A stage that knows items only, in a pipeline of tables."""

    name: str
    about: About

    def run_items(self, texts: Sequence[bytes]) -> Sequence[bytes | Failed]:
        """Items to predictions, as JSON."""
        raise NotImplementedError

    def run_tables(self, frames: studio.Frames, parameters: Mapping[str, Any]) -> studio.Frames:
        """The predictions for the rows of the first table, as a table.

        Raises:
            InvalidRequest, ModelFailed: a row failed.
        """
        rows = [] if frames[0] is None else studio_items.records_of(tables.to_table(frames[0]))
        texts = [msgspec.json.encode(row) for row in rows]
        most = self.about.max_batch_rows or len(texts) or 1
        batches = [self.run_items(texts[start : start + most]) for start in range(0, len(texts), most)]
        predictions = [prediction for batch in batches for prediction in batch]
        values = []
        for index, prediction in enumerate(predictions):
            if isinstance(prediction, Failed):
                text = f"row {index}: {prediction.message}"
                if prediction.code == INVALID:
                    raise InvalidRequest(text)
                raise ModelFailed(text, code=prediction.code, detail=prediction.detail)
            values.append(msgspec.json.decode(prediction))
        records = [value if isinstance(value, dict) else {"prediction": value} for value in values]
        return [tables.to_frame(studio_items.of_records(records, self.name), self.name)]


class ItemStage(_Rows):
    """A function, a class, or `init` and `run`."""

    ports = 1
    takes_parameters = False

    def __init__(self, name: str, service: Service, view: View) -> None:
        self.name = name
        self.about = service.about
        self._service = service
        self._view = view
        self._writer = ValueWriter()

    def setup(self, setup: Setup) -> Sequence[Any]:
        self._writer = ValueWriter(setup.nonfinite)
        with self._view.in_force():
            return self._service.setup(setup)

    def run_items(self, texts: Sequence[bytes]) -> Sequence[bytes | Failed]:
        if not texts:
            return []
        with self._view.in_force():
            return self._writer.texts(self._service.predict(list(texts)))


class RStage(_Rows):
    """A module in R, in a process of its own below this one."""

    def __init__(self, name: str, script: Path, bundle: Path | None, model: str) -> None:
        from paceline.workers.r.starting import start
        from paceline.workers.service import Options, Source

        self.name = name
        self._worker: Worker = start(Source(script), f"{model}: {name}", _threads(), Options(), bundle)
        self.about = self._worker.hello(_PATIENCE_S)
        self.ports = self.about.tables or len(studio_items.PORTS)
        self.takes_parameters = self.about.parameters

    def setup(self, setup: Setup) -> Sequence[Any]:
        return self._worker.setup(setup, _PATIENCE_S).examples

    def run_tables(self, frames: studio.Frames, parameters: Mapping[str, Any]) -> studio.Frames:
        if "execute" not in self.about.routes:
            return super().run_tables(frames, parameters)
        named = dict(zip(studio_items.PORTS, [*frames, None, None], strict=False))
        item: dict[str, Any] = {port: None if each is None else tables.to_table(each) for port, each in named.items()}
        if self.takes_parameters:
            item["parameters"] = dict(parameters)
        (text,) = self.run_items([msgspec.json.encode(item)])
        if isinstance(text, Failed):
            raise ModelFailed(text.message, code=text.code, detail=text.detail)
        found = msgspec.json.decode(text, type=_Tables).tables
        return [None if table is None else tables.to_frame(table, self.name) for table in found]

    def run_items(self, texts: Sequence[bytes]) -> Sequence[bytes | Failed]:
        column = np.empty(len(texts), object)
        column[:] = list(texts)
        try:
            (outputs,) = self._worker.run((column,), _PATIENCE_S)
        except InstanceLost as error:
            self._end(error)
        return [_failed(each) if isinstance(each, PacelineError) else each for each in outputs.tolist()]

    def _end(self, error: PacelineError) -> None:
        """End this worker, for it cannot serve without R: the server sees it, and starts another."""
        sys.stderr.write(f"paceline: {self.name}: {error}\n")
        sys.stderr.flush()
        os._exit(_EXIT_CODE)


class _Tables(msgspec.Struct):
    tables: list[studio_items.Table | None]


def _failed(error: PacelineError) -> Failed:
    if isinstance(error, InvalidRequest):
        return Failed(error.message, INVALID)
    return Failed(error.message, error.code, getattr(error, "detail", None) or "")


def _threads() -> int:
    """What this worker was given: `launch.py` has set it."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))
