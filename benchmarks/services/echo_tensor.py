"""Images in, the same images out."""

import numpy as np

inputs = {"image": ("FP32", [-1, 3, 224, 224])}
outputs = {"image": ("FP32", [-1, 3, 224, 224])}


def predict(image: np.ndarray) -> np.ndarray:
    return image
