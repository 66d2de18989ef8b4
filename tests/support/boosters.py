"""Small models of boosted trees, trained on scikit-learn's data, as files of their own libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import datasets

IRIS = datasets.load_iris(return_X_y=True)
CANCER = datasets.load_breast_cancer(return_X_y=True)
DIABETES = datasets.load_diabetes(return_X_y=True)

FILES = {"xgboost": "model.ubj", "lightgbm": "model.txt", "catboost": "model.cbm"}
"""By library: what its files are called."""

_CATBOOST = {"verbose": 0, "allow_writing_files": False, "thread_count": 1}


def holes(rows: Any) -> Any:
    """With some values missing."""
    rows = np.array(rows, np.float64)
    rows[np.random.default_rng(0).random(rows.shape) < 0.15] = np.nan
    return rows


def estimator(library: str, classifies: bool, **parameters: Any) -> Any:
    """One that is not fitted, of 12 trees."""
    module = pytest.importorskip(library, reason=f"pip install 'paceline[{library}]'")
    kind = "Classifier" if classifies else "Regressor"
    if library == "xgboost":
        return getattr(module, f"XGB{kind}")(**{"n_estimators": 12, "n_jobs": 1, **parameters})
    if library == "lightgbm":
        return getattr(module, f"LGBM{kind}")(**{"n_estimators": 12, "n_jobs": 1, "verbose": -1, **parameters})
    return getattr(module, f"CatBoost{kind}")(**{"iterations": 12, **_CATBOOST, **parameters})


def save(fitted: Any, folder: Path) -> Path:
    """Write it as its library does."""
    library = type(fitted).__module__.partition(".")[0]
    path = folder / FILES[library]
    target = fitted.booster_ if hasattr(fitted, "booster_") else fitted
    target.save_model(str(path))
    return path


def trained(library: str, folder: Path, data: Any = CANCER, **parameters: Any) -> tuple[Path, Any]:
    """A file, and the estimator that it was written by."""
    rows, targets = data
    classifies = len(np.unique(targets)) < 10
    fitted = estimator(library, classifies, **parameters).fit(rows, targets)
    return save(fitted, folder), fitted


def by(fitted: Any, rows: Any) -> dict[str, Any]:
    """What an estimator answers, as the service names it."""
    if not hasattr(fitted, "predict_proba"):
        return {"prediction": np.asarray(fitted.predict(rows))}
    return {
        "label": np.asarray(fitted.predict(rows)).reshape(len(rows)),
        "probabilities": np.asarray(fitted.predict_proba(rows)),
    }


Trained = Callable[..., tuple[Path, Any]]
