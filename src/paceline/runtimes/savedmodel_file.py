"""Is this SavedModel one that TensorFlow may open? Its graphs are read before any of them runs.

Rules:
- A graph is a program, and some operators reach for more than tensors: they read or write files that the graph, or a
  request, names, or call into Python. A model that has one is refused.
- Files of vocabularies lie in the model's own folder `assets`. A name that leads elsewhere is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from paceline.core.errors import ModelLoadError, UnsafeModel

FILE: Final = "saved_model.pb"
TAG: Final = "serve"
"""Of the graph that is meant for serving."""

_REACHES_OUT: Final = {
    "ReadFile": "reads files",
    "WriteFile": "writes files",
    "MatchingFiles": "lists files",
    "PyFunc": "calls Python",
    "PyFuncStateless": "calls Python",
    "EagerPyFunc": "calls Python",
}


def check(folder: Path) -> None:
    """Check the graph for serving. Needs TensorFlow, and runs nothing of it.

    Raises:
        UnsafeModel: it reaches out of itself.
        ModelLoadError: there is no such graph, or it cannot be read.
    """
    graph = _graph_for_serving(folder)
    for operator in _operators(graph):
        if operator in _REACHES_OUT:
            raise UnsafeModel(
                f"{folder}: the operator {operator} {_REACHES_OUT[operator]}",
                hint="leave it out of what is exported, or load the model in code of your own: service.py",
            )
    for asset in graph.asset_file_def:
        if not _within(folder / "assets" / asset.filename, folder):
            raise ModelLoadError(f"{folder}: cannot be loaded: a file of its vocabularies is not in its folder")


def _graph_for_serving(folder: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / FILE).read_bytes())
    except (OSError, DecodeError) as error:
        raise _no_model(folder, "it is no SavedModel, or a part of one") from error
    graphs = [graph for graph in saved.meta_graphs if TAG in graph.meta_info_def.tags]
    if not graphs:
        raise _no_model(folder, f"none of its graphs has the tag '{TAG}'")
    return graphs[0]


def _operators(graph: Any) -> Iterator[str]:
    for node in graph.graph_def.node:
        yield node.op
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            yield node.op


def _no_model(folder: Path, why: str) -> ModelLoadError:
    return ModelLoadError(
        f"{folder}: cannot be loaded: {why}",
        hint="export it again: model.export(FOLDER) of Keras, or tf.saved_model.save with signatures",
    )


def _within(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # no path at all, or a circle of links
        return False
