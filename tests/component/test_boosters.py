"""Does a file of XGBoost, LightGBM or CatBoost answer as the estimator that it was written by?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.core.errors import ModelLoadError
from paceline.inspection.dispatch import inspect
from paceline.runtimes.formats import identify
from paceline.workers.frames import Setup
from paceline.workers.python import boosters
from paceline.workers.python.estimators import Estimator, service_of
from paceline.workers.python.service import TensorService
from paceline.workers.service import is_service
from support.boosters import CANCER, DIABETES, FILES, IRIS, by, estimator, holes, save, trained

pytestmark = pytest.mark.slow
DATA = {"two classes": CANCER, "three classes": IRIS, "numbers": DIABETES}
each_library = pytest.mark.parametrize("library", FILES)


def service(path: Path) -> TensorService:
    """Ready to be asked."""
    found = boosters.format_of(path)
    assert found is not None
    made = service_of(Estimator(boosters.load(path, found.name)), [])
    assert isinstance(made, TensorService)
    made.about.outputs = made.setup_tensors(Setup(1)).outputs
    return made


def ask(path: Path, rows: Any) -> dict[str, Any]:
    made = service(path)
    columns = (rows,) if len(made.about.inputs) == 1 else tuple(rows.T.copy())
    return dict(zip([each.name for each in made.about.outputs], made.predict_tensors(columns), strict=True))


@each_library
@pytest.mark.parametrize("data", DATA)
def test_a_file_answers_as_its_estimator(tmp_path: Path, library: str, data: str) -> None:
    path, fitted = trained(library, tmp_path, DATA[data])
    rows = holes(DATA[data][0])
    got, wanted = ask(path, rows), by(fitted, rows)
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-6, atol=1e-7)


@each_library
def test_the_inputs_are_one_matrix_where_columns_have_no_names(tmp_path: Path, library: str) -> None:
    path, _ = trained(library, tmp_path, IRIS)
    about = service(path).about
    assert [(each.name, each.datatype, each.shape) for each in about.inputs] == [("input", "FP64", [-1, 4])]
    assert about.platform == library
    assert f"({library}): 4 numbers -> label, probabilities" in about.says[0]
    assert about.outputs[1].labels == ["0", "1", "2"]


@each_library
def test_named_columns_are_inputs_of_their_own(tmp_path: Path, library: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS[0], columns=["a", "b", "c", "d"])
    fitted = estimator(library, True).fit(frame, IRIS[1])
    path = save(fitted, tmp_path)
    assert [each.name for each in service(path).about.inputs] == ["a", "b", "c", "d"]
    np.testing.assert_allclose(ask(path, IRIS[0])["probabilities"], fitted.predict_proba(frame), atol=1e-7)


@each_library
def test_a_file_is_known_by_its_contents_and_needs_workers(tmp_path: Path, library: str) -> None:
    path, _ = trained(library, tmp_path)
    assert identify(path).name == library
    assert not identify(path).is_pickle
    assert is_service(path)


def test_json_of_xgboost_is_told_from_other_json(tmp_path: Path) -> None:
    _, fitted = trained("xgboost", tmp_path)
    path = tmp_path / "model.json"
    fitted.save_model(path)
    assert is_service(path)
    rows = CANCER[0]
    np.testing.assert_allclose(ask(path, rows)["probabilities"], fitted.predict_proba(rows), atol=1e-7)
    path.write_text('{"version": [3, 2, 0], "name": "learner of words"}')
    assert not is_service(path)


@pytest.mark.parametrize("objective", ["multi:softmax", "multi:softprob"])
def test_classes_of_xgboost_have_probabilities_whatever_it_was_trained_to_say(tmp_path: Path, objective: str) -> None:
    path, fitted = trained("xgboost", tmp_path, IRIS, objective=objective)
    got = ask(path, IRIS[0])
    np.testing.assert_allclose(got["probabilities"], fitted.predict_proba(IRIS[0]), atol=1e-6)
    assert got["label"].tolist() == fitted.predict(IRIS[0]).tolist()


def test_a_linear_model_of_xgboost_is_served(tmp_path: Path) -> None:
    path, fitted = trained("xgboost", tmp_path, DIABETES, booster="gblinear")
    np.testing.assert_allclose(ask(path, DIABETES[0])["prediction"], fitted.predict(DIABETES[0]), rtol=1e-5)


def test_counts_of_catboost_are_no_logarithms(tmp_path: Path) -> None:
    path, fitted = trained("catboost", tmp_path, DIABETES, loss_function="Poisson")
    np.testing.assert_allclose(ask(path, DIABETES[0])["prediction"], fitted.predict(DIABETES[0]))
    assert ask(path, DIABETES[0])["prediction"].mean() == pytest.approx(DIABETES[1].mean(), rel=0.2)


def test_the_best_iteration_answers(tmp_path: Path) -> None:
    fitted = estimator("xgboost", True, n_estimators=200, early_stopping_rounds=2)
    fitted.fit(IRIS[0][::2], IRIS[1][::2], eval_set=[(IRIS[0][1::2], IRIS[1][1::2])], verbose=0)
    assert fitted.best_iteration < 150
    got = ask(save(fitted, tmp_path), IRIS[0])["probabilities"]
    np.testing.assert_allclose(got, fitted.predict_proba(IRIS[0]), atol=1e-7)


def test_categories_of_catboost_are_items_by_name(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"city": ["Bonn", "Ulm"] * 20, "age": range(40)})
    fitted = estimator("catboost", True, cat_features=["city"]).fit(frame, ["no", "yes"] * 20)
    found = boosters.load(save(fitted, tmp_path), "catboost")
    made: Any = service_of(Estimator(found), [])
    made.setup(Setup(1))
    answers = made.predict([{"age": 3, "city": "Ulm"}, {"age": 4, "city": "Bonn"}, {"age": 4, "city": "Rome"}])
    assert [each["label"] for each in answers[:2]] == ["yes", "no"]
    assert answers[0]["probabilities"]["yes"] == pytest.approx(fitted.predict_proba([["Ulm", 3]])[0, 1])


# -- what is no model -------------------------------------------------------------------------------------------------


@each_library
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, library: str) -> None:
    path, _ = trained(library, tmp_path)
    content = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ModelLoadError, match=rf"{path.name}: cannot be loaded by {library}: .+") as refused:
            boosters.load(path, library)
        assert "\n" not in refused.value.message


@pytest.mark.parametrize("ending", ["ubj", "json"])
def test_long_notes_of_xgboost_do_no_harm(tmp_path: Path, ending: str) -> None:
    _, fitted = trained("xgboost", tmp_path)
    booster, path = fitted.get_booster(), tmp_path / f"notes.{ending}"
    booster.set_attr(notes="x" * (2 << 20))
    booster.save_model(path)
    assert boosters.load(path, "xgboost").n_features_in_ == fitted.n_features_in_
    assert inspect(path).safety == "safe"


def test_json_that_only_looks_like_xgboost_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    path = tmp_path / "model.json"
    path.write_text('{"learner": {"attributes": {}}, "version": [3, 2, 0]}')
    assert identify(path).name == "xgboost"
    with pytest.raises(ModelLoadError, match="cannot be loaded by xgboost"):
        boosters.load(path, "xgboost")
