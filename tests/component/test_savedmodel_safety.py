"""Is a SavedModel that reaches for more than tensors refused before it runs, and does inspecting it say so?"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.core.errors import ModelLoadError, UnsafeModel
from paceline.inspection import savedmodel_graph as read_by_hand
from paceline.inspection.dispatch import inspect
from paceline.runtimes.base import load
from support import keras_models, saved_model_files, saved_models
from support.inspected import found
from support.written_twice import written_twice

pytest.importorskip("tensorflow.python", reason=keras_models.EXTRA)

from paceline.runtimes.savedmodel_file import check, graph_of
from paceline.runtimes.savedmodel_rules import REACHES_OUT
from paceline.runtimes.savedmodel_sources import WRITES_VARIABLES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_models.make(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_models.made_by(saved_model_files.__file__, tmp_path_factory.mktemp("files"))


def edited(folder: Path, to: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a model, with its first graph changed."""
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(folder, to)
    saved = saved_model_pb2.SavedModel.FromString((to / "saved_model.pb").read_bytes())
    change(saved.meta_graphs[0])
    (to / "saved_model.pb").write_bytes(saved.SerializeToString())
    return to


def assert_refused(model: Path, said: str) -> None:
    with pytest.raises(UnsafeModel, match=said) as raised:
        check(model)
    assert raised.value.hint
    report = inspect(model)
    assert (report.safety, report.serve) == ("unsafe", None)
    assert said in found(report, "unsafe")


@pytest.mark.parametrize(("name", "said"), saved_models.REFUSED.items())
def test_what_reaches_out_is_refused(folder: Path, name: str, said: str) -> None:
    assert_refused(folder / name, said)


@pytest.mark.parametrize(("name", "said"), saved_model_files.ELSEWHERE.items())
def test_a_file_that_is_not_its_own_is_refused(files: Path, name: str, said: str) -> None:
    assert_refused(files / name, said)


def test_inspecting_reads_every_graph_as_tensorflow_s_reader_does(folder: Path, files: Path) -> None:
    models = sorted(each.parent for where in (folder, files) for each in where.glob("*/saved_model.pb"))
    assert len(models) > len(saved_models.REFUSED) + len(saved_model_files.ELSEWHERE)
    assert [each.name for each in models if read_by_hand.graph_of(each) != graph_of(each)] == []


@pytest.mark.parametrize(
    "name", ["saves", "main_op", "restoring", "replacing", "gradient", "one_table", "of_version_1"]
)
def test_what_is_there_twice_is_read_as_tensorflow_s_reader_does(
    folder: Path, files: Path, tmp_path: Path, name: str
) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    given = (files if name in saved_model_files.OWN else folder) / name
    shutil.copytree(given, tmp_path / "m")
    saved = saved_model_pb2.SavedModel.FromString((given / "saved_model.pb").read_bytes())
    (tmp_path / "m/saved_model.pb").write_bytes(written_twice(saved))
    assert graph_of(given) == graph_of(tmp_path / "m") == read_by_hand.graph_of(tmp_path / "m")
    if name in saved_models.REFUSED:
        assert_refused(tmp_path / "m", saved_models.REFUSED[name])


def test_a_name_too_long_to_be_compared_is_told(folder: Path, tmp_path: Path) -> None:
    def lengthen(graph: Any) -> None:
        graph.graph_def.node.add(name="n" * 5000, op="NoOp")

    report = inspect(edited(folder / "weights", tmp_path / "m", lengthen))
    assert report.safety == "unknown"
    assert "a name of 5000 bytes" in found(report, "unknown")


@pytest.mark.parametrize("name", saved_model_files.OWN)
def test_a_name_of_a_file_that_leads_out_of_the_folder_is_refused(files: Path, tmp_path: Path, name: str) -> None:
    def lead_out(graph: Any) -> None:
        if graph.asset_file_def:
            graph.asset_file_def[0].filename = "../../words.txt"
            return
        (packed,) = graph.collection_def["saved_model_assets"].any_list.value
        packed.value = packed.value.replace(b"words.txt", b"../../w.t")

    assert_refused(edited(files / name, tmp_path / "m", lead_out), "a file of it is not in its folder")


@pytest.mark.parametrize("link", ["assets/words.txt", "variables/more"])
def test_a_link_out_of_the_folder_is_refused(files: Path, tmp_path: Path, link: str) -> None:
    shutil.copytree(files / "one_table", tmp_path / "m")
    (tmp_path / "m" / link).unlink(missing_ok=True)
    (tmp_path / "m" / link).symlink_to(files / "words.txt")
    assert_refused(tmp_path / "m", "a file of it is not in its folder")


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
    assert "none of its graphs has the tag 'serve'" in found(inspect(tmp_path / "m"), "odd")


def test_a_list_of_assets_that_is_none_is_told(files: Path, tmp_path: Path) -> None:
    def spoil(graph: Any) -> None:
        (asset,) = graph.collection_def["saved_model_assets"].any_list.value
        asset.value = b"\xff"

    edited(files / "of_version_1", tmp_path / "m", spoil)
    with pytest.raises(ModelLoadError, match="the list of its assets is none"):
        check(tmp_path / "m")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        inspect(tmp_path / "m")


def test_every_operator_of_the_table_is_one_of_tensorflow_s() -> None:
    from tensorflow.python.framework import op_def_registry

    names = {*REACHES_OUT, *WRITES_VARIABLES}
    assert [name for name in names if op_def_registry.get(name) is None] == []
