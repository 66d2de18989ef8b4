"""Do the models of XGBoost, LightGBM and CatBoost answer the same in ONNX, whatever they were trained to say?"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.core.errors import CannotChange
from paceline.optimize.data.rows import Rows
from paceline.optimize.result import Converted
from paceline.runtimes.base import load
from paceline.runtimes.onnx import OnnxModel
from support.boosters import CANCER, DIABETES, FILES, IRIS, estimator, holes, save, trained

for package in ("onnx", "treelite"):
    pytest.importorskip(package, reason="pip install 'paceline[convert]'")
pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(1)
GROUPED = np.c_[RANDOM.integers(0, 40, 600), RANDOM.normal(size=(600, 2))]
"""A column of categories, and two of numbers."""
IN_GROUPS = ((GROUPED[:, 0] % 3 == 0) ^ (GROUPED[:, 1] > 0)).astype(int)
PAIRS = (DIABETES[0], np.c_[DIABETES[1], -DIABETES[1]])

XGBOOST: dict[str, tuple[Any, dict[str, Any]]] = {
    "binary": (CANCER, {}),
    "hinge": (CANCER, {"objective": "binary:hinge"}),
    "softmax": (IRIS, {"objective": "multi:softmax"}),
    "softprob": (IRIS, {"objective": "multi:softprob"}),
    "regression": (DIABETES, {}),
    "poisson": (DIABETES, {"objective": "count:poisson"}),
    "gamma": (DIABETES, {"objective": "reg:gamma"}),
    "absolute": (DIABETES, {"objective": "reg:absoluteerror"}),
    "dart": (DIABETES, {"booster": "dart", "rate_drop": 0.3}),
    "random forest": (IRIS, {"num_parallel_tree": 4, "subsample": 0.5, "n_estimators": 2}),
    "one tree": (DIABETES, {"n_estimators": 1, "max_depth": 1}),
}
LIGHTGBM: dict[str, tuple[Any, dict[str, Any]]] = {
    "binary": (CANCER, {}),
    "sigmoid": (CANCER, {"sigmoid": 2.5}),
    "classes": (IRIS, {}),
    "one against all": (IRIS, {"objective": "multiclassova"}),
    "regression": (DIABETES, {}),
    "square roots": (DIABETES, {"reg_sqrt": True}),
    "poisson": (DIABETES, {"objective": "poisson"}),
    "huber": (DIABETES, {"objective": "huber"}),
    "dart": (DIABETES, {"boosting_type": "dart"}),
    "random forest": (IRIS, {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}),
}
CATBOOST: dict[str, tuple[Any, dict[str, Any]]] = {
    "binary": (CANCER, {}),
    "missing is large": (CANCER, {"nan_mode": "Max"}),
    "classes": (IRIS, {}),
    "one against all": (IRIS, {"loss_function": "MultiClassOneVsAll"}),
    "regression": (DIABETES, {}),
    "poisson": (DIABETES, {"loss_function": "Poisson"}),
}


def converted(path: Path, rows: Any, library: str, names: list[str] | None = None) -> Converted:
    """What the step returns; its model lies beside the file."""
    columns = {"input": rows} if names is None else dict(zip(names, rows.T, strict=True))
    Rows(columns).save(path.parent / "rows.npz")
    convert = import_module(f"paceline.optimize.formats.{library}").convert
    made: Converted = convert(model=path, rows=path.parent / "rows.npz", folder=path.parent, allow_pickle=False)
    return made


def equal(made: Converted) -> bool:
    return (made.equality.rows_apart, made.equality.largest_error < 1e-3) == (0, True)


@pytest.mark.parametrize("case", XGBOOST)
def test_xgboost(tmp_path: Path, case: str) -> None:
    data, parameters = XGBOOST[case]
    # Trained on rows with holes: so missing values go both ways.
    path, _ = trained("xgboost", tmp_path, data if data is DIABETES else (holes(data[0]), data[1]), **parameters)
    assert equal(converted(path, holes(data[0]), "xgboost"))


@pytest.mark.parametrize("case", LIGHTGBM)
def test_lightgbm(tmp_path: Path, case: str) -> None:
    data, parameters = LIGHTGBM[case]
    path, _ = trained("lightgbm", tmp_path, data if data is DIABETES else (holes(data[0]), data[1]), **parameters)
    assert equal(converted(path, holes(data[0]), "lightgbm"))


@pytest.mark.parametrize("case", CATBOOST)
def test_catboost(tmp_path: Path, case: str) -> None:
    data, parameters = CATBOOST[case]
    path, _ = trained("catboost", tmp_path, data if data is DIABETES else (holes(data[0]), data[1]), **parameters)
    assert equal(converted(path, holes(data[0]), "catboost"))


def test_lightgbm_where_no_value_was_missing(tmp_path: Path) -> None:
    path, _ = trained("lightgbm", tmp_path, CANCER)
    assert equal(converted(path, holes(CANCER[0]), "lightgbm"))


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_xgboost_of_two_targets(tmp_path: Path, strategy: str) -> None:
    fitted = estimator("xgboost", False, multi_strategy=strategy).fit(*PAIRS)
    made = converted(save(fitted, tmp_path), PAIRS[0], "xgboost")
    assert equal(made)
    assert load(tmp_path / made.file).signature.outputs[0].shape == (-1, 2)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_categories_also_such_as_were_never_seen(tmp_path: Path, library: str) -> None:
    if library == "xgboost":
        fitted = estimator(library, True, feature_types=["c", "q", "q"], enable_categorical=True, max_cat_to_onehot=2)
        fitted.fit(GROUPED, IN_GROUPS)
    else:
        fitted = estimator(library, True, min_data_per_group=2, cat_smooth=1, max_cat_to_onehot=1)
        fitted.fit(GROUPED, IN_GROUPS, categorical_feature=[0])
    rows = np.r_[GROUPED, np.c_[np.arange(60), np.zeros((60, 2))]]
    rows[::11, 0] = np.nan
    assert equal(converted(save(fitted, tmp_path), rows, library))


@pytest.mark.parametrize("library", FILES)
def test_named_columns_stay_inputs_of_their_own(tmp_path: Path, library: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS[0], columns=["a", "b", "c", "d"])
    path = save(estimator(library, True).fit(frame, IRIS[1]), tmp_path)
    made = converted(path, IRIS[0], library, ["a", "b", "c", "d"])
    assert equal(made)
    signature = load(tmp_path / made.file).signature
    assert [(each.name, each.shape) for each in signature.inputs] == [(name, (-1,)) for name in "abcd"]


@pytest.mark.parametrize("library", FILES)
def test_the_file_names_its_classes_and_has_open_rows(tmp_path: Path, library: str) -> None:
    path, _ = trained(library, tmp_path, IRIS)
    made = converted(path, IRIS[0], library)
    model = load(tmp_path / made.file)
    assert isinstance(model, OnnxModel)
    (instance,) = model.instances(1, 1)
    row = IRIS[0][:1].astype(model.signature.inputs[0].datatype.dtype)
    assert instance.labels((row,)) == [(), ("0", "1", "2")]  # type: ignore[attr-defined]
    assert [each.name for each in model.signature.outputs] == ["label", "probabilities"]
    assert model.signature.batched


def test_the_best_iteration_is_converted(tmp_path: Path) -> None:
    fitted = estimator("xgboost", True, n_estimators=200, early_stopping_rounds=2)
    fitted.fit(IRIS[0][::2], IRIS[1][::2], eval_set=[(IRIS[0][1::2], IRIS[1][1::2])], verbose=0)
    assert equal(converted(save(fitted, tmp_path), IRIS[0], "xgboost"))


@pytest.mark.parametrize(
    ("library", "parameters", "said"),
    [
        ("xgboost", {"booster": "gblinear"}, "it is a linear model of XGBoost"),
        ("lightgbm", {"linear_tree": True}, "its leaves are linear models"),
        ("lightgbm", {"zero_as_missing": True}, "it takes zeros for missing"),
        ("catboost", {"grow_policy": "Lossguide"}, "CatBoost does not export this model: .+oblivious"),
    ],
)
def test_what_onnx_has_not_is_refused_by_name(tmp_path: Path, library: str, parameters: Any, said: str) -> None:
    rows = np.where(DIABETES[0] > 0.03, 0, DIABETES[0])
    path, _ = trained(library, tmp_path, (rows, DIABETES[1]), **parameters)
    with pytest.raises(CannotChange, match=said):
        converted(path, rows, library)
    assert not (tmp_path / "model.onnx").exists()
