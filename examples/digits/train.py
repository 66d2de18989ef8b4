"""Train a classifier of handwritten digits and export it: a real model that needs no download.

Writes build/digits.onnx (input `image` of 64 pixels from 0 to 16; outputs `label` and `probabilities`)
and build/digits_example.json (one image that the model was not trained on).
"""

import json
from pathlib import Path

from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

BUILD = Path("build")


def main() -> None:
    digits = load_digits()
    train_images, test_images, train_labels, test_labels = train_test_split(
        digits.data.astype("float32"), digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    model = MLPClassifier(hidden_layer_sizes=(128,), random_state=0)
    model.fit(train_images, train_labels)
    accuracy = model.score(test_images, test_labels)
    print(f"digits: {accuracy:.1%} of {len(test_labels)} held-out images are right")

    # ZipMap would turn the probabilities into a list of maps; a tensor is smaller and faster.
    onnx_model = convert_sklearn(
        model,
        initial_types=[("image", FloatTensorType([None, 64]))],
        options={id(model): {"zipmap": False}},
    )
    BUILD.mkdir(exist_ok=True)
    example = {"image": test_images[0].tolist()}
    (BUILD / "digits_example.json").write_text(json.dumps(example) + "\n")
    # Last, and in one step: whoever finds digits.onnx finds it whole.
    partial = BUILD / "digits.onnx.partial"
    partial.write_bytes(onnx_model.SerializeToString())
    partial.rename(BUILD / "digits.onnx")
    print(f"wrote {BUILD / 'digits.onnx'} and {BUILD / 'digits_example.json'} (a {test_labels[0]})")


if __name__ == "__main__":
    main()
