"""`paceline inspect` on ONNX files, real ones and absurd ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from paceline.core.errors import ModelLoadError, RuntimeUnavailable
from paceline.inspection.dispatch import inspect
from support import models
from support.inspected import field, found, tensors
from support.written_twice import written_twice


def test_an_onnx_file(tmp_path):
    report = inspect(models.mlp(tmp_path / "mlp.onnx"))
    assert tensors(report) == [("x", "FP32", ["N", 64]), ("y", "FP32", ["N", 10])]
    assert report.operators == {"Gemm": 2, "Relu": 1}
    assert report.parameters == 64 * 128 + 128 + 128 * 10 + 10
    assert report.weight_bytes == 4 * report.parameters
    assert report.versions == {"IR": "8", "opset ai.onnx": "17"}
    assert report.safety == "safe"
    assert report.serve == f"paceline serve {tmp_path / 'mlp.onnx'}"


def test_nodes_inside_of_loops_count(tmp_path):
    report = inspect(models.slow(tmp_path / "slow.onnx"))
    assert report.operators["MatMul"] == 1
    assert report.about["nodes"] == 4


def test_types_that_are_no_tensors(tmp_path):
    report = inspect(models.flowers(tmp_path / "flowers.onnx"))
    assert tensors(report)[2] == ("output_probability", "FP32", None)
    assert report.made_by is not None
    assert report.made_by.startswith("skl2onnx ")


def test_a_fixed_batch_is_noted(tmp_path):
    report = inspect(models.identity(tmp_path / "one.onnx", shape=(1, 3)))
    assert "batch dimension is fixed: 1" in found(report, "note")


def test_fault_103_external_data_outside_is_named_and_not_read(tmp_path):
    path = models.mlp(tmp_path / "model.onnx")
    model = onnx.load(path)
    for tensor, place in zip(model.graph.initializer, ("../../etc/passwd", "/etc/passwd", "beside.bin"), strict=False):
        tensor.ClearField("raw_data")
        tensor.data_location = T.EXTERNAL
        tensor.external_data.add(key="location", value=place)
    path.write_bytes(model.SerializeToString())
    report = inspect(path)
    assert report.safety == "unsafe"
    assert "../../etc/passwd, /etc/passwd" in found(report, "unsafe")
    assert "beside.bin" in found(report, "odd")
    (tmp_path / "beside.bin").symlink_to("/etc/passwd")
    assert "beside.bin" in found(inspect(path), "unsafe")
    (tmp_path / "beside.bin").unlink()
    (tmp_path / "beside.bin").write_bytes(bytes(100_000))
    assert "beside.bin" in found(inspect(path), "note")


@pytest.mark.parametrize("make", [models.mlp, models.slow, models.flowers])
def test_what_is_there_twice_counts_as_a_runtime_reads_it(tmp_path, make):
    path = make(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.metadata_props.add(key="author", value="someone")
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = T.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
    path.write_bytes(model.SerializeToString())
    once = inspect(path)
    path.write_bytes(written_twice(model))
    assert onnx.load(path, load_external_data=False) == model
    twice = inspect(path)
    assert twice.safety == ("unsafe" if model.graph.initializer else "safe")
    once.size_bytes = twice.size_bytes = 0
    assert twice == once


def test_a_name_of_a_file_that_is_too_long_to_be_read_is_told(tmp_path):
    path = models.mlp(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.initializer[0].external_data.add(key="location", value="a/" * 2048 + "../" * 3000)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelLoadError, match="a name of 13096 bytes"):
        inspect(path)


def test_operators_that_call_python_and_those_of_strangers(tmp_path):
    path = tmp_path / "model.onnx"
    nodes = [
        helper.make_node("PyOp", ["x"], ["m"], domain="ai.onnx.contrib"),
        helper.make_node("Twist", ["m"], ["y"], domain="org.example"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", T.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", T.FLOAT, None)],
    )
    path.write_bytes(helper.make_model(graph).SerializeToString())
    report = inspect(path)
    assert tensors(report) == [("x", "FP32", [-1, 3]), ("y", "FP32", None)]
    assert report.safety == "unsafe"
    assert "ai.onnx.contrib.PyOp" in found(report, "unsafe")
    assert "ai.onnx.contrib, org.example" in found(report, "odd")


def test_weights_that_are_not_there_are_odd(tmp_path):
    tensor = onnx.TensorProto(name="w", data_type=T.FLOAT, dims=[1 << 40])
    graph = onnx.GraphProto(initializer=[tensor])
    (tmp_path / "m.onnx").write_bytes(onnx.ModelProto(ir_version=8, graph=graph).SerializeToString())
    report = inspect(tmp_path / "m.onnx")
    assert "said to take 4.4 TB" in found(report, "odd")
    assert "no inputs" in found(report, "odd")


@pytest.mark.slow
def test_fault_104_an_absurd_onnx_file_ends_in_a_clean_error(tmp_path):
    path = tmp_path / "m.onnx"
    one = onnx.GraphProto(node=[onnx.NodeProto(op_type="Neg")]).SerializeToString()
    path.write_bytes(b"\x3a\x80\x80\x80\x01" + (one * (1 << 21))[: 1 << 21])  # graph of 2 MB of tiny nodes
    assert len(one) < 8
    with pytest.raises(ModelLoadError, match="more than 250000 nodes"):
        inspect(path)
    inner = b""
    for _ in range(150):  # a graph in an attribute of a node of a graph ...
        attribute = onnx.AttributeProto(name="g").SerializeToString() + field(6, inner)
        inner = field(1, field(5, attribute))
    path.write_bytes(field(7, inner))
    with pytest.raises(ModelLoadError, match="nested more than 100 deep"):
        inspect(path)


@pytest.mark.parametrize("name", ["m.onnx", "m.cbm", "m.keras", "m.skops", "m.pt2", "m.txt", "m.xml", "m.ubj", "m.pt"])
@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_files_full_of_noise_end_in_clean_errors(tmp_path, name, size):
    marks = {"m.cbm": b"CBM1", "m.keras": b"PK", "m.pt2": b"PK", "m.txt": b"tree\n", "m.xml": b"<net", "m.pt": b"PK"}
    noise = np.random.default_rng(size).bytes(size)
    marks["m.ubj"] = b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner version"
    (tmp_path / name).write_bytes(marks.get(name, b"") + noise)
    with pytest.raises((ModelLoadError, RuntimeUnavailable)):
        inspect(tmp_path / name)


@pytest.mark.slow
def test_files_that_are_cut_off_end_in_clean_errors(tmp_path):
    path = models.mlp(tmp_path / "whole.onnx")
    data = path.read_bytes()
    part = tmp_path / "part.onnx"
    for size in range(1, len(data), 977):
        part.write_bytes(data[:size])
        with pytest.raises(ModelLoadError):
            inspect(part)
