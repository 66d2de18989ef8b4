"""Is this SavedModel one that TensorFlow may open? Its graphs are read before any of them runs.

Rules:
- A graph is a program, and some operators reach for more than tensors: they read or write files that the graph, or a
  request, names, or call into Python. A model that has one is refused.
- Files of vocabularies lie in the model's own folder `assets`. A name that leads elsewhere is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from paceline.core.errors import ModelLoadError, UnsafeModel

FILE: Final = "saved_model.pb"
TAG: Final = "serve"
"""Of the graph that is meant for serving."""

_FILLS_TABLE: Final = "InitializeTableFromTextFile"

REACHES_OUT: Final[Mapping[str, str]] = {
    **dict.fromkeys(("MatchingFiles",), "lists files"),
    **dict.fromkeys(
        ("ReadFile", "ImmutableConst", "WholeFileReader", "WholeFileReaderV2", "TextLineReader", "TextLineReaderV2",
         "TFRecordReader", "TFRecordReaderV2", "FixedLengthRecordReader", "FixedLengthRecordReaderV2",
         "TextLineDataset", "TFRecordDataset", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2",
         "LoadDataset"),
        "reads files",
    ),
    **dict.fromkeys(
        ("WriteFile", "SaveDataset", "SaveDatasetV2", "SnapshotDataset", "SnapshotDatasetV2", "CacheDataset",
         "CacheDatasetV2", "CreateSummaryFileWriter", "DebugIdentity", "DebugIdentityV2", "PrintV2"),
        "may write files",
    ),
    **dict.fromkeys(("PyFunc", "PyFuncStateless", "EagerPyFunc", "GeneratorDataset"), "calls Python"),
    **dict.fromkeys(
        ("RpcServer", "RpcClient", "RpcCall", "CollectiveReduce", "DataServiceDatasetV4"), "uses the network"
    ),
}  # fmt: skip
"""Operators that reach for more than tensors, and how."""


def check(folder: Path) -> None:
    """Check the graph for serving. Needs TensorFlow, and runs nothing of it.

    Raises:
        UnsafeModel: it reaches out of itself.
        ModelLoadError: there is no such graph, or it cannot be read.
    """
    graph = _graph_for_serving(folder)
    for operator in _operators(graph):
        if operator in REACHES_OUT:
            raise UnsafeModel(
                f"{folder}: the operator {operator} {REACHES_OUT[operator]}",
                hint="leave it out of what is exported, or load the model in code of your own: service.py",
            )
    if not graph.asset_file_def and any(each.startswith(_FILLS_TABLE) for each in _operators(graph)):
        raise UnsafeModel(f"{folder}: fills a table from a file that is none of its own")
    named = (folder / "assets" / asset.filename for asset in graph.asset_file_def)
    for file in (*named, *folder.rglob("*")):
        if not _within(file, folder):
            raise ModelLoadError(f"{folder}: cannot be loaded: a file of it is not in its folder")


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
