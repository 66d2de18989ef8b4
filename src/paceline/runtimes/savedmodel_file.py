"""Is this SavedModel one that TensorFlow may open? Its graphs are read before any of them runs.

Rules:
- A graph that reaches for more than tensors is refused; see `savedmodel_rules.py`.
- Files of vocabularies lie in the model's own folder `assets`. A name that leads elsewhere is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from paceline.core.errors import ModelLoadError, UnsafeModel
from paceline.core.paths import is_inside
from paceline.runtimes.savedmodel_rules import INITIALIZES, REPLACES, Graph, Node, fills_tables, node_of, reaching_out

FILE: Final = "saved_model.pb"
TAG: Final = "serve"
"""Of the graph that is meant for serving."""
SIGNATURE: Final = "serving_default"
"""Of the graph's, the one that is served."""

_DIGITS: Final = re.compile(r"([0-9]+)")


def check(folder: Path) -> None:
    """Check the graph for serving. Needs TensorFlow, and runs nothing of it.

    Raises:
        UnsafeModel: it reaches out of itself.
        ModelLoadError: there is no such graph, or it cannot be read.
    """
    saved = _for_serving(folder)
    graph = _graph(saved)
    for operator, how in reaching_out(graph).items():
        raise UnsafeModel(
            f"{folder}: the operator {operator} {how}",
            hint="leave it out of what is exported, or load the model in code of your own: service.py",
        )
    if not saved.asset_file_def and fills_tables(graph):
        raise UnsafeModel(f"{folder}: fills a table from a file that is none of its own")
    named = (folder / "assets" / asset.filename for asset in saved.asset_file_def)
    for file in (*named, *folder.rglob("*")):
        if not is_inside(file, folder):
            raise ModelLoadError(f"{folder}: cannot be loaded: a file of it is not in its folder")


def in_natural_order(names: Iterable[str]) -> list[str]:
    """The names of inputs or outputs, of which the format keeps no order: `output_10` comes after `output_9`."""
    return sorted(names, key=lambda name: [int(part) if part.isdecimal() else part for part in _DIGITS.split(name)])


def _for_serving(folder: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / FILE).read_bytes())
    except (OSError, DecodeError) as error:
        raise _no_model(folder, "it is no SavedModel, or a part of one") from error
    # The first with just this tag, as TensorFlow's loader has it.
    found = next((each for each in saved.meta_graphs if set(each.meta_info_def.tags) == {TAG}), None)
    if found is None:
        raise _no_model(folder, f"none of its graphs has the tag '{TAG}', and no other")
    return found


def _graph(saved: Any) -> Graph:
    library = saved.graph_def.library
    functions = {
        each.signature.name: [_node(node)._replace(inputs=()) for node in each.node_def] for each in library.function
    }
    for each in library.gradient:
        functions.setdefault(each.function_name, []).append(Node("", "SymbolicGradient", (), (each.gradient_func,)))
    return Graph(
        nodes=[_node(node) for node in saved.graph_def.node],
        functions=functions,
        run={
            *(node_of(each.name) for signature in saved.signature_def.values() for each in signature.outputs.values()),
            *(node_of(name) for key in INITIALIZES for name in saved.collection_def[key].node_list.value),
        },
        called={
            *saved.object_graph_def.concrete_functions,
            *(each.signature.name for each in library.function if REPLACES in each.attr),
        },
        restored={node_of(saved.saver_def.restore_op_name)},
    )


def _node(node: Any) -> Node:
    calls = [name for value in node.attr.values() for name in (value.func.name, *(f.name for f in value.list.func))]
    return Node(node.name, node.op, [node_of(each) for each in node.input], [name for name in calls if name])


def _no_model(folder: Path, why: str) -> ModelLoadError:
    return ModelLoadError(
        f"{folder}: cannot be loaded: {why}",
        hint="export it again: model.export(FOLDER) of Keras, or tf.saved_model.save with signatures",
    )
