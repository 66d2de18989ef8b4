"""Is a SavedModel that reaches for more than tensors refused before it runs, and does inspecting it say so?"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from paceline.core.errors import ModelLoadError, UnsafeModel
from paceline.inspection.dispatch import inspect
from paceline.runtimes.base import load
from support import keras_models, saved_model_files, saved_models
from support.inspected import found

pytest.importorskip("tensorflow.python", reason=keras_models.EXTRA)

from paceline.runtimes.savedmodel_file import check
from paceline.runtimes.savedmodel_rules import REACHES_OUT
from paceline.runtimes.savedmodel_sources import WRITES_VARIABLES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_models.make(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_models.made_by(saved_model_files.__file__, tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize(("name", "said"), saved_models.REFUSED.items())
def test_what_reaches_out_is_refused(folder: Path, name: str, said: str) -> None:
    with pytest.raises(UnsafeModel, match=f"the operator {said}") as raised:
        check(folder / name)
    assert raised.value.hint


@pytest.mark.parametrize(("name", "said"), saved_models.REFUSED.items())
def test_inspecting_says_so_without_tensorflow(folder: Path, name: str, said: str) -> None:
    report = inspect(folder / name)
    assert (report.safety, report.serve) == ("unsafe", None)
    assert said in found(report, "unsafe")


@pytest.mark.parametrize(("name", "said"), saved_model_files.ELSEWHERE.items())
def test_a_file_that_is_not_its_own_is_refused(files: Path, name: str, said: str) -> None:
    with pytest.raises(UnsafeModel, match=said) as raised:
        check(files / name)
    assert raised.value.hint
    report = inspect(files / name)
    assert (report.safety, report.serve) == ("unsafe", None)
    assert said in found(report, "unsafe")


@pytest.mark.parametrize(("name", "answer"), saved_model_files.OWN.items())
def test_its_own_files_are_read(files: Path, name: str, answer: int) -> None:
    assert inspect(files / name).safety == "safe"
    (sum_of_places,) = load(files / name).instances(1, 1)[0].run((np.array(b"green", object),))
    assert int(sum_of_places) == answer


@pytest.mark.parametrize("name", saved_models.FINE)
def test_what_saves_and_restores_the_weights_is_no_reason(folder: Path, name: str) -> None:
    check(folder / name)
    assert inspect(folder / name).safety == "safe"


def test_weights_and_words_are_there(folder: Path) -> None:
    (doubled,) = load(folder / "weights").instances(1, 1)[0].run((np.array(b"21", object),))
    assert float(doubled) == 42
    (place,) = load(folder / "vocabulary").instances(1, 1)[0].run((np.array(b"green", object),))
    assert int(place) == 1


def test_a_program_of_xla_computes(folder: Path) -> None:
    (doubled,) = load(folder / "xla").instances(1, 1)[0].run((np.array(b"21", object),))
    assert float(doubled) == 42


def test_a_graph_that_is_not_only_for_serving_is_none(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "weights", tmp_path / "m")
    data = (tmp_path / "m/saved_model.pb").read_bytes()
    (tmp_path / "m/saved_model.pb").write_bytes(data.replace(b"serve", b"other", 1))
    with pytest.raises(ModelLoadError, match="none of its graphs has the tag 'serve'"):
        check(tmp_path / "m")


def test_a_list_of_assets_that_is_none_is_told(files: Path, tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(files / "of_version_1", tmp_path / "m")
    saved = saved_model_pb2.SavedModel.FromString((tmp_path / "m/saved_model.pb").read_bytes())
    (asset,) = saved.meta_graphs[0].collection_def["saved_model_assets"].any_list.value
    asset.value = b"\xff"
    (tmp_path / "m/saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(ModelLoadError, match="the list of its assets is none"):
        check(tmp_path / "m")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        inspect(tmp_path / "m")


def test_every_operator_of_the_table_is_one_of_tensorflow_s() -> None:
    from tensorflow.python.framework import op_def_registry

    names = {*REACHES_OUT, *WRITES_VARIABLES}
    assert [name for name in names if op_def_registry.get(name) is None] == []
