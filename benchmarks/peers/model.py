"""Which models are served, what are they asked, and what do they answer?

Rules:
- The peers get a model as `$MODEL`: an ONNX file, or `forest` for the code in `services/forest.py`.
- What is expected is computed here: with ONNX Runtime, scikit-learn or R, before any server runs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.bench import BenchError, Run
from benchmarks.environments import finished

SERVICES = Path(__file__).parents[1] / "services"
_DIFFERENT = 1000
_CHECKED = 3
_ONNX_TYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}
_ARRAYS = {"FP32": np.float32, "INT64": np.int64}


@dataclass(frozen=True)
class Tensor:
    """An input or an output, in the words of the Open Inference Protocol; the shape is that of one row."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """What every server in a table serves.

    Attributes:
        source: what the peers load.
        item_type: of an item, for servers that want types: `row`, `image`, `tokens` or `columns`.
        items: what is sent, in turn.
        expected: what the model says to the first items.
        ours, our_tensors: what Paceline serves, for JSON and for protocols with tensors; its stem is the model's name.
        short: a run takes microseconds.
        language: of the code that serves it.
    """

    name: str
    title: str
    source: str
    item_type: str
    items: Sequence[Any]
    expected: Sequence[Any]
    ours: Path
    our_tensors: Path | None = None
    inputs: Sequence[Tensor] = ()
    output: Tensor | None = None
    short: bool = False
    language: str = "python"

    @property
    def served_as(self) -> str:
        """Its name in a path."""
        return (self.our_tensors or self.ours).stem

    def values(self, index: int) -> dict[str, Any]:
        """The numbers of an item, by input."""
        item = self.items[index]
        return item if isinstance(item, dict) else {self.inputs[0].name: item}

    def tensors(self, index: int) -> dict[str, np.ndarray]:
        """An item as arrays of one row."""
        values = self.values(index)
        return {each.name: np.array([values[each.name]], _ARRAYS[each.datatype]) for each in self.inputs}


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        make: raises BenchError when it lacks something.
        language: what a server has to speak that is to serve it.
    """

    make: Callable[[Run], Model]
    language: str = "python"


def _onnx(name: str, title: str, path: Path, item_type: str, item: Any, *, short: bool = False) -> Model:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    values = item if isinstance(item, dict) else {session.get_inputs()[0].name: item}
    inputs = [Tensor(each.name, _ONNX_TYPES[each.type], np.shape(values[each.name])) for each in session.get_inputs()]
    (output,) = session.get_outputs()
    model = Model(
        name, title, str(path.resolve()), item_type, [item], [], path, path, inputs,
        Tensor(output.name, _ONNX_TYPES[output.type], tuple(output.shape[1:])), short,
    )  # fmt: skip
    return replace(model, expected=list(session.run(None, model.tensors(0))[0]))


def _forest(_run: Run) -> Model:
    from benchmarks.services.forest import TREES, Forest, images

    items = images()[:_DIFFERENT]
    return Model(
        "forest",
        f"Random forest of scikit-learn, {TREES} trees",
        "forest",
        "row",
        items,
        Forest().predict(items[:_CHECKED]),
        ours=SERVICES / "paceline_forest.py",
        our_tensors=SERVICES / "forest_tensors.py",
        inputs=[Tensor("x", "FP32", (64,))],
        output=Tensor("label", "INT64", ()),
    )


def _mileage(_run: Run) -> Model:
    if shutil.which("Rscript") is None:
        raise BenchError("R is not installed (Debian and Ubuntu: apt-get install r-base-core r-cran-plumber)")
    items = [{"wt": 1.5 + each / 250, "hp": 110, "qsec": 17} for each in range(_DIFFERENT)]
    path = SERVICES / "mileage.R"
    rows = ", ".join(f"data.frame(wt = {item['wt']}, hp = 110, qsec = 17)" for item in items[:_CHECKED])
    code = f'source("{path}"); cat(predict_fn(rbind({rows})), sep = "\\n")'
    expected = [float(line) for line in finished(["Rscript", "--vanilla", "-e", code]).split()]
    return Model("mileage", "`predict.lm` in R", str(path), "columns", items, expected, ours=path, language="r")


def _minilm(run: Run) -> Model:
    path, tokens = models.minilm(run)
    title = f"all-MiniLM-L6-v2, a sentence of {len(tokens['input_ids'])} tokens"
    return _onnx("minilm", title, path, "tokens", tokens)


def _row(width: int) -> Any:
    return json.loads(models.json_row(width))


def _image(run: Run) -> Model:
    item = np.random.default_rng(1).uniform(-1, 1, models.SMALL_IMAGE).round(4).tolist()
    return _onnx("cnn", "Convolutional network, 3x32x32", models.cnn(run.models), "image", item)


def _perceptron(name: str, sizes: Sequence[int], *, short: bool) -> Callable[[Run], Model]:
    title = f"Perceptron {'→'.join(map(str, sizes))}"
    return lambda run: _onnx(name, title, models.mlp(run.models, sizes), "row", _row(sizes[0]), short=short)


MODELS: Mapping[str, Source] = {
    "mlp": Source(_perceptron("mlp", models.SMALL, short=True)),
    "wide": Source(_perceptron("wide", models.WIDE, short=False)),
    "forest": Source(_forest),
    "cnn": Source(_image),
    "minilm": Source(_minilm),
    "mileage": Source(_mileage, "r"),
}
"""All of them, in the order of the tables."""
