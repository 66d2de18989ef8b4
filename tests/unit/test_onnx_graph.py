"""Graphs with loops and branches in them: what is constant, who reads what, and which names are free."""

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from paceline.optimize.transforms import onnx_files, onnx_graph


def branching() -> onnx.ModelProto:
    """`y` = `x` + `outer` if `yes`, else `hidden`; nothing reads `idle`."""
    number = helper.make_tensor_value_info
    then = helper.make_graph([helper.make_node("Add", ["x", "outer"], ["sum"])], "a", [], [number("sum", T.FLOAT, [2])])
    other = helper.make_graph(
        [helper.make_node("Identity", ["hidden"], ["same"])],
        "b",
        [],
        [number("same", T.FLOAT, [2])],
        [numpy_helper.from_array(np.zeros(2, np.float32), "hidden")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["two"], value_ints=[2]),
            helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other),
        ],
        "whole",
        [number("x", T.FLOAT, [2]), number("yes", T.BOOL, []), number("default", T.FLOAT, [2])],
        [number("y", T.FLOAT, [2])],
        [numpy_helper.from_array(np.ones(2, np.float32), name) for name in ("outer", "idle", "default")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_only_a_branch_reads_is_kept():
    model = branching()
    onnx_graph.drop_unread(model.graph)
    assert [each.name for each in model.graph.initializer] == ["outer"]


def test_names_within_branches_are_taken():
    graph = branching().graph
    assert onnx_graph.fresh_name(graph, "free") == "free"
    assert onnx_graph.fresh_name(graph, "hidden") == "hidden_0"
    assert onnx_graph.add_constant(graph, np.ones(1), "sum") == "sum_0"
    assert onnx_graph.fresh_name(graph, "sum") == "sum_1"


def test_a_default_of_an_input_is_no_constant_and_need_not_be_given():
    model = branching()
    assert sorted(onnx_graph.constants(model)) == ["idle", "outer", "two"]
    assert onnx_graph.array_of(model, "two").tolist() == [2]
    assert [each.name for each in onnx_graph.inputs(model.graph)] == ["x", "yes"]


def test_files_of_before_inputs_had_defaults_list_constants_as_inputs(tmp_path):
    model = branching()
    model.ir_version = 3
    onnx.save(model, str(tmp_path / "old.onnx"))
    loaded = onnx_files.load(tmp_path / "old.onnx")
    assert [each.name for each in loaded.graph.input] == ["x", "yes"]
    assert "default" in onnx_graph.constants(loaded)


def test_a_tensor_that_is_read_twice_has_two_readers():
    nodes = [helper.make_node("Mul", ["x", "x"], ["z"]), helper.make_node("Neg", ["x"], ["y"])]
    assert onnx_graph.readers(nodes) == {"x": [0, 0, 1]}
