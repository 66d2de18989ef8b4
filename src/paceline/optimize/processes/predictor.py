"""How does a candidate answer, and how fast? It is loaded in a process of its own, which waits to be asked.

Rules:
- Every candidate is loaded as serving would load it: by its runtime, or in a worker.
- Processes that wait take nothing from the one that runs: so candidates are timed in turn, `A B C A B C`.
- Arrays travel in files of numpy's own format, which hold no code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import ModelLoadError, PacelineError, RuntimeUnavailable, StepFailed, UnsafeModel
from paceline.core.tensors import DATATYPES, Array, Signature, TensorSpec
from paceline.optimize.data.rows import Rows
from paceline.optimize.processes.process import Gone, Process
from paceline.runtimes.options import RuntimeOptions

_LOG: Final = "log.txt"
_OUTPUTS: Final = "outputs.npz"
_SPARE_S: Final = 30.0
_ERRORS: Final[Mapping[str, type[PacelineError]]] = {
    kind.__name__: kind for kind in (ModelLoadError, RuntimeUnavailable, UnsafeModel)
}


class Loading(msgspec.Struct):
    """What the child is to load."""

    model: str
    options: RuntimeOptions
    threads: int
    allow_pickle: bool
    timeout_s: float


class Asked(msgspec.Struct, omit_defaults=True):
    """What the child is asked: to predict the rows of a file into another; without `outputs`, to time them."""

    rows: str
    batch: int
    outputs: str = ""
    seconds: float = 0.0


class Tensor(msgspec.Struct):
    """One input or output."""

    name: str
    datatype: str
    shape: list[int]
    labels: list[str] = []


class Loaded(msgspec.Struct):
    """What the child says once it has loaded the model."""

    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    batched: bool
    items: bool

    @property
    def signature(self) -> Signature:
        """As the runtime has it."""
        specs = [
            tuple(
                TensorSpec(each.name, DATATYPES[each.datatype], tuple(each.shape), tuple(each.labels))
                for each in tensors
            )
            for tensors in (self.inputs, self.outputs)
        ]
        return Signature(specs[0], specs[1], batched=self.batched, items=self.items)


class Answer(msgspec.Struct, omit_defaults=True):
    """What the child answers: `loaded`, `times_s` or nothing, or what went wrong."""

    loaded: Loaded | None = None
    times_s: list[float] = []
    error: str = ""
    message: str = ""
    hint: str | None = None


class Predictor:
    """One loaded candidate.

    Args:
        model: file or folder.
        threads: that one instance computes with.
        timeout_s: longest time to load, and for each answer.
        folder: where rows are exchanged: predictors with the same folder write them once.

    Attributes:
        signature: of the model, as serving has it.

    Raises:
        StepFailed: it cannot be loaded; with the reason.
        RuntimeUnavailable: what it needs is not installed.
        UnsafeModel: it is a pickle, and that is not allowed.
        ModelLoadError: the file is corrupt, or unsupported.
    """

    def __init__(
        self,
        model: Path,
        options: RuntimeOptions,
        *,
        threads: int,
        allow_pickle: bool = False,
        timeout_s: float = 120.0,
        folder: Path | None = None,
    ) -> None:
        self.threads = threads
        self.timeout_s = timeout_s
        self._own = tempfile.TemporaryDirectory(prefix="paceline-")
        self._folder = folder or Path(self._own.name)
        self._files: dict[Rows, Path] = {}
        self._process: Process | None = None
        loading = Loading(str(model.absolute()), options, threads, allow_pickle, timeout_s)
        try:
            self._process = Process(
                "paceline.optimize.processes.predictor_child",
                [msgspec.json.encode(loading).decode()],
                log=Path(self._own.name) / _LOG,
                threads=threads,
            )
            loaded = self._answer(timeout_s, "loading it").loaded
        except BaseException:
            self.close()
            raise
        assert loaded is not None
        self.signature = loaded.signature

    def predict(self, rows: Rows, *, batch: int) -> dict[str, Array]:
        """The outputs by name, for all rows, run `batch` at a time; shape [rows, ...].

        Raises:
            StepFailed: it fails, or dies.
        """
        target = Path(self._own.name) / _OUTPUTS
        self._ask(Asked(str(self._file(rows)), batch, outputs=str(target)), self.timeout_s)
        with np.load(target, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def time(self, rows: Rows, *, batch: int, seconds: float) -> Sequence[float]:
        """Run for about this long, and return the seconds of each run.

        Raises:
            StepFailed: it fails, or dies.
        """
        asked = Asked(str(self._file(rows)), batch, seconds=seconds)
        return self._ask(asked, self.timeout_s + seconds).times_s

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
        self._own.cleanup()

    def _ask(self, asked: Asked, timeout_s: float) -> Answer:
        assert self._process is not None
        try:
            self._process.send(asked)
        except Gone as error:
            raise self._died(str(error), "predicting") from None
        return self._answer(timeout_s + _SPARE_S, "predicting")

    def _answer(self, timeout_s: float, doing: str) -> Answer:
        assert self._process is not None
        try:
            answer = msgspec.convert(self._process.receive(timeout_s), Answer)
        except Gone as error:
            raise self._died(str(error), doing) from None
        except TimeoutError:
            self._process.close()
            raise StepFailed(f"{doing} took longer than {timeout_s:.0f} s") from None
        if answer.error:
            raise _ERRORS.get(answer.error, StepFailed)(answer.message, hint=answer.hint)
        return answer

    def _died(self, how: str, doing: str) -> StepFailed:
        words = "" if self._process is None else self._process.last_words()
        return StepFailed(f"its process died while {doing}: {how}" + (f": {words}" if words else ""))

    def _file(self, rows: Rows) -> Path:
        """Where the rows lie; written when they do not yet."""
        if rows not in self._files:
            path = self._folder / f"rows-{rows.digest()[:16]}.npz"
            if not path.exists():
                part = path.with_name(f".{path.name}.part.npz")
                rows.save(part)
                part.replace(path)
            self._files[rows] = path
        return self._files[rows]

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def fixed_batch(signature: Signature) -> int | None:
    """The number of rows that a model always takes; None: any number."""
    sizes = {spec.shape[0] for spec in signature.inputs if spec.shape} - {-1}
    return min(sizes) if signature.batched and sizes else None


def tensors_of(signature: Signature) -> dict[str, Any]:
    """The signature as the two processes tell it."""
    return {
        side: [Tensor(spec.name, spec.datatype.label, list(spec.shape), list(spec.labels)) for spec in specs]
        for side, specs in (("inputs", signature.inputs), ("outputs", signature.outputs))
    }
