"""How does a model of XGBoost become ONNX? Its trees, exactly: XGBoost compares in single precision, as ONNX does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paceline.core.errors import CannotChange, first_line
from paceline.optimize.formats.tabular import Tabular, of_trees
from paceline.optimize.result import Converted
from paceline.workers.python.boosters import XGBoostModel, load
from paceline.workers.python.estimators import Estimator


def convert(*, model: Path, rows: Path, folder: Path, allow_pickle: bool) -> Converted:  # noqa: ARG001 (it is no pickle)
    """Convert a .json or .ubj file; see `paceline.optimize.formats`.

    Raises:
        CannotChange: it has no trees, or what ONNX does not know.
        ModelLoadError: it cannot be read.
    """
    loaded = load(model, "xgboost")
    assert isinstance(loaded, XGBoostModel)
    if loaded.is_linear:
        raise CannotChange("it is a linear model of XGBoost (gblinear): only trees are converted")
    tabular = Tabular(Estimator(loaded), rows)
    trees = read_trees(loaded.booster, loaded.iterations, loaded.objective)
    made = of_trees(tabular, trees)
    return tabular.converted(made, folder)


def read_trees(booster: Any, iterations: tuple[int, int], objective: str) -> Any:
    """The trees of a booster, as treelite has them.

    Args:
        iterations: the first, and the one after the last; (0, 0): all.

    Raises:
        CannotChange: treelite does not read it.
    """
    from treelite import TreeliteError, frontend

    if objective == "multi:softmax":
        # Its trees are those of softprob. Given as such, treelite ends with probabilities instead of a class.
        booster = booster.copy()
        booster.set_param({"objective": "multi:softprob"})
    chosen = booster[iterations[0] : iterations[1]] if iterations[1] else booster
    try:
        return frontend.from_xgboost(chosen)
    except TreeliteError as error:
        raise CannotChange(f"treelite does not read the trees of XGBoost: {first_line(error)}") from error
