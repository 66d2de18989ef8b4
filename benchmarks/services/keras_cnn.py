"""A convolutional network of Keras: made and converted, or called in the ways that Python has.

python keras_cnn.py make FOLDER    writes model.keras, saved_model/, model.onnx, image.npy and expected.npy
python keras_cnn.py call FOLDER    reads lines `WAY SECONDS`, and answers each with one line of JSON
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    make(folder) if what == "make" else call(folder)


def images() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits, [1797, 28, 28, 1], and what they show."""
    digits = load_digits()
    enlarged = np.kron(digits.images / 16, np.ones((1, 4, 4)))[:, 2:30, 2:30, None]
    return enlarged.astype(np.float32), digits.target


def make(folder: Path) -> None:
    """Train the network of Keras's first example on images, and convert it as `paceline optimize` does."""
    from paceline.optimize.data.rows import Rows
    from paceline.optimize.formats.keras import convert

    keras.utils.set_random_seed(0)
    rows, labels = images()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(rows, labels, epochs=2, verbose=0)
    model.save(folder / "model.keras")
    model.export(folder / "saved_model", verbose=False)
    Rows({"image": rows[:200]}).save(folder / "rows.npz")
    np.save(folder / "image.npy", rows[:1])
    np.save(folder / "expected.npy", model.predict(rows[:1], verbose=0))
    made = convert(model=folder / "model.keras", rows=folder / "rows.npz", folder=folder, allow_pickle=False)
    print(json.dumps({"largest_error": made.equality.largest_error}))


def call(folder: Path) -> None:
    """Time the ways, each when it is asked for."""
    image, expected = np.load(folder / "image.npy"), np.load(folder / "expected.npy")
    model = keras.saving.load_model(folder / "model.keras")
    signature = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]

    def signature_of(image: np.ndarray) -> np.ndarray:
        return signature(image=tf.constant(image))["output_0"].numpy()

    ways: dict[str, Callable[[], np.ndarray]] = {
        "predict": lambda: model.predict(image, verbose=0),
        "model": lambda: model(image, training=False).numpy(),
        "signature": lambda: signature_of(image),
    }
    for way in ways.values():
        np.testing.assert_allclose(way(), expected, atol=1e-5)
    print("ready", flush=True)
    for line in sys.stdin:
        name, seconds = line.split()
        times = _times(ways[name], float(seconds))
        print(json.dumps({"p50_ms": median(times) * 1e3, "p99_ms": quantiles(times, n=100)[98] * 1e3}), flush=True)


def _times(way: Callable[[], np.ndarray], seconds: float) -> list[float]:
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        begun = time.perf_counter()
        way()
        times.append(time.perf_counter() - begun)
    return times


if __name__ == "__main__":
    main()
