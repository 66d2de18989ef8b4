"""How does a forest of scikit-learn predict a few rows fast?

The trees are quick, and the way to each of them is not: a task of joblib, for every tree and every call, takes ten
times as long as the tree. Asking the trees one after another adds the same numbers in the same order.

Rules:
- A forest that was hastened answers bit for bit as before: that is tried on rows around its own thresholds, and
  otherwise it stays as it was. Private parts of scikit-learn are used here, and may change.
- Only what is given as a dense array is hastened, and only forests with one output.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from paceline.core.tensors import Array

_METHODS: Final = {
    "RandomForestClassifier": "predict_proba",
    "ExtraTreesClassifier": "predict_proba",
    "RandomForestRegressor": "predict",
    "ExtraTreesRegressor": "predict",
}
_TRIED_ROWS: Final = 64


def hasten(estimator: Any) -> bool:
    """Give a forest a faster method of its own; False when it is none, or would answer otherwise."""
    name = _METHODS.get(type(estimator).__name__)
    if name is None or not type(estimator).__module__.startswith("sklearn."):
        return False
    if getattr(estimator, "n_outputs_", 0) != 1:  # 0: it is not fitted, such as what a search has begun with
        return False
    usual = getattr(estimator, name)
    try:
        faster = partial(_mean_of_trees, estimator, [each.tree_ for each in estimator.estimators_], usual)
        rows = _rows_around_thresholds(estimator)
        if not np.array_equal(usual(rows), faster(rows)):
            return False
    except Exception:  # another version of scikit-learn has other private parts
        return False
    setattr(estimator, name, faster)
    return True


def _mean_of_trees(forest: Any, trees: list[Any], usual: Callable[[Any], Array], rows: Any) -> Array:
    checked = forest._validate_X_predict(rows)
    if not isinstance(checked, np.ndarray):
        return usual(rows)
    total = np.zeros_like(trees[0].predict(checked[:1]), shape=(len(checked), trees[0].value.shape[-1]))
    for tree in trees:
        total += tree.predict(checked)
    total /= len(trees)
    return total if hasattr(forest, "classes_") else total[:, 0]


def _rows_around_thresholds(forest: Any) -> Array:
    """Rows that the trees tell apart."""
    spread = np.ones(forest.n_features_in_)
    for each in forest.estimators_:
        tree = each.tree_
        inner = tree.feature >= 0
        np.maximum.at(spread, tree.feature[inner], np.abs(tree.threshold[inner]))
    return np.random.default_rng(0).standard_normal((_TRIED_ROWS, forest.n_features_in_)) * spread
