"""Which format is a file in? Told by its name and its first bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.core.errors import ModelLoadError, RuntimeUnavailable
from paceline.runtimes.base import load
from paceline.runtimes.formats import FORMATS, identify, is_model_folder
from paceline.runtimes.options import RuntimeOptions
from support.models import identity

HEADS = {
    "m.onnx": ("onnx", b"\x08\x08"),
    "m.xml": ("openvino", b'<?xml version="1.0"?>\n<net name="m" version="11">'),
    "m.keras": ("keras", b"PK\x03\x04"),
    "m.pt2": ("pt2", b"PK\x03\x04"),
    "m.PT": ("torchscript", b"PK\x03\x04"),
    "m.pth": ("torchscript", b"PK\x03\x04"),
    "m.ubj": ("xgboost", b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L"),
    "m.json": ("xgboost", b'{"learner":{"attributes":{}}'),
    "m.txt": ("lightgbm", b"tree\nversion=v4\n"),
    "m.cbm": ("catboost", b"CBM1"),
    "m.pkl": ("pickle", b"\x80\x04"),
    "m.joblib": ("pickle", b"\x80\x04"),
    "m.skops": ("skops", b"PK\x03\x04"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_file_is_told_by_its_ending_and_its_first_bytes(tmp_path, name):
    format_name, head = HEADS[name]
    (tmp_path / name).write_bytes(head)
    assert identify(tmp_path / name).name == format_name


@pytest.mark.parametrize(
    ("name", "head"),
    [("m.xml", b"<html>"), ("m.json", b'{"a": 1}'), ("m.txt", b"setosa\n"), ("m.cbm", b"no"), ("m", b"")],
)
def test_what_is_none_of_them_says_which_there_are(tmp_path, name, head):
    (tmp_path / name).write_bytes(head)
    with pytest.raises(RuntimeUnavailable, match="not a format that can be served") as caught:
        identify(tmp_path / name)
    for each in FORMATS:
        assert each.title in (caught.value.hint or "")


def test_folders(tmp_path):
    for name in ("saved_model.pb", "model.onnx"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"")
    assert identify(tmp_path / "saved_model.pb").name == "savedmodel"
    assert is_model_folder(tmp_path / "saved_model.pb")
    assert not is_model_folder(tmp_path / "model.onnx")
    with pytest.raises(ModelLoadError, match="expected a file, got a folder"):
        identify(tmp_path / "model.onnx")
    with pytest.raises(ModelLoadError, match="no such model file"):
        identify(tmp_path / "none.onnx")


def test_a_runtime_that_does_not_read_a_format_is_refused_before_it_is_imported(tmp_path):
    model = identity(tmp_path / "m.onnx")
    with pytest.raises(RuntimeUnavailable, match="tensorflow does not read ONNX") as caught:
        load(model, RuntimeOptions(runtime="tensorflow"))
    assert caught.value.hint == "what reads it: onnxruntime, openvino"


def test_every_title_and_every_ending_is_there_once():
    assert len({each.title for each in FORMATS}) == len(FORMATS)
    endings = [ending for each in FORMATS for ending in each.endings]
    assert len(set(endings)) == len(endings)
    assert all(ending == ending.lower() and Path(f"m{ending}").suffix for ending in endings)
