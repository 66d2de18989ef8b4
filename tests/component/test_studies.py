"""Whole studies of small models, in this process: what they try, what they tell, and what they keep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from paceline.config.machine import usable_cores
from paceline.core.errors import ConfigError
from paceline.optimize.judging import gate
from paceline.optimize.result import Study, Tried
from paceline.optimize.studying import study
from paceline.optimize.wanted import Wanted
from support import digits, models
from support.studies import Silent

pytestmark = pytest.mark.slow


class Listener(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def studied(
    folder: Path, model: Path, rows: np.ndarray, told: Listener | None = None, threads: int | None = 1, **asked: Any
) -> Study:
    np.save(folder / "rows.npy", rows)
    wanted = Wanted(model=str(model), data=folder / "rows.npy", out=folder / "out", threads=threads, **asked)
    return study.run(wanted, told or Silent())


def named(found: Study) -> dict[str, Tried]:
    return {each.candidate.name: each for each in found.candidates}


def told(found: Study, words: str) -> list[str]:
    """The candidates that are told of with these words; "" for the warnings."""
    texts = [("", each) for each in found.warnings]
    texts += [(tried.candidate.name, each) for tried in found.candidates for each in tried.reasons]
    return [name for name, text in texts if words in text]


def written(folder: Path, pattern: str) -> dict[str, int]:
    """When each of these files of a study was written."""
    return {str(each): each.stat().st_mtime_ns for each in (folder / "out" / "study").glob(pattern)}


def one_row(path: Path) -> Path:
    """A network whose file says that it takes one row."""
    model = onnx.load(str(models.mlp(path, (16, 32, 4))))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(path))
    return path


def averaged(path: Path) -> Path:
    """Less the mean over the batch: with one row nothing is left, with more something is."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return models.save(path, nodes, [("x", T.FLOAT, [1, 16])], [("y", T.FLOAT, [1, 16])])


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 16)).astype(np.float32)


def test_the_batch_is_opened_once_for_all_candidates_with_all_rows(tmp_path: Path):
    # A fifth of ten rows is for calibration: too few to compare batches of three.
    found = studied(tmp_path, one_row(tmp_path / "m.onnx"), noise(10), only=("open-batch", "int8-dynamic"))
    tried = named(found)
    assert tried["open-batch"].candidate.changes == ()
    assert tried["open-batch"].judgement is not None
    assert tried["int8-dynamic"].judgement is not None, tried["int8-dynamic"].reasons
    assert len(written(tmp_path, "steps/dynamic_batch.opened-*/outcome.json")) == 1
    assert told(found, "batch dimension opened") == ["open-batch"]


@pytest.mark.parametrize(("make", "words"), [(one_row, "batch dimension opened"), (averaged, "stays fixed at 1")])
def test_where_no_candidate_is_just_the_onnx_model_it_is_a_warning_how_that_came_about(
    tmp_path: Path, make: Callable[[Path], Path], words: str
):
    found = studied(tmp_path, make(tmp_path / "m.onnx"), noise(10), skip=("*",))
    assert told(found, words) == [""]


def test_a_study_that_goes_on_has_the_rows_that_it_began_with(tmp_path: Path):
    model = models.mlp(tmp_path / "m.onnx", (16, 2048, 2048, 4))
    runs, records, told_of = [], [], []
    for _ in range(2):
        listener = Listener()
        asked = {"only": ("int8-dynamic",), "max_drop": gate.parse_drop("0.01%"), "budget_s": 20.0}
        runs.append(studied(tmp_path, model, noise(30_000), listener, **asked))
        told_of.append(listener.said)
        records.append(written(tmp_path, "records/*.json"))
    counts = [each.data["evaluation_rows"] for each in runs]
    assert counts[0] == counts[1] < 20_000
    for each in runs:
        assert named(each)["int8-dynamic"].status == "rejected", named(each)["int8-dynamic"].reasons
        assert told(each, f"judged on {counts[0]:,} of") == [""]
    assert len(records[0]) == 1
    assert records[0] == records[1], "what came of the candidate is known"
    assert told_of == [[], ["going on: 1 of 1 were done before"]]


def test_what_is_converted_is_compared_with_no_more_rows_than_fit_into_the_budget(tmp_path: Path):
    pytest.importorskip("skl2onnx", reason="scikit-learn's models become ONNX by skl2onnx")
    forest = digits.save_forest(tmp_path / "forest.joblib", trees=100)
    rows = np.tile(digits.data()[0], (5, 1))
    found = studied(tmp_path, forest, rows, skip=("*",), budget_s=6.0, allow_pickle=True)
    assert found.equality is not None, found.warnings
    assert found.equality.rows == found.data["evaluation_rows"] < len(rows) / 2


def test_times_and_ratios_say_the_same(tmp_path: Path):
    model = models.mlp(tmp_path / "m.onnx", (16, 512, 512, 4))
    found = studied(tmp_path, model, noise(100), only=("int8-dynamic",), max_drop=gate.parse_drop("90%"), batches=(8,))
    first, second = found.candidates[:2]
    old = {each.batch: each.median_s for each in first.speeds}
    assert second.speeds
    for each in second.speeds:
        assert each.median_s * each.ratio == pytest.approx(old[each.batch])
        assert each.rows_per_s == pytest.approx(each.batch / each.median_s)


def test_a_budget_that_is_too_short_cuts_no_step_that_is_needed_to_begin_with(tmp_path: Path):
    pytest.importorskip("skl2onnx", reason="scikit-learn's models become ONNX by skl2onnx")
    forest = digits.save_forest(tmp_path / "forest.joblib")
    found = studied(tmp_path, forest, digits.data()[0], threads=None, budget_s=1.0, allow_pickle=True)
    assert found.equality is not None, found.warnings
    assert told(found, "with one thread alone") == (["original"] if usable_cores().whole > 1 else [])
    late = named(found)["onnx"]
    assert (late.status, late.foreseen_s is not None) == ("skipped", True)


def test_a_wrong_name_is_noticed_before_anything_is_loaded(tmp_path: Path):
    with pytest.raises(ConfigError, match="no candidate is called 'int4'"):
        studied(tmp_path, tmp_path / "there is no such file.onnx", noise(10), only=("int4",))
    assert not (tmp_path / "out").exists()


def test_the_first_row_that_was_judged_is_the_bundle_s_example(tmp_path: Path):
    given = noise(10)
    given[:5, 3] = np.nan
    studied(tmp_path, models.mlp(tmp_path / "m.onnx", (16, 32, 4)), given, skip=("*",))
    example = json.loads(json.loads((tmp_path / "out" / "bundle.json").read_text())["example"])
    assert np.array(example, np.float32).tolist() in given[5:].tolist()
