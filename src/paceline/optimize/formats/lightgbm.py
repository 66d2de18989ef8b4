"""How does a model of LightGBM become ONNX? Its trees, exactly: in double precision, as LightGBM compares."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from paceline.core.errors import CannotChange, first_line
from paceline.optimize.formats.tabular import Tabular, of_trees
from paceline.optimize.result import Converted
from paceline.workers.python.boosters import LightGBMModel, load
from paceline.workers.python.estimators import Estimator

_MISSING_IS_ZERO: Final = 1 << 2  # in a node's `decision_type`


def convert(*, model: Path, rows: Path, folder: Path, allow_pickle: bool) -> Converted:  # noqa: ARG001 (it is no pickle)
    """Convert a text file; see `paceline.optimize.formats`.

    Raises:
        CannotChange: it has what ONNX does not know, such as linear models in its leaves.
        ModelLoadError: it cannot be read.
    """
    loaded = load(model, "lightgbm")
    assert isinstance(loaded, LightGBMModel)
    tabular = Tabular(Estimator(loaded), rows)
    made = of_trees(tabular, read_trees(loaded.booster))
    return tabular.converted(made, folder)


def read_trees(booster: Any) -> Any:
    """The trees of a booster, as treelite has them.

    Raises:
        CannotChange: treelite does not read it, or not all of it.
    """
    import lightgbm
    from treelite import TreeliteError, frontend

    text = booster.model_to_string()  # up to the best iteration
    if re.search(r"^is_linear=1$", text, re.MULTILINE):
        raise CannotChange("its leaves are linear models, which the trees of ONNX have not")
    decisions = re.findall(r"^decision_type=(.*)$", text, re.MULTILINE)
    if any(int(each) & _MISSING_IS_ZERO for line in decisions for each in line.split()):
        raise CannotChange("it takes zeros for missing (zero_as_missing), which the trees of ONNX do not")
    try:
        return frontend.from_lightgbm(lightgbm.Booster(model_str=text))
    except TreeliteError as error:
        raise CannotChange(f"treelite does not read the trees of LightGBM: {first_line(error)}") from error
