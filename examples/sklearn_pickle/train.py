"""Fit a forest on the flowers of the iris data set, and pickle it: iris.pkl."""

import pickle
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

iris = load_iris(as_frame=True)
columns = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
forest = RandomForestClassifier(random_state=0).fit(columns, iris.target_names[iris.target])
Path("iris.pkl").write_bytes(pickle.dumps(forest))
