"""The forest as a service of Paceline that takes arrays, for the protocols that carry them."""

from typing import ClassVar

import numpy as np
from forest import Forest


class Digits:
    inputs: ClassVar = {"x": ("FP32", [-1, 64])}
    outputs: ClassVar = {"label": ("INT64", [-1])}

    def setup(self):
        self.forest = Forest()

    def predict(self, x: np.ndarray):
        return {"label": self.forest.classify(x)}
