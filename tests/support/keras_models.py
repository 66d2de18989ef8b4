"""Small models of Keras and TensorFlow, one for each property; made in a process of its own, for it takes TensorFlow.

python tests/support/keras_models.py FOLDER
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from sklearn.datasets import load_digits

EXTRA = "the extra `tensorflow` is not installed"
ROWS = 50


def make(folder: Path) -> Path:
    """Make all of them; the folder holds NAME.keras, NAME/saved_model.pb, and `cnn.npy`: what it predicts."""
    command = [sys.executable, "-W", "ignore", __file__, str(folder)]
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images, [1797, 8, 8, 1] between 0 and 1, and what they show."""
    found = load_digits()
    return (found.images[..., None] / 16).astype(np.float32), found.target


def inputs(name: str) -> dict[str, np.ndarray]:
    """Rows that the model takes."""
    random = np.random.default_rng(0)
    floats = {"lstm": (12, 3), "gru": (12, 3), "attention": (6, 8), "twice": (8,)}
    if name in floats:
        return {"x": random.standard_normal((ROWS, *floats[name])).astype(np.float32)}
    if name == "two":
        return {
            "zeta": random.standard_normal((ROWS, 4)).astype(np.float32),
            "alpha": random.integers(0, 20, (ROWS, 3), np.int32),
        }
    if name == "words":
        return {"word": random.choice(["red", "green", "never seen"], (ROWS, 2))}
    if name == "tokens":
        return {"token": random.integers(0, 50, (ROWS, 7), np.int32)}
    return {"image": digits()[0][:ROWS]}


def mix(config: Path, *, weights: Path, into: Path) -> None:
    """A .keras file with the configuration of one model and the weights of another."""
    with ZipFile(config) as first, ZipFile(weights) as second, ZipFile(into, "w") as mixed:
        for name in ("metadata.json", "config.json"):
            mixed.writestr(name, first.read(name))
        mixed.writestr("model.weights.h5", second.read("model.weights.h5"))


def _save_all(folder: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    for name, build in _KERAS.items():
        build().save(folder / f"{name}.keras")
    cnn = keras.saving.load_model(folder / "cnn.keras")
    cnn.export(folder / "cnn", verbose=False)
    cnn.save(folder / "old.h5")
    np.save(folder / "cnn.npy", cnn.predict(inputs("cnn")["image"], verbose=0))
    _save_modules(folder)


def _save_modules(folder: Path) -> None:
    import tensorflow as tf

    def saved(name, shape, datatype, function):
        """A module of its own for each: all of a module's functions are written."""
        module = tf.Module()
        module.run = tf.function(function, input_signature=[tf.TensorSpec(shape, datatype, name="x")])
        tf.saved_model.save(module, str(folder / name), signatures=module.run)

    saved("upper", [None], tf.string, lambda x: {"upper": tf.strings.upper(x), "length": tf.strings.length(x)})
    saved("read", [], tf.string, lambda x: {"contents": tf.io.read_file(x)})
    saved("any_rank", None, tf.float32, lambda x: {"y": x + 1})
    saved("half", [None, 2], tf.bfloat16, lambda x: {"y": x * 2})
    tf.saved_model.save(tf.Module(), str(folder / "unsigned"))


def _cnn():
    import keras

    layers = keras.layers
    images, labels = digits()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=4, verbose=0)
    return model


def _two():
    import keras

    layers = keras.layers
    zeta, alpha = keras.Input((4,), name="zeta"), keras.Input((3,), name="alpha", dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(20, 5)(alpha))
    joined = layers.Concatenate()([zeta, embedded])
    return keras.Model([zeta, alpha], [layers.Dense(2)(joined), layers.Dense(3, activation="softmax")(joined)])


def _recurrent(kind: str):
    import keras

    x = keras.Input((12, 3), name="x")
    return keras.Model(x, keras.layers.Dense(1)(getattr(keras.layers, kind)(8)(x)))


def _tokens():
    import keras

    layers = keras.layers
    token = keras.Input((None,), name="token", dtype="int32")
    embedded = layers.Embedding(50, 8, mask_zero=True)(token)
    return keras.Model(token, layers.Dense(1)(layers.Bidirectional(layers.LSTM(8))(embedded)))


def _words():
    import keras

    layers = keras.layers
    word = keras.Input((2,), name="word", dtype="string")
    known = layers.StringLookup(vocabulary=["red", "green", "blue"])(word)
    return keras.Model(word, layers.Dense(2)(layers.Flatten()(layers.Embedding(5, 3)(known))))


def _attention():
    import keras

    x = keras.Input((6, 8), name="x")
    return keras.Model(x, keras.layers.LayerNormalization()(keras.layers.MultiHeadAttention(2, 4)(x, x)))


def _twice():
    import keras

    x = keras.Input((8,), name="x")
    y = keras.layers.Dense(4)(x)
    return keras.Model(x, [y, y])


def _lambda():
    import keras

    x = keras.Input((2,), name="x")
    return keras.Model(x, keras.layers.Lambda(lambda values: values * 2)(x))


def _own_layer():
    import keras

    class Doubled(keras.layers.Layer):
        def call(self, x):
            return x * 2

    x = keras.Input((2,), name="x")
    return keras.Model(x, Doubled()(x))


def _own_activation():
    import keras

    def doubled(x):
        return x * 2

    x = keras.Input((2,), name="x")
    return keras.Model(x, keras.layers.Dense(2, activation=doubled)(x))


_KERAS: dict[str, Callable] = {
    "cnn": _cnn,
    "two": _two,
    "lstm": lambda: _recurrent("LSTM"),
    "gru": lambda: _recurrent("GRU"),
    "tokens": _tokens,
    "words": _words,
    "attention": _attention,
    "twice": _twice,
    "lambda": _lambda,
    "own_layer": _own_layer,
    "own_activation": _own_activation,
}


if __name__ == "__main__":
    _save_all(Path(sys.argv[1]))
