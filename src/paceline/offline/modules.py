"""What comes out of a pipeline, or of one Studio module, for a table? Run here and now, without a server.

Rules:
- Each module has a clean interpreter for each run, and is initialised in it: nothing of an earlier run, or of another
  module, can be seen. So `share_globals` means nothing here.
- A module is called once, with the whole table; a function or a class is given its rows, in batches of the size that
  it wants.
- Whatever fails, fails the run, and there is no output.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from paceline.config.pipeline_file import read_pipeline
from paceline.core.errors import ConfigError, InstanceLost, InvalidRequest, ModelFailed, PacelineError
from paceline.workers.service import Options, ServiceModel, Source, is_service
from paceline.workers.studio_items import PORTS, Table, of_records
from paceline.workers.worker import Worker

_MOST_NAMED: Final = 20


class Ran(NamedTuple):
    """What became of a module.

    Attributes:
        rows: of its first table.
        setup_s: to start its interpreter and to initialise it.
        run_s: of its call.
    """

    name: str
    rows: int
    setup_s: float
    run_s: float


class _Answer(msgspec.Struct):
    tables: list[Table | None]


class Modules:
    """The modules of a pipeline, or a single one.

    Args:
        cores: that each may compute with.
        timeout_s: for a module to be initialised, and again for its call.

    Raises:
        ConfigError: the pipeline's file is wrong.
    """

    def __init__(self, path: Path, cores: int, timeout_s: float) -> None:
        if path.suffix.lower() == ".toml":
            self._sources = {module.name: Source(path, module.name) for module in read_pipeline(path).modules}
        elif is_service(path):
            source = Source.parse(path)
            self._sources = {source.path.stem: source}
        else:
            raise ConfigError(f"{path}: expected pipeline.toml, or a module .py or .R")
        self._cores = cores
        self._timeout_s = timeout_s
        self._took_parameters = False

    def run(
        self, inputs: Sequence[Table | None], parameters: Mapping[str, str], done: Callable[[Ran], object]
    ) -> list[Table]:
        """The tables that the last module gives.

        Args:
            done: told of each module.

        Raises:
            PacelineError: a module cannot be loaded, or fails.
        """
        tables = list(inputs)
        for place, (name, source) in enumerate(self._sources.items()):
            began = time.monotonic()
            with closing(self._service(source, name)) as service, _as_our_flag():
                worker = service.worker(self._cores)
                try:
                    ready = time.monotonic()
                    # What a module gives beyond what the next one takes ends there; what the operator gives must fit.
                    taken = max(1, worker.about.tables) if place else len(PORTS)
                    tables = [*self._call(worker, tables[:taken], parameters)]
                finally:
                    worker.stop()
            rows = len(tables[0].rows) if tables and tables[0] is not None else 0
            done(Ran(name, rows, ready - began, time.monotonic() - ready))
        if parameters and not self._took_parameters:
            raise ConfigError(f"--parameter {next(iter(parameters))}: no module takes `parameters`")
        return [table for table in tables if table is not None]

    def _service(self, source: Source, name: str) -> ServiceModel:
        with _as_our_flag():
            return ServiceModel(source, name, Options(setup_timeout_s=self._timeout_s))

    def _call(
        self, worker: Worker, tables: list[Table | None], parameters: Mapping[str, str]
    ) -> Sequence[Table | None]:
        if "execute" not in worker.about.routes:
            return [self._rows(worker, tables[0] if tables else None)]
        item: dict[str, Any] = dict(zip(PORTS, [*tables, None, None], strict=False))
        if worker.about.parameters:
            self._took_parameters = True
            item["parameters"] = parameters
        try:
            (text,) = self._asked(worker, [msgspec.json.encode(item)])
        except ModelFailed as error:
            error.hint = error.hint or _of_the_table(tables[0] if tables else None)
            raise
        return msgspec.json.decode(text, type=_Answer).tables

    def _rows(self, worker: Worker, table: Table | None) -> Table:
        """The predictions for the rows of a table, as a table."""
        if table is None:
            raise InvalidRequest(f"{worker.model} takes rows: name a file of them with --input")
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        texts = self._asked(worker, [msgspec.json.encode(row) for row in rows]) if rows else []
        predictions = [msgspec.json.decode(text) for text in texts]
        records = [each if isinstance(each, dict) else {"prediction": each} for each in predictions]
        return of_records(records, worker.model)

    def _asked(self, worker: Worker, items: list[bytes]) -> list[bytes]:
        """The predictions for some items, in batches as the code wants them."""
        until = time.monotonic() + self._timeout_s
        most = worker.about.max_batch_rows or len(items)
        texts: list[bytes] = []
        for start in range(0, len(items), most):
            for each in self._batch(worker, items[start : start + most], until):
                if isinstance(each, PacelineError):
                    where = f"{worker.model}: row {len(texts) + 1}: " if len(items) > 1 else f"{worker.model}: "
                    raise ModelFailed(f"{where}{each.message}", model=worker.model)
                texts.append(each)
        return texts

    def _batch(self, worker: Worker, items: list[bytes], until: float) -> list[bytes | PacelineError]:
        column = np.empty(len(items), object)
        column[:] = items
        try:
            (outputs,) = worker.run((column,), max(0.0, until - time.monotonic()))
        except InstanceLost as error:
            if time.monotonic() < until:
                raise InstanceLost(f"{worker.model}: {error.message}") from None
            text = f"{worker.model}: it ran longer than {self._timeout_s:g} s"
            raise InstanceLost(text, hint="--timeout-s allows more") from None
        found: list[bytes | PacelineError] = outputs.tolist()
        return found


@contextmanager
def _as_our_flag() -> Iterator[None]:
    """Name the flag of `paceline run` where a worker names that of `paceline serve`."""
    try:
        yield
    except PacelineError as error:
        error.hint = error.hint and error.hint.replace("--setup-timeout-s", "--timeout-s")
        raise


def _of_the_table(table: Table | None) -> str:
    """What a module that failed may have missed."""
    if table is None:
        return "it was given no table: name a file with --input"
    shown = [*table.columns[:_MOST_NAMED], *(["..."] if len(table.columns) > _MOST_NAMED else [])]
    return f"its table has the columns {', '.join(shown)}"
