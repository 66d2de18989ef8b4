"""The predict code of every server in the comparison: a random forest on handwritten digits, a batch at a time."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

TREES = 10


class Forest:
    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        self._model = RandomForestClassifier(TREES, random_state=0).fit(images, labels)

    def predict(self, batch: list[list[float]]) -> list[int]:
        """The digit in each image of 64 pixels."""
        return self.classify(np.array(batch, np.float32)).tolist()

    def classify(self, images: np.ndarray) -> np.ndarray:
        """The same of an array [N, 64]."""
        return self._model.predict(images)


def images() -> list[list[float]]:
    """All images."""
    return load_digits(return_X_y=True)[0].tolist()
