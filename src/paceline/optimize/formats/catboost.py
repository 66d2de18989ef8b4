"""How does a model of CatBoost become ONNX? By CatBoost's own export, with outputs called as those of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from paceline.core.errors import CannotChange, first_line
from paceline.core.tensors import Array
from paceline.optimize.formats.graphs import ML, Graph, OwnGraph
from paceline.optimize.formats.tabular import Tabular
from paceline.optimize.result import Converted
from paceline.workers.python.boosters import CatBoostModel, load, loss_of
from paceline.workers.python.estimators import Estimator

_OF_CLASSES: Final = ("nodes_", "post_transform", "base_values")


def convert(*, model: Path, rows: Path, folder: Path, allow_pickle: bool) -> Converted:  # noqa: ARG001 (it is no pickle)
    """Convert a .cbm file; see `paceline.optimize.formats`.

    Raises:
        CannotChange: it has categories or texts, which CatBoost does not export.
        ModelLoadError: it cannot be read.
    """
    loaded = load(model, "catboost")
    assert isinstance(loaded, CatBoostModel)
    tabular = Tabular(Estimator(loaded), rows)
    graph = OwnGraph()
    scores, count = write(graph, tabular.rows_of(graph), loaded.model, loaded.kind == "Exponent")
    outputs = tabular.outputs(graph, scores, count)
    made = graph.model(tabular.values("float32"), outputs)
    return tabular.converted(made, folder)


def write(graph: Graph, rows: str, model: Any, exponent: bool = False) -> tuple[str, int]:
    """Add nodes that predict.

    Args:
        rows: a tensor of shape [rows, features], FP32.
        exponent: predictions are powers of what the trees add up to.

    Returns:
        A tensor of shape [rows, outputs]: probabilities of a classifier; and how many outputs there are.
    """
    from catboost import CatBoostError
    from catboost.utils import convert_to_onnx_object

    try:
        exported = convert_to_onnx_object(model)
    except CatBoostError as error:
        raise CannotChange(f"CatBoost does not export this model: {first_line(error)}") from error
    attributes = _as_regressor(exported.graph.node[0])
    behind = "Exp" if exponent else ""
    if loss_of(model) == "MultiClassOneVsAll":  # exported with a softmax, which it has not
        attributes["post_transform"], behind = "NONE", "Sigmoid"
    scores = graph.node("TreeEnsembleRegressor", [rows], domain=ML, **attributes)
    return (graph.node(behind, [scores]) if behind else scores), int(attributes["n_targets"])


def _as_regressor(node: Any) -> dict[str, Any]:
    """The attributes of either operator for trees, as the regressor has them: it gives the scores of classes alone."""
    from onnx import helper

    found: dict[str, Any] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type == "TreeEnsembleRegressor":
        return found
    kept = {name: value for name, value in found.items() if name.startswith(_OF_CLASSES)}
    targets = {name.replace("class_", "target_"): value for name, value in found.items() if name.startswith("class_")}
    classes: Array | list[Any] = found.get("classlabels_int64s") or found["classlabels_strings"]
    return {**kept, **targets, "n_targets": len(classes)}
