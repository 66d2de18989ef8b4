"""The forest as a service of Paceline."""

from forest import Forest, images


class Digits:
    def setup(self):
        self.forest = Forest()

    def predict(self, batch):
        return self.forest.predict(batch)

    def example(self):
        return images()[:1]
