"""What is in a SavedModel? Signatures, operators and variables, read field by field, without TensorFlow.

Source: the field numbers of saved_model.proto, meta_graph.proto, graph.proto, function.proto, types.proto and
saved_object_graph.proto of TensorFlow; they cannot change.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError
from paceline.inspection import wire
from paceline.inspection.report import Report, Tensor, by_count, listed
from paceline.runtimes.savedmodel_file import REACHES_OUT

_MOST_NODES: Final = 1_000_000
_TYPES: Final[dict[int, tuple[str, int]]] = {
    1: ("FP32", 4), 2: ("FP64", 8), 3: ("INT32", 4), 4: ("UINT8", 1), 5: ("INT16", 2), 6: ("INT8", 1), 7: ("BYTES", 0),
    8: ("COMPLEX64", 8), 9: ("INT64", 8), 10: ("BOOL", 1), 14: ("BF16", 2), 17: ("UINT16", 2), 19: ("FP16", 2),
    20: ("resource", 0), 21: ("variant", 0), 22: ("UINT32", 4), 23: ("UINT64", 8),
}  # fmt: skip
_SAVED_FOR_LOADING: Final = "__saved_model_init_op"


def read(folder: Path, report: Report) -> None:
    """Fill in the report of a folder with `saved_model.pb`.

    Raises:
        ModelLoadError: the file is no SavedModel, or an absurd one.
    """
    path = folder / "saved_model.pb"
    operators: dict[str, int] = {}
    try:
        graph = wire.first(wire.mapped(path), 2)
        if not len(graph):
            raise wire.Malformed("it has no graph")
        _about(graph, report)
        _count(wire.first(graph, 2), operators, path)
        _signature(graph, report)
        _variables(wire.first(graph, 7), report)
    except wire.Malformed as error:
        raise ModelLoadError(
            f"{path}: cannot be read: it is no SavedModel, or a part of one ({error})", hint="export it again"
        ) from error
    report.operators = by_count(operators)
    report.about["nodes"] = sum(operators.values())
    report.weight_bytes = sum(each.stat().st_size for each in folder.glob("variables/variables.data-*"))
    _judge(operators, folder, report)


def _about(graph: memoryview, report: Report) -> None:
    told = wire.first(graph, 1)
    version = wire.text(wire.first(told, 5))
    report.made_by, report.versions["tensorflow"] = f"TensorFlow {version}", version or "?"
    report.about["tags"] = listed(wire.text(tag) for tag in wire.messages(told, 4))


def _count(graph: memoryview, operators: dict[str, int], path: Path) -> None:
    """Count the nodes of the graph, and of its functions."""
    bodies = [(graph, 1), *((function, 3) for function in wire.messages(wire.first(graph, 2), 1))]
    nodes = 0
    for body, number in bodies:
        for node in wire.messages(body, number):
            nodes += 1
            if nodes > _MOST_NODES:
                raise ModelLoadError(f"{path}: cannot be read: more than {_MOST_NODES} nodes")
            name = wire.text(wire.first(node, 2))
            operators[name] = operators.get(name, 0) + 1


def _signature(graph: memoryview, report: Report) -> None:
    """The inputs and outputs of the signature that is served."""
    signatures = {wire.text(wire.first(each, 1)): wire.first(each, 2) for each in wire.messages(graph, 5)}
    names = [name for name in signatures if name != _SAVED_FOR_LOADING]
    if not names:
        report.find("odd", "it has no signature: it cannot be served", "export it with model.export(), or signatures=")
        return
    chosen = "serving_default" if "serving_default" in names else names[0]
    report.about["signatures"] = listed(names)
    report.inputs = [_tensor(each) for each in wire.messages(signatures[chosen], 1)]
    report.outputs = [_tensor(each) for each in wire.messages(signatures[chosen], 2)]


def _tensor(entry: memoryview) -> Tensor:
    told = wire.first(entry, 2)
    code = wire.number(told, 2)
    shapes = list(wire.messages(told, 3))
    is_unknown = not shapes or wire.number(shapes[0], 3) == 1
    shape = None if is_unknown else _sizes(shapes[0])
    return Tensor(name=wire.text(wire.first(entry, 1)), datatype=_TYPES.get(code, (f"type {code}", 0))[0], shape=shape)


def _sizes(shape: memoryview) -> list[int | str]:
    return [wire.signed(wire.number(each, 1)) for each in wire.messages(shape, 2)]


def _variables(objects: memoryview, report: Report) -> None:
    """Count the numbers in variables; a model of TensorFlow 1 does not list them."""
    seen: set[tuple[str, tuple[int | str, ...]]] = set()
    total, found = 0, False
    for each in wire.messages(objects, 1):
        for variable in wire.messages(each, 7):
            found = True
            name, shape = wire.text(wire.first(variable, 6)), _sizes(wire.first(variable, 2))
            # Keras's export has each variable twice, under the same path. A name that is no path may be any variable's.
            if "/" in name and (name, tuple(shape)) in seen:
                continue
            seen.add((name, tuple(shape)))
            if wire.number(variable, 3) and all(isinstance(size, int) and size >= 0 for size in shape):
                total += prod(int(size) for size in shape)
    report.parameters = total if found else None


def _judge(operators: dict[str, int], folder: Path, report: Report) -> None:
    names = set(operators)
    found = [f"{name} {REACHES_OUT[name]}" for name in sorted(names & REACHES_OUT.keys())]
    if found:
        report.find("unsafe", f"when it runs, {listed(found)}", "do not serve it unread")
    reads = sorted(name for name in names if name.startswith("InitializeTableFromTextFile"))
    if reads and not any((folder / "assets").glob("*")):
        report.find("unsafe", f"tables that are filled from files, and the model has none: {listed(reads)}")
    if (folder / "assets.extra").is_dir():
        report.find("note", "assets.extra lies beside it; serving does not use it, but for requests to warm up with")
    if not (folder / "variables").is_dir() and names & {"VarHandleOp", "RestoreV2"}:
        report.find("note", "it has no folder of variables: its weights are constants, or missing")
