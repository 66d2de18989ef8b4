"""What may the graph of a SavedModel do? The rules of `savedmodel_file.py`; TensorFlow is not needed.

Rules:
- A graph is a program, and some operators reach for more than tensors: they read, write or list files that the graph,
  or a request, names, use the network, call into Python, or run what they are given. None may be anywhere in the graph.
- What saves and restores weights is in every SavedModel. It may be there, but not where a signature reaches it, or what
  runs when the model is loaded, or a function that Python could call. Restoring itself is what loading is for.
- Whatever a function holds is taken to run when it is called.
- Tables may be filled from the model's own files, and weights restored from them; see `savedmodel_sources.py`.
- A program of XLA's (XlaCallModule, which JAX's models are) may stay: it computes. What it calls are functions of the
  graph, which are followed, and TensorFlow has no other code registered for it to call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

INITIALIZES: Final = frozenset({"saved_model_main_op", "legacy_init_op"})
"""Collections of the nodes that run when the model is loaded, beside a signature of that purpose."""

INITIALIZES_TOO: Final = "__saved_model_init_op"
"""That signature."""

ASSETS: Final = "saved_model_assets"
"""The collection of the model's own files, as TensorFlow 1 writes them."""

REPLACES: Final = "api_implements"
"""An attribute of functions: one may run in place of another that has the same value."""

_REACHES_OUT: Final[Mapping[str, Sequence[str]]] = {
    "lists files": (
        "ExperimentalMatchingFilesDataset", "ListSnapshotChunksDataset", "MatchingFiles", "MatchingFilesDataset",
    ),
    "reads files": (
        "CSVDataset", "CSVDatasetV2", "DTensorRestoreV2", "DecodeProtoV2", "EncodeProto", "ExperimentalCSVDataset",
        "ExperimentalLMDBDataset", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2",
        "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "FixedUnigramCandidateSampler",
        "GenerateVocabRemapping", "ImmutableConst", "LMDBDataset", "LMDBReader", "LoadAndRemapMatrix", "LoadDataset",
        "ReadFile", "RecordInput", "Skipgram", "SnapshotChunkDataset", "SnapshotDatasetReader",
        "SnapshotNestedDatasetReader", "TFRecordDataset", "TFRecordDatasetV2", "TFRecordReader", "TFRecordReaderV2",
        "TextLineDataset", "TextLineReader", "TextLineReaderV2", "WholeFileReader", "WholeFileReaderV2",
    ),
    "may write files": (
        "CacheDataset", "CacheDatasetV2", "CalibrationStatisticsSaver", "CreateSummaryDbWriter",
        "CreateSummaryFileWriter", "DatasetToTFRecord", "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3",
        "DebugNanCount", "DebugNumericSummary", "DebugNumericSummaryV2", "DistributedSave", "DumpTensor",
        "ExperimentalDatasetToTFRecord", "ExperimentalSqlDataset", "ImportEvent", "PrintV2", "SaveDataset",
        "SaveDatasetV2", "SnapshotDataset", "SnapshotDatasetV2", "SqlDataset", "WriteAudioSummary", "WriteFile",
        "WriteGraphSummary", "WriteHistogramSummary", "WriteImageSummary", "WriteRawProtoSummary",
        "WriteScalarSummary", "WriteSummary",
    ),
    "calls Python": (
        "EagerPyFunc", "GeneratorDataset", "PyFunc", "PyFuncStateless",
    ),
    "uses the network": (
        "CollectiveAllToAllV2", "CollectiveAllToAllV3", "CollectiveAssignGroupV2", "CollectiveBcastRecv",
        "CollectiveBcastRecvV2", "CollectiveBcastSend", "CollectiveBcastSendV2", "CollectiveGather",
        "CollectiveGatherV2", "CollectiveInitializeCommunicator", "CollectivePermute", "CollectiveReduce",
        "CollectiveReduceScatterV2", "CollectiveReduceV2", "CollectiveReduceV3", "DataServiceDataset",
        "DataServiceDatasetV2", "DataServiceDatasetV3", "DataServiceDatasetV4", "RegisterDataset",
        "RegisterDatasetV2", "RpcCall", "RpcClient", "RpcServer", "RpcServerRegister", "RpcServerStart",
    ),
    "runs what it is given": (
        "DatasetFromGraph", "XlaCustomCall", "XlaCustomCallV2",
    ),
    "changes the process": (
        "Abort", "FileSystemSetConfiguration",
    ),
}  # fmt: skip

REACHES_OUT: Final[Mapping[str, str]] = {name: how for how, names in _REACHES_OUT.items() for name in names}
"""Operators that reach for more than tensors, and how."""

RESTORES: Final = dict.fromkeys(("Restore", "RestoreSlice", "RestoreV2"), "reads files")
"""Operators that read weights from the file that their first input names."""

_SAVES: Final = dict.fromkeys(("MergeV2Checkpoints", "Save", "SaveSlices", "SaveV2"), "writes files")


class Node(NamedTuple):
    """An operator in a graph or a function.

    Attributes:
        inputs: the nodes that it waits for; in a function, its arguments, too. First those whose tensors it takes.
        calls: functions that its attributes name.
        is_text: it handles tensors of text; told of operators that write variables.
    """

    name: str
    operator: str
    inputs: Sequence[str]
    calls: Collection[str]
    is_text: bool = False


class Placed(NamedTuple):
    """A node, and the function that holds it; None: it is in the graph itself."""

    function: str | None
    node: Node


@dataclass(frozen=True)
class Graph:
    """What runs when, of a graph and its functions.

    Attributes:
        arguments: of each function, if each is one tensor.
        run: nodes that run for requests.
        initialized: nodes that run when the model is loaded, after the weights were read.
        restored: nodes that read the weights when the model is loaded.
        called: functions that may be called beside those that nodes call.
        bound: of functions that Python calls: for the last arguments, whether each is an asset's name.
        assets: nodes that become the names of the model's own files while it is initialized.
        files: where these are said to lie, from the folder `assets` on.
        weights: nodes that become the name of the file of weights while they are restored.
    """

    nodes: Sequence[Node]
    functions: Mapping[str, Sequence[Node]]
    arguments: Mapping[str, Sequence[str]]
    run: Collection[str]
    initialized: Collection[str]
    restored: Collection[str]
    called: Collection[str]
    bound: Mapping[str, Sequence[bool]]
    assets: Collection[str]
    files: Collection[str]
    weights: Collection[str]

    def all_nodes(self) -> Iterator[Placed]:
        """Those of the functions, too."""
        yield from (Placed(None, node) for node in self.nodes)
        for function, nodes in self.functions.items():
            yield from (Placed(function, node) for node in nodes)


def reaching_out(graph: Graph) -> dict[str, str]:
    """The operators that must not be where they are, and what each does; by name."""
    there = {node.operator for _, node in graph.all_nodes()}
    found = (
        _of(REACHES_OUT, there)
        | _of(_SAVES | RESTORES, _operators(reached(graph, {*graph.run, *graph.initialized}, graph.called)))
        | _of(_SAVES, _operators(reached(graph, graph.restored)))
    )
    return dict(sorted(found.items()))


def reached(graph: Graph, run: Collection[str], called: Collection[str] = ()) -> list[Placed]:
    """What runs when these nodes and functions do."""
    by_name = {node.name: (node,) for node in graph.nodes}
    found: list[Placed] = []
    seen: set[tuple[bool, str]] = set()
    waiting = [(False, name) for name in run] + [(True, name) for name in called]
    while waiting:
        is_function, name = each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        for node in graph.functions.get(name, ()) if is_function else by_name.get(name, ()):
            found.append(Placed(name if is_function else None, node))
            if not is_function:
                waiting += [(False, before) for before in node.inputs]
            # An operator may be a function's name: an older way to call it.
            waiting += [(True, function) for function in (node.operator, *node.calls)]
    return found


def node_of(tensor: str) -> str:
    """The node that a tensor comes from, as inputs are written: `name:0`, or `^name` of one that only has to run."""
    return tensor.removeprefix("^").partition(":")[0]


def _of(table: Mapping[str, str], operators: Collection[str]) -> dict[str, str]:
    return {name: how for name, how in table.items() if name in operators}


def _operators(nodes: Iterable[Placed]) -> set[str]:
    return {each.node.operator for each in nodes}
