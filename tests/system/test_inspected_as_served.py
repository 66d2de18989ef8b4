"""What `paceline inspect` says of inputs and outputs is what the server's metadata says, for every format."""

from __future__ import annotations

import json
import os
import pickle
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.inspection.dispatch import inspect
from paceline.inspection.report import Tensor
from paceline.runtimes.formats import FORMATS
from paceline.testing import run_server
from support import boosters, bundles, models
from support.inspected import in_another_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BOTH, INPUTS, NOTHING = ("inputs", "outputs"), ("inputs",), ()
TOLD: dict[str, tuple[str, ...]] = {
    "mlp": BOTH,
    "maps": BOTH,
    "sequence": BOTH,
    "bundle": BOTH,
    "ir": BOTH,
    "renamed": BOTH,
    "keras-sequential": BOTH,
    "keras-lists": BOTH,
    "keras-dicts": BOTH,
    "keras-fixed": BOTH,
    "saved": BOTH,
    "exported": BOTH,
    "exported-nested": BOTH,
    "traced": BOTH,
    "traced-dict": INPUTS,
    "scripted": BOTH,
    "xgboost-named": BOTH,
    "xgboost-plain": BOTH,
    "xgboost-numbers": BOTH,
    "lightgbm-named": BOTH,
    "lightgbm-plain": BOTH,
    "catboost-named": BOTH,
    "catboost-texts": BOTH,
    "catboost-numbers": BOTH,
    "catboost-two": BOTH,
    "forest": INPUTS,
    "forest-named": INPUTS,
    "pickle-named": INPUTS,
    "pickle-searched": INPUTS,
    "pickle-many": INPUTS,
    "pickle-frame": BOTH,
    "pickle-categories": BOTH,
    "pickle-texts": BOTH,
    "pickle-boosted": NOTHING,
    "skops": INPUTS,
    "skops-named": INPUTS,
    "skops-frame": BOTH,
    "service": NOTHING,
}
"""By model: of which side the names can be known without loading it."""
PACKAGES = {
    "ir": "openvino", "renamed": "openvino", "keras": "keras", "saved": "keras", "exported": "torch",
    "traced": "torch", "scripted": "torch", "xgboost": "xgboost", "lightgbm": "lightgbm", "catboost": "catboost",
    "skops": "skops", "pickle-boosted": "xgboost", "pickle-frame": "pandas",
}  # fmt: skip
"""By how the names of models begin: what is needed to make them, besides scikit-learn."""


def has_what_it_needs(name: str) -> bool:
    return all(find_spec(package) for begin, package in PACKAGES.items() if name.startswith(begin))


class Served:
    """A folder with all models, and one server for it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self._url = url

    def file(self, name: str) -> Path:
        (path,) = (each for each in (self.folder / name / "1").iterdir() if each.suffix not in (".bin", ".npz"))
        return path

    def metadata(self, name: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/v2/models/{name}", timeout=20) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    for name in filter(has_what_it_needs, TOLD):
        (folder / name / "1").mkdir(parents=True)
    work = tmp_path_factory.mktemp("work")
    _onnx(folder)
    _trees(folder)
    _estimators(folder)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for package, code in (("openvino", OPENVINO), ("keras", KERAS), ("torch", TORCH)):
        if find_spec(package) is not None:
            in_another_process(f"from pathlib import Path\nfolder = Path({str(folder)!r})\n{code}", work)
    flags = ["--allow-pickle", "--warmup-s", "0.01", "--instances", "1", "--threads", "1"]
    with run_server(folder, flags, ready=False) as server:
        server.wait_ready(120)
        yield Served(folder, server.url)


@pytest.mark.parametrize("name", TOLD)
def test_inputs_and_outputs_are_told_as_they_are_served(served: Served, name: str):
    if not has_what_it_needs(name):
        pytest.skip("an extra is not installed")
    metadata = served.metadata(name)
    path = served.folder / name / "1" if name == "bundle" else served.file(name)
    report = inspect(path)
    for side in BOTH:
        told: list[Tensor] | None = getattr(report, side)
        assert (told is not None) == (side in TOLD[name]), f"{side}: {told}"
        if told is not None:
            assert [each.name for each in told] == [each["name"] for each in metadata[side]]
            for each, expected in zip(told, metadata[side], strict=True):
                assert each.datatype in (expected["datatype"], None)
                sizes = each.shape and [-1 if isinstance(size, str) else size for size in each.shape]
                assert sizes in (expected["shape"], None)


def test_every_format_is_compared(served: Served):
    if not all(map(has_what_it_needs, TOLD)):
        pytest.skip("an extra is not installed")
    assert {inspect(served.file(name)).format for name in TOLD if name != "bundle"} >= {each.name for each in FORMATS}


def _onnx(folder: Path) -> None:
    models.mlp(folder / "mlp" / "1" / "model.onnx")
    models.flowers(folder / "maps" / "1" / "model.onnx")
    models.row_sequence(folder / "sequence" / "1" / "model.onnx")
    bundles.make(folder / "bundle" / "1")
    (folder / "service" / "1" / "service.py").write_text("def predict(batch):\n    return batch\n")


def _trees(folder: Path) -> None:
    rows, targets = boosters.IRIS
    named, words = _frame(rows), np.array(["red", "green", "blue"])[targets]
    made = {
        "xgboost-named": ("model.json", True, named, targets),
        "xgboost-plain": ("model.ubj", True, rows, (targets > 0).astype(int)),
        "xgboost-numbers": ("model.ubj", False, rows, np.column_stack([targets, -targets])),
        "lightgbm-named": ("model.txt", True, named.rename(columns=lambda name: name.replace(" ", "_")), targets),
        "lightgbm-plain": ("model.txt", False, rows, targets),
        "catboost-named": ("model.cbm", True, named, words),
        "catboost-texts": ("model.cbm", True, named.assign(word=words), targets),
        "catboost-numbers": ("model.cbm", False, rows, targets),
        "catboost-two": ("model.cbm", True, rows, targets > 0),
    }
    for name, (file, classifies, taken, truth) in made.items():
        if not has_what_it_needs(name):
            continue
        extra = {"cat_features": ["word"]} if name == "catboost-texts" else {}
        fitted = boosters.estimator(name.partition("-")[0], classifies, **extra).fit(taken, truth)
        (fitted.booster_ if hasattr(fitted, "booster_") else fitted).save_model(str(folder / name / "1" / file))


def _frame(rows: np.ndarray) -> Any:
    pandas = pytest.importorskip("pandas", reason="named columns come from a data frame")
    return pandas.DataFrame(rows, columns=[f"column {place}" for place in range(rows.shape[1])])


def _estimators(folder: Path) -> None:
    import joblib
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    rows, targets = boosters.IRIS
    named = _frame(rows)
    forest, line = RandomForestClassifier(3, random_state=0), make_pipeline(StandardScaler(), DecisionTreeClassifier())
    by_name = make_pipeline(ColumnTransformer([("scaled", StandardScaler(), ["column 1"])]), DecisionTreeClassifier())
    words = np.array([["red"], ["green"], ["blue"]], object)[targets]
    wide = _frame(np.repeat(rows, 20, axis=1))
    made = {
        "forest": ("model.joblib", forest.fit(rows, targets)),
        "forest-named": ("model.joblib", RandomForestClassifier(3, random_state=0).fit(named, targets)),
        "pickle-named": ("model.pkl", line.fit(named, targets)),
        "pickle-searched": (
            "model.joblib",
            GridSearchCV(line, {"decisiontreeclassifier__max_depth": [1, 2]}).fit(named, targets),
        ),
        "pickle-many": ("model.pkl", LinearRegression().fit(wide, targets)),
        "pickle-frame": ("model.pkl", by_name.fit(named, targets)),
        "pickle-categories": (
            "model.joblib",
            make_pipeline(OneHotEncoder(), DecisionTreeClassifier()).fit(words, targets),
        ),
        "pickle-texts": (
            "model.joblib",
            make_pipeline(CountVectorizer(), DecisionTreeClassifier()).fit(["good day", "bad night"] * 5, [0, 1] * 5),
        ),
    }
    if has_what_it_needs("pickle-boosted"):
        made["pickle-boosted"] = ("model.joblib", boosters.estimator("xgboost", classifies=True).fit(rows, targets))
    for name, (file, fitted) in made.items():
        path = folder / name / "1" / file
        if path.suffix == ".pkl":
            path.write_bytes(pickle.dumps(fitted))
        else:
            joblib.dump(fitted, path)
    if has_what_it_needs("skops"):
        from skops import io

        io.dump(DecisionTreeClassifier().fit(rows, targets), folder / "skops" / "1" / "model.skops")
        io.dump(line, folder / "skops-named" / "1" / "model.skops")
        io.dump(by_name, folder / "skops-frame" / "1" / "model.skops")


OPENVINO = """
import numpy as np
import openvino as ov
from openvino import opset13 as op

def saved(name, **names):
    taken = op.parameter([-1, 3], np.float32, name="taken")
    middle = op.relu(taken, name="middle")
    last = op.add(middle, taken, name="last")
    for node, given in zip((taken, middle, last), names.values()):
        node.output(0).set_names(given)
    ov.save_model(ov.Model([last, middle], [taken], name), folder / name / "1" / "model.xml", compress_to_fp16=False)

saved("ir")
saved("renamed", taken={"z", "a,b"}, middle={"y", "c"}, last={"sum"})
"""

KERAS = """
import keras
layers = keras.layers

def build(name, taken, given):
    keras.Model(taken, given).save(folder / name / "1" / "model.keras")

keras.Sequential([keras.Input((4,), name="x"), layers.Dense(2)]).save(folder / "keras-sequential" / "1" / "model.keras")
zeta, alpha = keras.Input((4,), name="zeta"), keras.Input((3,), name="alpha", dtype="int32")
wide, narrow = layers.Dense(2)(zeta), layers.Embedding(9, 2)(alpha)
build("keras-lists", [zeta, alpha], [wide, narrow])
build("keras-dicts", {"zeta": zeta, "alpha": alpha}, {"wide": wide, "narrow": narrow})
fixed = keras.Input(batch_shape=(3, 4), name="fixed")
build("keras-fixed", fixed, layers.Dense(2)(fixed))

import tensorflow as tf

class Many(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="b"), tf.TensorSpec([None], tf.int64, name="a")])
    def run(self, b, a):
        return {f"out_{place}": b * place + tf.cast(a, tf.float32)[:, None] for place in (10, 9, 1)}

module = Many()
tf.saved_model.save(module, str(folder / "saved" / "1" / "model.savedmodel"), signatures=module.run)
"""

TORCH = """
import torch

class Pair(torch.nn.Module):
    def forward(self, x, y, scale: float = 1.0):
        return x + y, x - y * scale

class Nested(torch.nn.Module):
    def forward(self, x):
        return {"scores": x + 1, "parts": (x * 2, [x - 1, 3])}

class Single(torch.nn.Module):
    def forward(self, x):
        return x * 2

class Dict(torch.nn.Module):
    def forward(self, x):
        return {"double": x * 2}

def to(name, file):
    return str(folder / name / "1" / file)

rows, x = torch.export.Dim("rows"), torch.zeros(2, 3)
torch.export.save(torch.export.export(Single(), (x,), dynamic_shapes=({0: rows},)), to("exported", "model.pt2"))
torch.export.save(torch.export.export(Nested(), (x,)), to("exported-nested", "model.pt2"))
torch.jit.trace(Single(), x).save(to("traced", "model.pt"))
torch.jit.trace(Dict(), x, strict=False).save(to("traced-dict", "model.pt"))
torch.jit.script(Pair()).save(to("scripted", "model.pt"))
import numpy as np
np.savez(to("scripted", "model.examples.npz"), x=x.numpy(), y=x.numpy())
"""
