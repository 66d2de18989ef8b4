"""What is read of an ONNX file, and which candidates follow from it?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from paceline.config.processor import Processor
from paceline.core.errors import ModelLoadError
from paceline.optimize.search import facts
from paceline.optimize.search.facts import Facts
from paceline.optimize.transforms import graph
from support import models
from support.models import save

OLD = Processor("old", "x86_64", frozenset({"avx2"}))
NEW = Processor("new", "x86_64", frozenset({"avx512_bf16", "amx_bf16", "avx512_fp16", "avx512_vnni"}))
ARM = Processor("arm", "aarch64", frozenset({"bf16", "asimddp"}))


def towers(path: Path, count: int) -> Path:
    """Products side by side, and their sum."""
    nodes = [helper.make_node("MatMul", ["x", "w"], [f"t{place}"]) for place in range(count)]
    nodes += [helper.make_node("Sum", [f"t{place}" for place in range(count)], ["sum"])]
    nodes += [helper.make_node("MatMul", ["sum", "w"], ["y"])]
    return save(path, nodes, [("x", T.FLOAT, ["N", 4])], [("y", T.FLOAT, ["N", 4])], {"w": np.eye(4, dtype=np.float32)})


def names(found: Facts, processor: Processor) -> list[str]:
    return [candidate.name for candidate in graph.candidates(found, processor)]


def test_a_network(tmp_path):
    found = facts.read(models.mlp(tmp_path / "m.onnx", (64, 128, 10)))
    assert found.operators == {"Gemm": 2, "Relu": 1}
    assert found.weight_bytes == 4 * (64 * 128 + 128 + 128 * 10 + 10)
    assert (found.branches, found.fixed_batch) == (1, None)
    assert found.multiplies


def test_a_classical_model(tmp_path):
    found = facts.read(models.digits(tmp_path / "m.onnx"))
    assert found.operators["ai.onnx.ml.LinearClassifier"] == 1
    assert not found.multiplies


def test_operators_within_loops_count(tmp_path):
    assert facts.read(models.slow(tmp_path / "m.onnx")).operators["MatMul"] == 1


def test_weights_that_lie_beside_the_file_are_counted_and_not_read(tmp_path):
    model = onnx.load(str(models.mlp(tmp_path / "m.onnx")))
    whole = facts.read(tmp_path / "m.onnx").weight_bytes
    onnx.save(model, str(tmp_path / "e.onnx"), save_as_external_data=True, location="e.data", size_threshold=0)
    (tmp_path / "e.data").write_bytes(b"")
    assert facts.read(tmp_path / "e.onnx").weight_bytes == whole


@pytest.mark.parametrize("count", [1, 2, 5])
def test_branches_are_counted(tmp_path, count):
    assert facts.read(towers(tmp_path / "m.onnx", count)).branches == count


@pytest.mark.parametrize(
    ("inputs", "outputs", "fixed"),
    [
        ([("x", [1, 4])], [("y", [1, 4])], 1),
        ([("x", [8, 4])], [("y", [8, 4])], 8),
        ([("x", ["N", 4])], [("y", ["N", 4])], None),
        ([("x", [1, 4])], [("y", ["M", 4])], 1),
        ([("x", [1, 4])], [("y", [4])], None),
        ([("x", [1, 4]), ("z", ["N", 4])], [("y", [1, 4])], None),
        ([("x", [])], [("y", [])], None),
    ],
)
def test_a_batch_is_fixed_when_all_inputs_and_outputs_agree(inputs, outputs, fixed):
    made = helper.make_graph(
        [],
        "g",
        [helper.make_tensor_value_info(name, T.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, T.FLOAT, shape) for name, shape in outputs],
    )
    assert facts.fixed_batch(made) == fixed


def test_103_104_a_file_is_checked_before_it_is_read(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model at all")
    with pytest.raises(ModelLoadError, match="no ONNX file"):
        facts.read(tmp_path / "m.onnx")
    model = onnx.load(str(models.mlp(tmp_path / "e.onnx")))
    onnx.save(model, str(tmp_path / "e.onnx"), save_as_external_data=True, location="e.data", size_threshold=0)
    data = (tmp_path / "e.onnx").read_bytes()
    (tmp_path / "e.onnx").write_bytes(data.replace(b"e.data", b"/etc/p"))
    with pytest.raises(ModelLoadError, match="is not in the model's folder"):
        facts.read(tmp_path / "e.onnx")


# -- which candidates -----------------------------------------------------------------------------------------


def test_trees_are_not_openvino_s(tmp_path):
    assert names(Facts(operators={"ai.onnx.ml.TreeEnsembleClassifier": 1}, weight_bytes=0), NEW) == []


def test_precisions_follow_from_the_processor():
    pytest.importorskip("openvino", reason="needs the extra openvino")
    products = Facts(operators={"Gemm": 2, "Relu": 1}, weight_bytes=0)
    assert names(products, OLD) == ["openvino"]
    assert names(products, NEW) == ["openvino", "openvino-bf16", "openvino-f16"]
    assert names(products, ARM) == ["bf16", "openvino", "openvino-bf16"]


def test_convolutions_branches_and_attention(monkeypatch):
    monkeypatch.setattr(graph, "usable_cores", lambda: type("Cores", (), {"whole": 2}))
    convolutions = Facts(operators={"Conv": 4}, weight_bytes=0, branches=3)
    found = {candidate.name: candidate for candidate in graph.candidates(convolutions, OLD)}
    assert found["plain-layout"].options.graph_optimization == "extended"
    assert (found["branches"].options.inter_op_threads, found["branches"].threads) == (2, 2)
    attention = Facts(operators={"MatMul": 48, "Softmax": 6}, weight_bytes=0, branches=3)
    assert "fused" in names(attention, OLD)
    assert "branches" not in names(attention, OLD)
