"""Small networks that were really trained, on scikit-learn's bundled digits, so that their accuracy means something."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper

from paceline.optimize.data.rows import Rows
from support import models

_FILTERS = 48


@dataclass(frozen=True)
class Trained:
    """A model, with the rows that it did not see: half of the digits.

    Attributes:
        calibration: a file with the rows that it was trained on.
    """

    model: Path
    calibration: Path
    rows: Rows

    def accuracy(self, model: Path) -> float:
        """Share of the rows that a model with the same interface gets right."""
        session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        return float(np.mean(session.run(["y"], dict(self.rows.inputs))[0].argmax(axis=1) == self.rows.labels))


def digits_mlp(folder: Path, hidden: Sequence[int]) -> Trained:
    """Fully connected layers: `x` FP32 [N, 64] -> `y`, ten logits; weights `w0`, `b0` and on, as in `models.mlp`."""
    from sklearn.neural_network import MLPClassifier

    seen, new = _digits()
    classifier = MLPClassifier(tuple(hidden), max_iter=25, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it could be trained for longer
        classifier.fit(seen.inputs["x"], seen.labels)
    nodes, weights, current = [], {}, "x"
    for index, (matrix, bias) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        weights |= {f"w{index}": matrix.astype(np.float32), f"b{index}": bias.astype(np.float32)}
        last = index == len(hidden)
        nodes.append(helper.make_node("Gemm", [current, f"w{index}", f"b{index}"], ["y" if last else f"g{index}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"g{index}"], [f"h{index}"]))
            current = f"h{index}"
    return _written(folder, nodes, [64], weights, seen, new)


def digits_cnn(folder: Path) -> Trained:
    """Three convolutions with random filters, the second with one for each channel, and a trained layer of ten.

    `x` FP32 [N, 1, 8, 8] -> `y`. There is a BatchNormalization, a MaxPool and a Flatten between them.
    """
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    seen, new = ((Rows({"x": each.inputs["x"].reshape(-1, 1, 8, 8)}, each.labels)) for each in _digits())
    weights = {
        "k0": random.standard_normal((_FILTERS, 1, 3, 3)) / 3,
        "c0": random.standard_normal(_FILTERS) / 10,
        "scale": random.uniform(0.5, 1.5, _FILTERS),
        "shift": random.standard_normal(_FILTERS) / 10,
        "mean": random.standard_normal(_FILTERS) / 10,
        "variance": random.uniform(0.5, 1.5, _FILTERS),
        "k1": random.standard_normal((_FILTERS, 1, 3, 3)) / 3,
        "k2": random.standard_normal((32, _FILTERS, 3, 3)) / np.sqrt(9 * _FILTERS),
    }
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    nodes = [
        helper.make_node("Conv", ["x", "k0", "c0"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("BatchNormalization", ["b", "scale", "shift", "mean", "variance"], ["c"]),
        helper.make_node("Conv", ["c", "k1"], ["d"], pads=[1, 1, 1, 1], group=_FILTERS),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["f", "k2"], ["g"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Flatten", ["h"], ["flat"]),
    ]
    features = models.save(
        folder / "features.onnx", nodes, [("x", T.FLOAT, ["N", 1, 8, 8])], [("flat", T.FLOAT, ["N", 512])], weights
    )
    session = ort.InferenceSession(str(features), providers=["CPUExecutionProvider"])
    last = LogisticRegression(max_iter=2000).fit(session.run(None, dict(seen.inputs))[0], seen.labels)
    weights |= {"w": last.coef_.astype(np.float32), "bias": last.intercept_.astype(np.float32)}
    nodes.append(helper.make_node("Gemm", ["flat", "w", "bias"], ["y"], transB=1))
    return _written(folder, nodes, [1, 8, 8], weights, seen, new)


def _digits() -> tuple[Rows, Rows]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    scaled = (pixels / 16).astype(np.float32)
    seen, new, known, unknown = train_test_split(scaled, labels, test_size=0.5, random_state=0, stratify=labels)
    return Rows({"x": seen}, known), Rows({"x": new}, unknown)


def _written(folder: Path, nodes: list, shape: list, weights: dict, seen: Rows, new: Rows) -> Trained:
    model = models.save(
        folder / "model.onnx", nodes, [("x", T.FLOAT, ["N", *shape])], [("y", T.FLOAT, ["N", 10])], weights
    )
    seen.save(folder / "calibration.npz")
    return Trained(model, folder / "calibration.npz", new)
