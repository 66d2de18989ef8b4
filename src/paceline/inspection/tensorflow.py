"""What is in a SavedModel? Signatures, operators and variables, read field by field, without TensorFlow.

Source: the field numbers of saved_model.proto, meta_graph.proto, graph.proto, function.proto, types.proto and
saved_object_graph.proto of TensorFlow; they cannot change.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError
from paceline.inspection.report import Report, Tensor, counted, listed
from paceline.inspection.savedmodel_graph import KINDS, for_serving, read_graph
from paceline.runtimes import wire
from paceline.runtimes.savedmodel_file import FILE, SIGNATURE, TAG, faults, in_natural_order
from paceline.runtimes.savedmodel_rules import INITIALIZES_TOO, Graph

_TYPES: Final[dict[int, tuple[str, int]]] = {
    1: ("FP32", 4), 2: ("FP64", 8), 3: ("INT32", 4), 4: ("UINT8", 1), 5: ("INT16", 2), 6: ("INT8", 1), 7: ("BYTES", 0),
    8: ("COMPLEX64", 8), 9: ("INT64", 8), 10: ("BOOL", 1), 14: ("BF16", 2), 17: ("UINT16", 2), 19: ("FP16", 2),
    20: ("resource", 0), 21: ("variant", 0), 22: ("UINT32", 4), 23: ("UINT64", 8),
}  # fmt: skip
_SIGN: Final = "export it with model.export(), or signatures="
_UNREAD: Final = "do not serve it unread"
_VARIABLE: Final = 7  # among the kinds of saved objects


def read(folder: Path, report: Report) -> None:
    """Fill in the report of a folder with `saved_model.pb`.

    Raises:
        ModelLoadError: the file is no SavedModel, or an absurd one.
    """
    path = folder / FILE
    try:
        saved, is_served = for_serving(folder)
        if not is_served:
            report.find("odd", f"none of its graphs has the tag '{TAG}', and no other: it cannot be served", _SIGN)
        _about(saved, report)
        _signature(saved, report)
        _variables(wire.merged(saved, 7), report)
        graph = read_graph(saved, folder)
    except wire.Malformed as error:
        raise ModelLoadError(
            f"{path}: cannot be read: it is no SavedModel, or a part of one ({error})", hint="export it again"
        ) from error
    except wire.TooLong as error:
        report.find("unknown", f"it was not read: it has {error}", _UNREAD)
        return
    report.operators = counted(node.operator for _, node in graph.all_nodes())
    report.about["nodes"] = sum(report.operators.values())
    report.weight_bytes = sum(each.stat().st_size for each in folder.glob("variables/variables.data-*"))
    _judge(graph, folder, report)


def _about(graph: memoryview, report: Report) -> None:
    version = wire.text(wire.last(graph, 1, 5))
    report.made_by, report.versions["tensorflow"] = f"TensorFlow {version}", version or "?"
    report.about["tags"] = listed(wire.text(tag) for tag in wire.messages(graph, 1, 4))


def _signature(graph: memoryview, report: Report) -> None:
    """The inputs and outputs of the signature that is served."""
    signatures = wire.entries(graph, 5)
    names = [name for name in signatures if name != INITIALIZES_TOO]
    if not names:
        report.find("odd", "it has no signature: it cannot be served", _SIGN)
        return
    report.about["signatures"] = listed(names)
    if SIGNATURE not in signatures:
        report.find("odd", f"it has no signature {SIGNATURE}: it cannot be served", _SIGN)
        return
    report.inputs, report.outputs = (_tensors(signatures[SIGNATURE], number) for number in (1, 2))


def _tensors(signature: memoryview, number: int) -> list[Tensor]:
    found = wire.entries(signature, number)
    return [_tensor(name, found[name]) for name in in_natural_order(found)]


def _tensor(name: str, told: memoryview) -> Tensor:
    code = wire.number(told, 2)
    shape = wire.merged(told, 3)
    is_known = wire.has(told, 3) and wire.number(shape, 3) != 1
    return Tensor(
        name=name, datatype=_TYPES.get(code, (f"type {code}", 0))[0], shape=_sizes(shape) if is_known else None
    )


def _sizes(shape: memoryview) -> list[int | str]:
    return [wire.signed(wire.number(each, 1)) for each in wire.messages(shape, 2)]


def _variables(objects: memoryview, report: Report) -> None:
    """Count the numbers in variables; a model of TensorFlow 1 does not list them."""
    seen: set[tuple[str, tuple[int | str, ...]]] = set()
    total, found = 0, False
    for each in wire.messages(objects, 1):
        kind, variable = wire.one_of(each, KINDS)
        if kind != _VARIABLE:
            continue
        found = True
        name, shape = wire.text(wire.last(variable, 6)), _sizes(wire.merged(variable, 2))
        # Keras's export has each variable twice, under the same path. A name that is no path may be any variable's.
        if "/" in name and (name, tuple(shape)) in seen:
            continue
        seen.add((name, tuple(shape)))
        if wire.number(variable, 3) and all(isinstance(size, int) and size >= 0 for size in shape):
            total += prod(int(size) for size in shape)
    report.parameters = total if found else None


def _judge(graph: Graph, folder: Path, report: Report) -> None:
    for fault in faults(graph, folder):
        report.find("unsafe", fault.text, _UNREAD)
    if (folder / "assets.extra").is_dir():
        report.find("note", "assets.extra lies beside it; serving does not use it, but for requests to warm up with")
    if not (folder / "variables").is_dir() and report.operators.keys() & {"VarHandleOp", "RestoreV2"}:
        report.find("note", "it has no folder of variables: its weights are constants, or missing")
