"""SavedModels that read files by name, their own and others'; made in a process of its own, for it takes TensorFlow.

python tests/support/saved_model_files.py FOLDER
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TABLE = "fills a table from a file that is none of its assets"
ELSEWHERE = {
    "filled_by_request": _TABLE,
    "filled_later": _TABLE,
    "of_constant": _TABLE,
    "of_constant_in_function": _TABLE,
    "of_old_call": _TABLE,
    "of_list": _TABLE,
    "of_condition": _TABLE,
    "written_before": _TABLE,
    "written_twice": _TABLE,
    "bound": _TABLE,
    "weights_of_constant": "restores weights from a file that is none of its own",
}
"""By name: what it does with a file that is not its own."""

OWN = {"one_table": 1, "two_tables": 2, "of_version_1": 1}
"""By name: what it answers to "green", the second word of its file; two tables give the sum."""

_STRINGS = 7


def _save_own(folder: Path) -> None:
    import tensorflow as tf

    words = folder / "words.txt"
    words.write_text("red\ngreen\n")
    whole, line = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER

    def table() -> Any:
        return tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(str(words), tf.string, whole, tf.int64, line), -1
        )

    def saved(name: str, *tables: Any, first: Callable[[Any], object] = lambda x: None) -> None:
        def run(x: Any) -> Any:
            first(x)
            return {"y": tf.add_n([each.lookup(x) for each in tables])}

        module = tf.Module()
        module.tables, module.weights = tables, tf.Variable(1.0)
        module.run = tf.function(run, input_signature=[tf.TensorSpec([], tf.string, name="x")])
        tf.saved_model.save(module, str(folder / name), signatures=module.run)

    def fill(x: Any) -> None:
        own = tf.raw_ops.AnonymousHashTable(key_dtype=tf.string, value_dtype=tf.int64)
        tf.raw_ops.InitializeTableFromTextFileV2(table_handle=own, filename=x, key_index=whole, value_index=line)

    saved("one_table", table())
    saved("two_tables", table(), table())
    saved("filled_by_request", table(), first=fill)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.string, [])
        found = table().lookup(x)
        v1.get_variable("kept", initializer=1.0, use_resource=False)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        # The name of the file is a constant, which is set.
        start = v1.tables_initializer()
        v1.saved_model.simple_save(session, str(folder / "of_version_1"), {"x": x}, {"y": found}, legacy_init_op=start)


def _other(nodes: Any) -> str:
    """A node that is another file's name."""
    import tensorflow as tf

    added = nodes.add(name="other", op="Const")
    added.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/etc/passwd"))
    added.attr["dtype"].type = _STRINGS
    return str(added.name)


def _initializer(graph: Any) -> Any:
    return next(each for each in graph.graph_def.library.function if "__initializer_" in each.signature.name)


def _node(graph: Any, name: str) -> Any:
    return next(each for each in graph.graph_def.node if each.name == name)


def _call(graph: Any) -> Any:
    """The node that calls the initializer."""
    function = _initializer(graph).signature.name
    return next(each for each in graph.graph_def.node if each.attr["f"].func.name == function)


def _of_constant(graph: Any) -> None:
    _call(graph).input[0] = _other(graph.graph_def.node)


def _of_constant_in_function(graph: Any) -> None:
    nodes = _initializer(graph).node_def
    fills = next(each for each in nodes if each.op.startswith("InitializeTable"))
    fills.input[1] = f"{_other(nodes)}:output:0"


def _of_old_call(graph: Any) -> None:
    inputs = [_other(graph.graph_def.node), "hash_table"]
    graph.graph_def.node.add(name="again", op=_initializer(graph).signature.name, input=inputs)


def _of_list(graph: Any) -> None:
    """The first argument takes two tensors: the second is what the third is called with."""
    arguments = _initializer(graph).signature.input_arg
    arguments.insert(0, type(arguments[0])(name="two", type=_STRINGS, number_attr="N"))
    call, name = _call(graph), _other(graph.graph_def.node)
    call.input[:] = [name, call.input[0], name, call.input[1]]


def _of_condition(graph: Any) -> None:
    _call(graph).op = "StatelessIf"


def _filled_later(graph: Any) -> None:
    """For requests: then nobody sets the node that has the file's name."""
    (end,) = graph.signature_def["serving_default"].outputs.values()
    _node(graph, end.name.partition(":")[0]).input.append("^NoOp")


def _write(graph: Any, name: str) -> None:
    """Write a name into the variable that has the file's."""
    graph.graph_def.node.add(name="writes", op="AssignVariableOp", input=["Variable", name])
    graph.graph_def.node[-1].attr["dtype"].type = _STRINGS


def _written_twice(graph: Any) -> None:
    _write(graph, _other(graph.graph_def.node))


def _written_before(graph: Any) -> None:
    """While weights are read: then nobody sets the node that has the file's name."""
    _write(graph, "asset_path_initializer")
    _node(graph, graph.saver_def.restore_op_name).input.append("^writes")


def _bound(graph: Any) -> None:
    objects = graph.object_graph_def
    bound = objects.concrete_functions[_initializer(graph).signature.name].bound_inputs
    objects.nodes[bound[0]].constant.operation = _other(graph.graph_def.node)


def _weights_of_constant(graph: Any) -> None:
    _node(graph, graph.saver_def.restore_op_name).input[0] = _other(graph.graph_def.node)


def _edit_all(folder: Path) -> None:
    """Files that TensorFlow would not write."""
    from tensorflow.core.protobuf import saved_model_pb2

    for change in (
        _of_constant, _of_constant_in_function, _of_old_call, _of_list, _of_condition, _filled_later,
        _written_twice, _written_before, _bound, _weights_of_constant,
    ):  # fmt: skip
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString((folder / "one_table/saved_model.pb").read_bytes())
        change(saved.meta_graphs[0])
        shutil.copytree(folder / "one_table", folder / change.__name__[1:])
        (folder / change.__name__[1:] / "saved_model.pb").write_bytes(saved.SerializeToString())


if __name__ == "__main__":
    _save_own(Path(sys.argv[1]))
    _edit_all(Path(sys.argv[1]))
