"""A number for each item, at no cost."""


def predict(batch):
    return [1.0] * len(batch)
