"""How does an estimator of scikit-learn become ONNX? By skl2onnx; its histogram trees, and boosters in it, by ours.

Rules:
- Single precision comes first, for it is what runs fast; double where the answers to the user's rows differ in single,
  and for trees that compare in double.
- Where estimators vote, the first of the classes with most votes is chosen, as the library does: sums in another order
  differ in their last digits, and would choose either.
- Trees that skl2onnx does not know, or not exactly, are written as `trees.py` has them, within what skl2onnx converts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from paceline.core.errors import CannotChange, first_line
from paceline.core.tensors import Array
from paceline.optimize.formats.graphs import ML, ML_OPSET, OPSET, Graph, OwnGraph, Value, as_onnx
from paceline.optimize.formats.tabular import MATRIX, Tabular
from paceline.optimize.formats.trees import Ensemble, write_classes, write_likeliest
from paceline.optimize.result import Converted, Equality
from paceline.workers.python.estimators import Estimator
from paceline.workers.python.pickled import read

_FLOAT, _DOUBLE = "float32", "float64"
_DOUBLE_TREES: Final = ("HistGradientBoosting", "LGBM")
"""Whose thresholds are compared in double precision, by the beginning of the name of their class."""
_VOTERS: Final = ("ExtraTreesClassifier", "KNeighborsClassifier", "RandomForestClassifier")
"""Whose probabilities are shares of votes."""
_EVEN: Final = 2.0**-17  # shares of votes that are nearer to one another are equal
_ONNX_FLOAT, _ONNX_DOUBLE, _ONNX_BOOL = 1, 11, 9
_OURS: Final = "ours_"  # begins the names of nodes that skl2onnx has not written
_OPTIONS: Final = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}

Scores = Callable[[Any, Graph, str], tuple[str, int]]
"""Adds nodes that predict with an estimator; the scores and how many there are."""


def convert(*, model: Path, rows: Path, folder: Path, allow_pickle: bool) -> Converted:
    """Convert a pickle or a .skops file; see `paceline.optimize.formats`.

    Raises:
        UnsafeModel: it could run any code, and that is not allowed.
        CannotChange: a part of it has no converter, or it takes what no graph can.
        ModelLoadError: it cannot be read.
    """
    fitted, notes = read(model, allow_pickle)
    tabular = Tabular(Estimator(fitted), rows)
    _register()
    made, equality, more = _best(tabular)
    if tabular.has_text:
        more.append(
            "columns of text are tensors: clients send one for each column, by name, and neither items nor lists; "
            "a value that is missing (null) is refused"
        )
    return tabular.converted(made, folder, equality, notes + more)


def _best(tabular: Tabular) -> tuple[Any, Equality, list[str]]:
    """In the first precision in which it answers as the library does, or else the one with the fewer rows apart."""
    kinds = [_FLOAT, _DOUBLE]
    if any(type(part).__name__.startswith(_DOUBLE_TREES) for part in tabular.estimator.parts):
        kinds.reverse()
    made: Any = None
    equality, notes = Equality(rows=0, largest_error=0.0, tolerance=0.0, rows_apart=0), []
    for kind in kinds:
        try:
            other, found = _as(tabular, kind)
        except CannotChange:
            if made is None and kind == kinds[-1]:
                raise
            continue
        if made is None or found.rows_apart < equality.rows_apart:
            notes = [] if made is None else [_because(equality, kind)]
            made, equality = other, found
        if not equality.rows_apart:
            break
    return made, equality, notes


def _because(worse: Equality, kind: str) -> str:
    note = f"computed in {kind}: in the other precision {worse.rows_apart} of {worse.rows} rows differ"
    return note + (f", {worse.ties} of them because a feature lies on a threshold" if worse.ties else "")


def _as(tabular: Tabular, kind: str) -> tuple[Any, Equality]:
    from onnx import helper

    graph = OwnGraph()
    inner = _rounding(_converted(tabular, kind))
    given = [each.name for each in inner.graph.input]
    whole = given == [MATRIX]
    names = [tabular.rows_of(graph)] if whole else [_column(graph, name) for name in tabular.columns]
    theirs = graph.include(inner, dict(zip(given, names, strict=True)))
    kinds = [helper.tensor_dtype_to_np_dtype(each.type.tensor_type.elem_type).name for each in inner.graph.output]
    made = graph.model(tabular.values(kind), _outputs(tabular, graph, theirs, kinds))
    return made, tabular.equality(made)


def _outputs(tabular: Tabular, graph: Graph, theirs: Sequence[str], kinds: Sequence[str]) -> dict[str, Value]:
    """The outputs of the service; skl2onnx may give more, such as the distances of clusters."""
    if tabular.estimator.classes is None:
        return tabular.prediction(graph, theirs[0], kinds[0])
    label, kind = theirs[0], kinds[0]
    if "probabilities" in tabular.answers and type(tabular.estimator.last).__name__ in _VOTERS:
        label = _voted(graph, theirs[1], kinds[1], tabular.estimator.classes.astype(kind))
    wanted = tabular.answers["label"].dtype
    if wanted.kind in "bf":
        label, kind = graph.node("Cast", [label], to={"b": _ONNX_BOOL, "f": _ONNX_DOUBLE}[wanted.kind]), wanted.name
    found = {label: Value("label", kind, (None,))}
    if "probabilities" in tabular.answers:
        found[theirs[1]] = Value("probabilities", kinds[1], (None, tabular.answers["probabilities"].shape[1]))
    return found


def _voted(graph: Graph, shares: str, kind: str, classes: Array) -> str:
    """The label with most votes."""
    steps = graph.node("Mul", [shares, graph.constant(np.array(1 / _EVEN, kind))])
    return write_likeliest(graph, graph.node("Round", [steps]), classes)


def _column(graph: Graph, name: str) -> str:
    """As skl2onnx has a column: of shape [rows, 1]."""
    return graph.node("Reshape", [name, graph.constant(np.array([-1, 1], np.int64))])


def _rounding(model: Any) -> Any:
    """Let the trees of scikit-learn see features in single precision, as they do there, whatever comes before them."""
    from onnx import helper

    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type.startswith("TreeEnsemble") and not node.name.startswith(_OURS):
            kinds = [_ONNX_FLOAT]
            if any(each.name == "nodes_values_as_tensor" for each in node.attribute):
                kinds.append(_ONNX_DOUBLE)
            for kind in kinds:
                cast = f"{node.name}_as_{kind}"
                model.graph.node.append(helper.make_node("Cast", [node.input[0]], [cast], to=kind))
                node.input[0] = cast
        model.graph.node.append(node)
    return model


def _converted(tabular: Tabular, kind: str) -> Any:
    """What skl2onnx makes of the estimator: a matrix, or columns, to its own outputs."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    numbers = FloatTensorType if kind == _FLOAT else DoubleTensorType
    estimator = tabular.estimator
    for part in estimator.parts:
        if hasattr(part, "flatten_transform"):
            part.flatten_transform = False  # of a vote's `transform`, which is not served, and not converted
    types: list[tuple[str, Any]] = [(MATRIX, numbers([None, estimator.features]))]
    if estimator.needs_frame and not tabular.is_matrix:
        types = [
            (name, (StringTensorType if array.dtype.kind == "U" else numbers)([None, 1]))
            for name, array in tabular.columns.items()
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return convert_sklearn(
                estimator.fitted,
                initial_types=types,
                target_opset={"": OPSET, ML: ML_OPSET},
                options={"zipmap": False} if estimator.classes is not None else None,
            )
        except CannotChange:
            raise
        except Exception as error:  # of many classes; a part without a converter is a MissingShapeCalculator
            raise CannotChange(f"skl2onnx does not convert it: {first_line(error)}") from error


# -- estimators that skl2onnx leaves to others ------------------------------------------------------------------------


class _Within:
    """A graph that skl2onnx is writing."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope = scope
        self._container = container

    def node(self, kind: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        """See `Graph`."""
        name: str = self._scope.get_unique_variable_name(kind)
        self.named(kind, inputs, name, domain=domain, **attributes)
        return name

    def named(self, kind: str, inputs: Sequence[str], name: str, *, domain: str = "", **attributes: Any) -> None:
        """Add a node whose output is called so."""
        from onnx import helper

        unique = _OURS + self._scope.get_unique_operator_name(kind)
        self._container.nodes.append(
            helper.make_node(kind, list(inputs), [name], name=unique, domain=domain, **attributes)
        )
        self._container.node_domain_version_pair_sets.add((domain, ML_OPSET if domain == ML else OPSET))

    def constant(self, array: Array) -> str:
        """See `Graph`."""
        from onnx import numpy_helper

        name: str = self._scope.get_unique_variable_name("constant")
        self._container.initializers.append(numpy_helper.from_array(as_onnx(array), name))
        return name


def _register() -> None:
    """Tell skl2onnx of the converters here."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    for kind, scores in _kinds():
        is_classifier = hasattr(kind, "predict_proba")
        update_registered_converter(
            kind,
            f"Paceline{kind.__name__}",
            calculate_linear_classifier_output_shapes if is_classifier else calculate_linear_regressor_output_shapes,
            _converter(scores),
            options=_OPTIONS if is_classifier else None,
            parser=_parse_classifier if is_classifier else None,
        )


def _parse_classifier(scope: Any, fitted: Any, inputs: list[Any], **_: Any) -> list[Any]:
    """Labels and probabilities, also of classes that do not derive from scikit-learn's."""
    from skl2onnx.common.data_types import Int64TensorType

    operator = scope.declare_local_operator(f"Paceline{type(fitted).__name__}", fitted)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
    operator.outputs.append(scope.declare_local_variable("probabilities", type(inputs[0].type)()))
    return list(operator.outputs)


def _kinds() -> Iterator[tuple[type, Scores]]:
    """Classes of estimators, as far as they are installed, and how each is written."""
    from importlib import import_module

    for module, names, scores in (
        ("sklearn.ensemble", ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _of_histograms),
        ("xgboost", ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"), _of_xgboost),
        ("lightgbm", ("LGBMClassifier", "LGBMRegressor"), _of_lightgbm),
        ("catboost", ("CatBoostClassifier", "CatBoostRegressor"), _of_catboost),
    ):
        try:
            library = import_module(module)
        except ImportError:
            continue
        yield from ((getattr(library, name), scores) for name in names)


def _converter(write: Scores) -> Callable[[Any, Any, Any], None]:
    def converter(scope: Any, operator: Any, container: Any) -> None:
        graph = _Within(scope, container)
        fitted = operator.raw_operator
        scores, count = write(fitted, graph, operator.inputs[0].full_name)
        outputs = [scores]
        if len(operator.outputs) > 1:
            classes = np.asarray(fitted.classes_)
            kind = np.int64 if classes.dtype.kind in "biuf" else np.str_
            outputs = list(write_classes(graph, scores, count, classes.astype(kind)))
        # What follows may be in double precision, as the inputs are.
        to = operator.inputs[0].type.to_onnx_type().tensor_type.elem_type
        outputs[-1] = graph.node("Cast", [outputs[-1]], to=to if to == _ONNX_DOUBLE else _ONNX_FLOAT)
        for name, output in zip(outputs, operator.outputs, strict=True):
            graph.named("Identity", [name], output.full_name)

    return converter


def _trees(graph: Graph, rows: str, read_model: Any) -> tuple[str, int]:
    ensemble = Ensemble(read_model)
    cast = graph.node("Cast", [rows], to=_ONNX_DOUBLE if ensemble.type == np.float64 else _ONNX_FLOAT)
    return ensemble.write(graph, cast), ensemble.outputs


def _of_histograms(fitted: Any, graph: Graph, rows: str) -> tuple[str, int]:
    from treelite import TreeliteError, sklearn

    try:
        return _trees(graph, rows, sklearn.import_model(fitted))
    except (TreeliteError, NotImplementedError, AssertionError) as error:
        why = str(error) or "another version of scikit-learn"
        raise CannotChange(f"treelite does not read its trees: {why}") from error


def _of_xgboost(fitted: Any, graph: Graph, rows: str) -> tuple[str, int]:
    from paceline.optimize.formats.xgboost import read_trees

    if not np.isnan(fitted.missing):
        raise CannotChange(f"it takes {fitted.missing} for missing, which the trees of ONNX do not")
    booster = fitted.get_booster()
    best = booster.attr("best_iteration")
    iterations = (0, 0) if best is None else (0, int(best) + 1)
    return _trees(graph, rows, read_trees(booster, iterations, str(fitted.objective)))


def _of_lightgbm(fitted: Any, graph: Graph, rows: str) -> tuple[str, int]:
    from paceline.optimize.formats.lightgbm import read_trees

    return _trees(graph, rows, read_trees(fitted.booster_))


def _of_catboost(fitted: Any, graph: Graph, rows: str) -> tuple[str, int]:
    from paceline.optimize.formats.catboost import write
    from paceline.workers.python.boosters import EXPONENTS, loss_of

    return write(graph, graph.node("Cast", [rows], to=_ONNX_FLOAT), fitted, loss_of(fitted) in EXPONENTS)
