"""Which files belong to a model: hashed, weighed and copied together."""

import hashlib
from pathlib import Path

import pytest

from paceline.core.errors import ModelLoadError
from paceline.runtimes import model_files
from support import models

onnx = pytest.importorskip("onnx", reason="the models are ONNX files")


def with_external_data(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = models.mlp(folder / "m.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def test_a_single_file_has_the_hash_of_its_bytes(tmp_path: Path):
    path = models.mlp(tmp_path / "m.onnx")
    assert model_files.files_of(path) == [path]
    assert model_files.digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model_files.size_bytes(path) == path.stat().st_size


def test_external_data_belongs_to_the_model(tmp_path: Path):
    path = with_external_data(tmp_path / "a")
    assert model_files.files_of(path) == [path, path.parent / "m.data"]
    before = model_files.digest(path)
    data = path.parent / "m.data"
    data.write_bytes(data.read_bytes()[:-4] + b"\1\2\3\4")
    assert model_files.digest(path) != before
    copied = model_files.copy(path, tmp_path / "b")
    assert model_files.digest(copied) == model_files.digest(path)


def test_a_folder_is_all_of_its_files_and_their_names(tmp_path: Path):
    for name, variable in (("one", "a"), ("two", "b")):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").write_bytes(b"graph")
        (tmp_path / name / "variables" / variable).write_bytes(b"weights")
    one, two = (model_files.digest(tmp_path / name) for name in ("one", "two"))
    assert one != two
    assert model_files.digest(model_files.copy(tmp_path / "one", tmp_path / "copy")) == one


def test_a_change_is_seen_although_hashes_are_kept(tmp_path: Path):
    path = tmp_path / "rows.npz"
    path.write_bytes(b"one")
    first = model_files.digest(path)
    path.write_bytes(b"other")
    assert model_files.digest(path) != first


def test_what_is_no_file_counts_as_its_text():
    assert model_files.digest(Path("models:make")) != model_files.digest(Path("models:make2"))


def test_data_outside_of_the_folder_is_refused(tmp_path: Path):
    path = with_external_data(tmp_path / "a")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../secret"
    (tmp_path / "secret").write_bytes(b"0" * 100_000)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelLoadError, match="not in the model's folder"):
        model_files.digest(path)
