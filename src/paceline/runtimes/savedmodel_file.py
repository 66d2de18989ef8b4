"""Is this SavedModel one that TensorFlow may open? Its graphs are read before any of them runs.

Rules:
- A graph that reaches for more than tensors is refused; see `savedmodel_rules.py`.
- Files of vocabularies lie in the model's own folder `assets`, and weights beside it. A name that leads elsewhere is
  refused, and so is a file that is read by another name; see `savedmodel_sources.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from paceline.core.errors import ModelLoadError, UnsafeModel
from paceline.core.paths import is_inside
from paceline.runtimes.savedmodel_rules import (
    ASSETS,
    INITIALIZES,
    INITIALIZES_TOO,
    REPLACES,
    Graph,
    Node,
    node_of,
    reaching_out,
)
from paceline.runtimes.savedmodel_sources import WRITES_VARIABLES, wrong_sources

FILE: Final = "saved_model.pb"
TAG: Final = "serve"
"""Of the graph that is meant for serving."""
SIGNATURE: Final = "serving_default"
"""Of the graph's, the one that is served."""

TEXT: Final = 7
"""The number of the type of strings, DT_STRING."""

_LEAVE_OUT: Final = "leave it out of what is exported, or load the model in code of your own: service.py"
_AS_ASSET: Final = "export it again, with the file as an asset: tf.saved_model.save"
_INSIDE: Final = "put the files themselves into the folder, not links to them, or export it again"
_DIGITS: Final = re.compile(r"([0-9]+)")


class Fault(NamedTuple):
    """Why a model is refused, and what to do about it."""

    text: str
    hint: str


def check(folder: Path) -> None:
    """Check the graph for serving. Needs TensorFlow, and runs nothing of it.

    Raises:
        UnsafeModel: it reaches out of itself.
        ModelLoadError: there is no such graph, or it cannot be read.
    """
    for fault in faults(graph_of(folder), folder):
        raise UnsafeModel(f"{folder}: {fault.text}", hint=fault.hint)


def faults(graph: Graph, folder: Path) -> list[Fault]:
    """All for which a model is refused, whoever has read its graph. TensorFlow is not needed."""
    found = []
    operators = [f"{name} {how}" for name, how in reaching_out(graph).items()]
    if operators:
        found.append(Fault(f"when it runs, {', '.join(operators)}", _LEAVE_OUT))
    found += [Fault(text, _AS_ASSET) for text in wrong_sources(graph)]
    named = (folder / "assets" / name for name in graph.files)
    if not all(is_inside(file, folder) for file in (*named, *folder.rglob("*"))):
        found.append(Fault("a file of it is not in its folder", _INSIDE))
    return found


def in_natural_order(names: Iterable[str]) -> list[str]:
    """The names of inputs or outputs, of which the format keeps no order: `output_10` comes after `output_9`."""
    return sorted(names, key=lambda name: [int(part) if part.isdecimal() else part for part in _DIGITS.split(name)])


def graph_of(folder: Path) -> Graph:
    """What runs when in the graph that is served. Needs TensorFlow.

    Raises:
        ModelLoadError: there is none, or it cannot be read.
    """
    saved = _for_serving(folder)
    return _graph(saved, _assets(saved, folder))


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


def _assets(saved: Any, folder: Path) -> list[Any]:
    """The model's own files, and the tensors that become their names, as the loader finds them."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef

    if saved.asset_file_def:
        return list(saved.asset_file_def)
    try:
        return [AssetFileDef.FromString(each.value) for each in saved.collection_def[ASSETS].any_list.value]
    except DecodeError as error:
        raise _no_model(folder, "the list of its assets is none") from error


def _graph(saved: Any, assets: Sequence[Any]) -> Graph:
    library, objects = saved.graph_def.library, saved.object_graph_def
    functions = {each.signature.name: [_node(node) for node in each.node_def] for each in library.function}
    for each in library.gradient:
        node = Node("", "SymbolicGradient", (), frozenset({each.gradient_func}))
        functions.setdefault(each.function_name, []).append(node)
    ends = {key: {node_of(each.name) for each in end.outputs.values()} for key, end in saved.signature_def.items()}
    initialized = ends.pop(INITIALIZES_TOO, set())
    return Graph(
        nodes=[_node(node) for node in saved.graph_def.node],
        functions=functions,
        arguments={each.signature.name: _arguments(each.signature) for each in library.function},
        run=set[str]().union(*ends.values()),
        initialized=initialized.union(
            node_of(name) for key in INITIALIZES for name in saved.collection_def[key].node_list.value
        ),
        restored={node_of(saved.saver_def.restore_op_name)},
        called={
            *objects.concrete_functions,
            *(each.signature.name for each in library.function if REPLACES in each.attr),
        },
        bound={
            name: [_is_asset(objects, place) for place in each.bound_inputs]
            for name, each in objects.concrete_functions.items()
        },
        assets={node_of(each.tensor_info.name) for each in assets},
        files={each.filename for each in assets},
        weights={node_of(saved.saver_def.filename_tensor_name)},
    )


def _node(node: Any) -> Node:
    calls = [name for value in node.attr.values() for name in (value.func.name, *(f.name for f in value.list.func))]
    is_text = node.op in WRITES_VARIABLES and any(value.type == TEXT for value in node.attr.values())
    return Node(node.name, node.op, [node_of(each) for each in node.input], frozenset(filter(None, calls)), is_text)


def _arguments(signature: Any) -> list[str]:
    lists = any(each.number_attr or each.type_list_attr for each in signature.input_arg)
    return [] if lists else [each.name for each in signature.input_arg]


def _is_asset(objects: Any, place: int) -> bool:
    return 0 <= place < len(objects.nodes) and bool(objects.nodes[place].HasField("asset"))


def _no_model(folder: Path, why: str) -> ModelLoadError:
    return ModelLoadError(
        f"{folder}: cannot be loaded: {why}",
        hint="export it again: model.export(FOLDER) of Keras, or tf.saved_model.save with signatures",
    )
