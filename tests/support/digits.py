"""Real models of scikit-learn's handwritten digits, and their rows, for tests of the optimizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TRAINED_ON = 1200


@cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """Pixels between 0 and 1, of shape [1797, 64] and FP32; the digits."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32), digits


def save_rows(folder: Path, name: str = "input") -> tuple[Path, Path]:
    """`rows.npz` and `labels.npy` of the rows that no model was trained on."""
    pixels, digits = data()
    np.savez(folder / "rows.npz", **{name: pixels[TRAINED_ON:]})
    np.save(folder / "labels.npy", digits[TRAINED_ON:])
    return folder / "rows.npz", folder / "labels.npy"


@cache
def mlp(width: int = 256) -> Any:
    """A fitted network with one hidden layer."""
    from sklearn.neural_network import MLPClassifier

    pixels, digits = data()
    return MLPClassifier((width,), max_iter=40, tol=1e-2, random_state=0).fit(pixels[:TRAINED_ON], digits[:TRAINED_ON])


def save_mlp(path: Path, width: int = 256) -> Path:
    """The network in ONNX: `input` [N, 64] -> `label` [N], `probabilities` [N, 10]."""
    skl2onnx = pytest.importorskip("skl2onnx", reason="scikit-learn's models become ONNX by skl2onnx")
    made = skl2onnx.to_onnx(mlp(width), data()[0][:1], options={"zipmap": False})
    path.write_bytes(_renamed(made).SerializeToString())
    return path


def save_forest(path: Path, trees: int = 20) -> Path:
    """A random forest, pickled."""
    import joblib
    from sklearn.ensemble import RandomForestClassifier

    pixels, digits = data()
    joblib.dump(RandomForestClassifier(trees, random_state=0).fit(pixels[:TRAINED_ON], digits[:TRAINED_ON]), path)
    return path


def _renamed(model: Any) -> Any:
    """With the input called `input`, and not `X`."""
    old = model.graph.input[0].name
    model.graph.input[0].name = "input"
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = "input"
    return model
