"""A service: code that a user wrote, loaded as a model is.

Rules:
- The server looks at the name of the file and no further: what the code is, a worker finds out.
- The first worker has imported the code when the service counts as read; it initialises during the warm-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from paceline.core.errors import ModelLoadError
from paceline.core.tensors import DATATYPES, DataType, Signature, TensorSpec
from paceline.workers.frames import About, Setup, Tensor
from paceline.workers.worker import Worker

_NAMED: Final = re.compile(r"(?P<path>.+\.(?:py|R|r)):(?P<name>[A-Za-z_][A-Za-z0-9_.]*)")
_PYTHON: Final = (".py", ".toml", ".pkl", ".pickle", ".joblib", ".skops")
_R: Final = (".r",)

ITEMS: Final = Signature(
    (TensorSpec("item", DataType.BYTES, (-1,)),),
    (TensorSpec("prediction", DataType.BYTES, (-1,)),),
    batched=True,
    items=True,
)
"""What user code takes that says nothing of tensors: items of JSON."""


@dataclass(frozen=True)
class Options:
    """What the operator says of a service's workers."""

    setup_timeout_s: float = 600.0
    fetch_concurrency: int = 64
    max_batch_rows: int | None = None
    allow_pickle: bool = False
    env: dict[str, str] = field(default_factory=dict)


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
    return Source.parse(path).path.suffix.lower() in (*_PYTHON, *_R)


class ServiceModel:
    """User code whose first worker has imported it.

    Args:
        model: name for messages.

    Raises:
        ModelLoadError: it cannot be imported.
        RuntimeUnavailable: what it needs is not installed.
    """

    def __init__(self, source: Source, model: str, options: Options) -> None:
        if not source.path.is_file():
            raise ModelLoadError(f"{source.path}: no such file")
        self.source = source
        self.model = model
        self.options = options
        self._first: Worker | None = self._start(1)
        self.about: About = self._first.about
        self.platform = self.about.platform
        self.signature: Signature = _signature(self.about.inputs, self.about.outputs)

    def worker(self, threads: int) -> Worker:
        """A worker that is ready: started, imported, initialised. Blocks, for as long as that takes.

        Raises:
            ModelLoadError, RuntimeUnavailable: it cannot.
        """
        worker, self._first = self._first, None
        if worker is None or worker.threads != threads:
            if worker is not None:
                worker.stop()
            worker = self._start(threads)
        options = self.options
        setup = Setup(threads, options.fetch_concurrency, options.max_batch_rows)
        try:
            worker.setup(setup, options.setup_timeout_s)
        except BaseException:
            worker.stop()
            raise
        return worker

    def signature_of(self, worker: Worker) -> Signature:
        """The inputs and outputs, now that a worker is ready."""
        readiness = worker.readiness
        return _signature(readiness.inputs or self.about.inputs, readiness.outputs or self.about.outputs)

    def close(self) -> None:
        """End the worker that nobody has taken."""
        if self._first is not None:
            self._first.stop()

    def _start(self, threads: int) -> Worker:
        worker = _starter(self.source.path)(self.source, self.model, threads, self.options)
        try:
            worker.hello(self.options.setup_timeout_s)
        except BaseException:
            worker.stop()
            raise
        return worker


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
