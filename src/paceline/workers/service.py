"""A service: code that a user wrote, loaded as a model is.

Rules:
- The server looks at the name of the file and no further: what the code is, a worker finds out.
- The first worker has imported the code when the service counts as read; it initialises during the warm-up.
- `setup_timeout_s` is for both together.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from paceline.config.pipeline_file import read_pipeline
from paceline.core.errors import ModelLoadError
from paceline.core.tensors import DATATYPES, DataType, Signature, TensorSpec
from paceline.runtimes.formats import FORMATS
from paceline.workers.frames import About, Setup, Tensor
from paceline.workers.worker import Worker

_NAMED: Final = re.compile(r"(?P<path>.+\.(?:py|R|r)):(?P<name>[A-Za-z_][A-Za-z0-9_.]*)")
_PYTHON: Final = (".py", ".toml", ".pkl", ".pickle", ".joblib", ".skops", ".cbm", ".ubj")
_R: Final = (".r",)
_REQUIREMENTS: Final = "requirements.txt"

ITEMS: Final = Signature(
    (TensorSpec("item", DataType.BYTES, (-1,)),),
    (TensorSpec("prediction", DataType.BYTES, (-1,)),),
    batched=True,
    items=True,
)
"""What user code takes that says nothing of tensors: items of JSON."""


@dataclass(frozen=True)
class Options:
    """What the operator says of a service's workers.

    Attributes:
        python: interpreter of Python code; `ServiceModel` finds the one with its requirements.
    """

    setup_timeout_s: float = 600.0
    fetch_concurrency: int = 64
    max_batch_rows: int | None = None
    allow_pickle: bool = False
    nonfinite: str = "error"
    env: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable


class Source(NamedTuple):
    """Where the code is, as `service.py` or `service.py:Name`."""

    path: Path
    name: str | None = None

    @classmethod
    def parse(cls, text: Path | str) -> Source:
        """Take the name off, unless there is a file that is called so."""
        match = _NAMED.fullmatch(str(text))
        if match is None or Path(text).exists():
            return cls(Path(text))
        return cls(Path(match["path"]), match["name"])


def is_service(path: Path | str) -> bool:
    """True when a worker has to load it."""
    file = Source.parse(path).path
    if file.suffix.lower() in (*_PYTHON, *_R):
        return True
    return any(each.runtime is None and each.matches(file) for each in FORMATS)


class ServiceModel:
    """User code whose first worker has imported it.

    Args:
        model: name for messages.

    Raises:
        ModelLoadError: it cannot be imported.
        RuntimeUnavailable: what it needs is not installed.
        ConfigError: it is a pipeline, and its file is wrong.
    """

    def __init__(self, source: Source, model: str, options: Options) -> None:
        if not source.path.is_file():
            raise ModelLoadError(f"{source.path}: no such file")
        if source.path.suffix.lower() == ".toml":
            read_pipeline(source.path)  # what is wrong with it is the operator's to see, before any worker
        self.source = source
        self.model = model
        self.options = _with_requirements(source.path, options)
        self._lock = threading.Lock()
        self._starting: set[Worker] = set()
        self._closed = False
        self._first: Worker | None = self._start(1)
        self.about: About = self._first.about
        self.platform = self.about.platform
        self.signature: Signature = _signature(self.about.inputs, self.about.outputs)

    def worker(self, threads: int) -> Worker:
        """A worker that is ready: started, imported, initialised. Blocks, for as long as that takes.

        Raises:
            ModelLoadError, RuntimeUnavailable: it cannot.
        """
        worker = self._take_first(threads) or self._start(threads)
        options = self.options
        setup = Setup(threads, options.fetch_concurrency, options.max_batch_rows, options.nonfinite)
        with self._watched(worker):
            worker.setup(setup, max(0.0, options.setup_timeout_s - worker.hello_s))
        return worker

    def signature_of(self, worker: Worker) -> Signature:
        """The inputs and outputs, now that a worker is ready."""
        readiness = worker.readiness
        return _signature(readiness.inputs or self.about.inputs, readiness.outputs or self.about.outputs)

    def close(self) -> None:
        """No further worker is wanted: end the one that nobody has taken, and those that are being started."""
        with self._lock:
            self._closed = True
            first, self._first = self._first, None
            for worker in self._starting:
                worker.kill()  # whoever waits for it stops it
        if first is not None:
            first.stop()

    def _take_first(self, threads: int) -> Worker | None:
        """The worker that has imported the code, unless its libraries were told of another number of threads."""
        with self._lock:
            first, self._first = self._first, None
        if first is None or first.threads == threads:
            return first
        first.stop()
        return None

    def _start(self, threads: int) -> Worker:
        worker = _starter(self.source.path)(self.source, self.model, threads, self.options)
        with self._watched(worker):
            worker.hello(self.options.setup_timeout_s)
        return worker

    @contextmanager
    def _watched(self, worker: Worker) -> Iterator[None]:
        """While the block runs, `close` ends the worker. So does whatever the block raises."""
        with self._lock:
            self._starting.add(worker)
            if self._closed:
                worker.kill()
        try:
            yield
        except BaseException:
            worker.stop()
            raise
        finally:
            with self._lock:
                self._starting.discard(worker)


def _with_requirements(path: Path, options: Options) -> Options:
    if path.suffix.lower() in _R or not path.with_name(_REQUIREMENTS).exists():
        return options
    from paceline.workers.environment import python_for

    python = python_for(path.with_name(_REQUIREMENTS), options.setup_timeout_s)
    return options if python is None else replace(options, python=python)


def _starter(path: Path) -> Callable[[Source, str, int, Options], Worker]:
    if path.suffix.lower() in _R:
        from paceline.workers.r.starting import start as start_r

        return start_r
    from paceline.workers.python.starting import start

    return start


def _signature(inputs: list[Tensor], outputs: list[Tensor]) -> Signature:
    if not inputs:
        return ITEMS
    return Signature(tuple(map(_spec, inputs)), tuple(map(_spec, outputs)), batched=True)


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tensor.name, DATATYPES[tensor.datatype], tuple(tensor.shape), tuple(tensor.labels))
