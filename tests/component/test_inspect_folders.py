"""`paceline inspect` on bundles, folders, code, bombs and what is no model."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest

from paceline.core.errors import ModelLoadError, RuntimeUnavailable
from paceline.inspection.dispatch import inspect
from support import bundles, models
from support.inspected import found, tensors


@pytest.mark.slow
def test_fault_101_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(1 << 28))
    with pytest.raises(ModelLoadError, match="a bomb"):
        inspect(tmp_path / "m.keras")


def test_a_long_configuration_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("paceline.inspection.keras._MOST_CONFIG_BYTES", 10)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential"}))
    with pytest.raises(ModelLoadError, match="at most 10 are read"):
        inspect(tmp_path / "m.keras")


def test_a_deep_document_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.skops", "w") as archive:
        archive.writestr("schema.json", "[" * 100_000)
    with pytest.raises(ModelLoadError, match=r"schema\.json"):
        inspect(tmp_path / "m.skops")


def test_a_folder_of_models(tmp_path):
    for name, version in (("a", "1"), ("a", "2"), ("b", "7")):
        (tmp_path / name / version).mkdir(parents=True)
        models.mlp(tmp_path / name / version / "model.onnx", sizes=(4, int(version)))
    report = inspect(tmp_path)
    assert (report.format, report.about["models"]) == ("repository", "a (1, 2), b (7)")
    assert [tensors(each)[1][2] for each in report.contains] == [["N", 2], ["N", 7]]
    with pytest.raises(ModelLoadError, match="no model in this folder"):
        inspect(tmp_path / "a" / "1")


def test_a_folder_is_safe_if_all_of_its_versions_are(tmp_path):
    for version in ("1", "2", "3"):
        (tmp_path / "m" / "m" / version).mkdir(parents=True)
        models.mlp(tmp_path / "m" / "m" / version / "model.onnx", sizes=(4, 2))
    report = inspect(tmp_path / "m")
    assert (report.safety, len(report.contains)) == ("safe", 1)
    (tmp_path / "m" / "m" / "1" / "model.onnx").write_bytes(b"no model")
    report = inspect(tmp_path / "m")
    assert report.safety == "unknown"
    assert "m, version 1: " in found(report, "unknown")
    (tmp_path / "m" / "m" / "1" / "model.onnx").unlink()
    (tmp_path / "m" / "m" / "1" / "model.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    report = inspect(tmp_path / "m")
    assert (report.safety, [each.format for each in report.contains]) == ("unsafe", ["onnx", "pickle"])


def test_versions_that_are_not_looked_at_are_not_called_safe(tmp_path, monkeypatch):
    monkeypatch.setattr("paceline.inspection.folders._MOST_VERSIONS", 2)
    for version in ("1", "2", "3"):
        (tmp_path / "m" / version).mkdir(parents=True)
        models.mlp(tmp_path / "m" / version / "model.onnx", sizes=(4, 2))
    report = inspect(tmp_path)
    assert (report.safety, found(report, "unknown")) == ("unknown", "1 of its versions are not looked at")


def test_a_bundle_is_one_whatever_else_lies_in_its_folder(tmp_path):
    bundles.make(tmp_path / "b")
    (tmp_path / "b" / "saved_model.pb").write_bytes(b"")
    assert inspect(tmp_path / "b").format == "bundle"


def test_a_bundle_of_a_pickle_is_served_with_leave(tmp_path):
    bundles.make(tmp_path / "b", lambda path: path.write_bytes(pickle.dumps(complex(1, 2))), "model-1/m.pkl")
    report = inspect(tmp_path / "b")
    assert report.contains[0].serve == f"paceline serve {tmp_path / 'b' / 'model-1' / 'm.pkl'} --allow-pickle"
    assert report.serve == f"paceline serve {tmp_path / 'b'} --allow-pickle"


def test_code_is_read_and_not_imported(tmp_path):
    path = tmp_path / "service.py"
    path.write_text(
        "import numpy.linalg\nfrom pathlib import Path\nPath('created').touch()\n"
        "class Shout:\n    def setup(self): ...\n    def predict(self, batch): return batch\n"
    )
    (tmp_path / "requirements.txt").write_text("# ours\nnumpy>=2\n")
    report = inspect(path)
    assert report.about["contract"] == "class Shout: setup, predict"
    assert report.about["requirements"] == "numpy>=2"
    assert report.operators == {"numpy": 1, "pathlib": 1}
    assert report.safety == "unknown"
    assert not Path("created").exists()
    assert inspect(Path(f"{path}:Shout")).serve == f"paceline serve {path}:Shout"


@pytest.mark.parametrize("text", ["def f(:", "(" * 100_000, "x = '\0'", "-" * 200_000 + "1"])
def test_python_that_is_none(tmp_path, text):
    (tmp_path / "m.py").write_text(text)
    with pytest.raises(ModelLoadError):
        inspect(tmp_path / "m.py")


def test_code_in_r(tmp_path):
    (tmp_path / "model.R").write_text("library(stats)\npredict_fn <- function(df, n = 3) df\n")
    report = inspect(tmp_path / "model.R")
    assert report.about["contract"] == "function predict_fn(df, n = 3)"
    assert report.operators == {"stats": 1}
    assert not found(report, "odd")


def test_what_is_no_model_says_what_is(tmp_path):
    (tmp_path / "notes.doc").write_text("hello")
    with pytest.raises(RuntimeUnavailable) as caught:
        inspect(tmp_path / "notes.doc")
    assert "ONNX" in (caught.value.hint or "")
    with pytest.raises(ModelLoadError, match="no such file"):
        inspect(tmp_path / "none.onnx")


@pytest.mark.parametrize("name", ["lambda.h5", "lambda.keras", "weights.bin"])
def test_hdf5_is_not_read_and_so_not_called_safe(tmp_path, name):
    h5py = pytest.importorskip("h5py", reason="the extra tensorflow is not installed")
    with h5py.File(tmp_path / name, "w") as file:
        layer = {"class_name": "Lambda", "config": {"name": "code", "function": ["4wEAAAA=", None, None]}}
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}})
    report = inspect(tmp_path / name)
    assert (report.format, report.safety, report.serve, report.optimize) == ("hdf5", "unknown", None, None)
    assert "HDF5" in found(report, "unknown")


def test_a_bundle_shows_the_model_in_it(tmp_path):
    from paceline.runtimes.bundle import Bundle, Provenance, write

    models.mlp(tmp_path / "model.onnx")
    provenance = Provenance(
        source="m.pkl", source_sha256="0", sha256={}, machine={}, versions={"onnxruntime": "1.0"}, created="now"
    )
    write(tmp_path, Bundle(name="mlp", model="model.onnx", settings={"threads": 2}, provenance=provenance))
    report = inspect(tmp_path)
    assert (report.format, report.about["from"], report.about["setting threads"]) == ("bundle", "m.pkl", 2)
    assert tensors(report)[0][0] == "x"
    assert [each.format for each in report.contains] == ["onnx"]
    assert report.serve == f"paceline serve {tmp_path}"
    shutil.copy(tmp_path / "bundle.json", tmp_path / "copy.json")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelLoadError):
        inspect(tmp_path)
