"""`paceline inspect` on files of Keras, TensorFlow, PyTorch and OpenVINO, and on ones that were made to harm."""

from __future__ import annotations

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from paceline.core.errors import ModelLoadError
from paceline.inspection.dispatch import inspect
from support import models
from support.inspected import field, found, in_another_process, tensors

KERAS = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
taken = keras.Input((8, 8, 1), name="image")
flat = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(taken))
model = keras.Model(taken, keras.layers.Dense(3, name="scores")(flat))
model.save("model.keras")
model.export("saved", verbose=False)
twice = keras.layers.Lambda(lambda x: 2 * x, name="twice")(model.output)
keras.Model(taken, twice).save("lambda.keras")
words = keras.Sequential([keras.Input((1,), dtype="string"), keras.layers.StringLookup(vocabulary=["a", "b"])])
words.save("words.keras")
"""


@pytest.fixture(scope="module")
def keras_models(tmp_path_factory) -> Path:
    if find_spec("keras") is None:
        pytest.skip("the extra tensorflow is not installed")
    folder = tmp_path_factory.mktemp("keras")
    in_another_process(KERAS, folder)
    return folder


@pytest.mark.slow
def test_a_model_of_keras(keras_models):
    report = inspect(keras_models / "model.keras")
    assert tensors(report) == [("image", "FP32", [-1, 8, 8, 1]), ("output_0", None, None)]
    assert report.operators == {"Conv2D": 1, "Dense": 1, "Flatten": 1, "InputLayer": 1}
    assert report.safety == "safe"
    assert inspect(keras_models / "words.keras").safety == "safe"


@pytest.mark.slow
def test_a_lambda_layer_is_code(keras_models):
    report = inspect(keras_models / "lambda.keras")
    assert (report.safety, report.serve) == ("unsafe", None)
    assert "serving refuses it: holds a Lambda layer" in found(report, "note")


@pytest.mark.slow
def test_a_saved_model(keras_models):
    report = inspect(keras_models / "saved")
    assert tensors(report) == [("image", "FP32", [-1, 8, 8, 1]), ("output_0", "FP32", [-1, 3])]
    assert report.parameters == 3 * 3 * 4 + 4 + 6 * 6 * 4 * 3 + 3
    assert report.operators["Conv2D"] >= 1
    assert report.safety == "safe"


def keras_file(path: Path, *layers: dict) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.9.0"}')
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
        archive.writestr("model.weights.h5", b"")
    return path


@pytest.mark.parametrize(
    ("layer", "safety"),
    [
        ({"module": "os", "class_name": "system", "config": "ls"}, "unsafe"),
        ({"module": "keras.utils", "class_name": "function", "config": "get_file"}, "unsafe"),
        ({"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/elsewhere"}}, "unsafe"),
        ({"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}, "unsafe"),
        ({"module": "mine", "class_name": "Layer", "config": {}}, "unknown"),
        ({"module": None, "class_name": "Layer", "registered_name": "mine>Layer", "config": {}}, "unknown"),
        ({"module": "keras.layers", "class_name": "Dense", "config": {"name": "d"}}, "safe"),
    ],
)
def test_what_a_keras_file_may_name(tmp_path, layer, safety):
    outer = {"module": "keras.layers", "class_name": "TimeDistributed", "config": {"layer": layer}}
    assert inspect(keras_file(tmp_path / "m.keras", outer)).safety == safety


def saved_model(folder: Path, *operators: str) -> Path:
    nodes = b"".join(
        field(1, field(1, f"n{index}".encode()) + field(2, each.encode())) for index, each in enumerate(operators)
    )
    function = field(2, field(1, field(3, field(2, b"EagerPyFunc"))))
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(field(2, field(2, nodes + function)))
    return folder


def test_operators_of_tensorflow_that_touch_files_or_call_python(tmp_path):
    report = inspect(saved_model(tmp_path / "m", "ReadFile", "WriteFile", "MatMul"))
    assert report.safety == "unsafe"
    assert "EagerPyFunc calls Python, ReadFile reads files, WriteFile may write files" in found(report, "unsafe")
    assert "no signature" in found(report, "odd")


TORCH = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 4), torch.nn.Linear(4, 3)
    def forward(self, x, scale: float = 1.0):
        return self.second(torch.relu(self.first(x))) * scale

class Saves(torch.nn.Module):
    def forward(self, x):
        torch.save(x, "somewhere")
        return x

net = Net().eval()
torch.jit.script(net).save("script.pt")
torch.jit.script(Saves()).save("saves.pt")
torch.save(net.state_dict(), "state.pt")
torch.save(net, "whole.pth")
torch.save(net.state_dict(), "old.pt", _use_new_zipfile_serialization=False)
batch = torch.export.Dim("batch")
program = torch.export.export(net, (torch.zeros(2, 6),), dynamic_shapes={"x": {0: batch}})
torch.export.save(program, "program.pt2")
"""


@pytest.fixture(scope="module")
def torch_models(tmp_path_factory) -> Path:
    if find_spec("torch") is None:
        pytest.skip("the extra torch is not installed")
    folder = tmp_path_factory.mktemp("torch")
    in_another_process(TORCH, folder)
    return folder


@pytest.mark.slow
def test_an_exported_program(torch_models):
    report = inspect(torch_models / "program.pt2")
    assert tensors(report) == [("x", "FP32", [-1, 6]), ("output", "FP32", [-1, 3])]
    assert report.operators["aten.linear"] == 2
    assert report.parameters == 6 * 4 + 4 + 4 * 3 + 3
    assert report.safety == "safe", report.findings


@pytest.mark.slow
def test_torchscript_and_its_arguments(torch_models):
    report = inspect(torch_models / "script.pt")
    assert tensors(report) == [("x", None, None), ("output", None, None)]  # `scale` has a default
    assert report.operators["linear"] == 2
    assert report.parameters == 6 * 4 + 4 + 4 * 3 + 3
    assert report.safety == "safe", report.findings


@pytest.mark.slow
def test_torchscript_that_writes_files(torch_models):
    report = inspect(torch_models / "saves.pt")
    assert report.safety == "unsafe"
    assert "its code names 'save', which reads or writes files" in found(report, "unsafe")


@pytest.mark.slow
def test_a_pickle_beside_torchscript_is_looked_at_as_when_it_is_served(torch_models, tmp_path):
    with zipfile.ZipFile(torch_models / "script.pt") as given, zipfile.ZipFile(tmp_path / "m.pt", "w") as written:
        for name in given.namelist():
            more = b"torch.classes.rpc.WorkerInfo" if name.endswith("constants.pkl") else b""
            written.writestr(name, given.read(name) + more)
    assert "it makes objects of 'rpc'" in found(inspect(tmp_path / "m.pt"), "unsafe")


@pytest.mark.slow
def test_what_torch_save_writes_is_no_model(torch_models):
    for name, safety in (("state.pt", "safe"), ("old.pt", "safe"), ("whole.pth", "unknown")):
        report = inspect(torch_models / name)
        assert (report.format, report.safety) == ("torch-save", safety), report.findings
        assert report.serve is None
        assert "optimize module:factory" in (report.findings[-1].hint or "")
    assert "__main__.Net" in [each.name for each in report.imports]


IR = """<?xml version="1.0"?>
<net name="n" version="11"><layers>
<layer id="0" name="x" type="Parameter"><data shape="?,3" element_type="f32"/>
  <output><port id="0" precision="FP32" names="x"><dim>-1</dim><dim>3</dim></port></output></layer>
<layer id="1" name="r" type="ReLU"><input><port id="0" precision="FP32"><dim>-1</dim><dim>3</dim></port></input>
  <output><port id="1" precision="FP32" names="y"><dim>-1</dim><dim>3</dim></port></output></layer>
<layer id="2" name="y/sink" type="Result">
  <input><port id="0" precision="FP32"><dim>-1</dim><dim>3</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
<edge from-layer="1" from-port="1" to-layer="2" to-port="0"/></edges></net>
"""


def test_a_network_of_openvino(tmp_path):
    (tmp_path / "m.xml").write_text(IR)
    report = inspect(tmp_path / "m.xml")
    assert tensors(report) == [("x", "FP32", [-1, 3]), ("y", "FP32", [-1, 3])]
    assert report.operators == {"Parameter": 1, "ReLU": 1, "Result": 1}


@pytest.mark.slow
def test_a_network_that_openvino_has_saved(tmp_path):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    models.mlp(tmp_path / "m.onnx")
    in_another_process("import openvino as o; o.save_model(o.convert_model('m.onnx'), 'm.xml')", tmp_path)
    report = inspect(tmp_path / "m.xml")
    assert tensors(report) == [("x", "FP32", [-1, 64]), ("y", "FP32", [-1, 10])]
    assert report.operators["MatMul"] == 2
    (tmp_path / "m.bin").unlink()
    assert "weights are not there" in found(inspect(tmp_path / "m.xml"), "odd")


@pytest.mark.parametrize("entity", ['SYSTEM "file:///etc/passwd"', '"many"'])
def test_entities_are_refused(tmp_path, entity):
    text = IR.replace("<net", f"<!DOCTYPE net [<!ENTITY e {entity}>]>\n<net", 1).replace('name="n"', 'name="n &e;"')
    (tmp_path / "m.xml").write_text(text)
    with pytest.raises(ModelLoadError, match="document type"):
        inspect(tmp_path / "m.xml")
