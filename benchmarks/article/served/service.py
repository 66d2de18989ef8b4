"""Set-ups (d) and (e): the model as a service of Paceline."""

import numpy as np
from predict import WIDTH, load


class Article:
    def setup(self):
        self.model = load()

    def predict(self, numbers: np.ndarray):
        return self.model(numbers)

    def example(self):
        return np.zeros(WIDTH, np.float32)
