"""What is in an ONNX file? Read field by field, as it lies on the disk; weights are skipped.

Source: the field numbers of onnx.proto; they cannot change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError
from paceline.core.paths import names_inside
from paceline.inspection.report import Report, Tensor, by_count, listed
from paceline.reports.units import BYTES
from paceline.runtimes import wire
from paceline.runtimes.onnx_file import MOST_NODES

_DEEPEST: Final = 100
_MOST_RANK: Final = 64

# Number in TensorProto.DataType: its name here, and bytes of an element.
_TYPES: Final[dict[int, tuple[str, float]]] = {
    1: ("FP32", 4), 2: ("UINT8", 1), 3: ("INT8", 1), 4: ("UINT16", 2), 5: ("INT16", 2), 6: ("INT32", 4),
    7: ("INT64", 8), 8: ("BYTES", 0), 9: ("BOOL", 1), 10: ("FP16", 2), 11: ("FP64", 8), 12: ("UINT32", 4),
    13: ("UINT64", 8), 14: ("COMPLEX64", 8), 15: ("COMPLEX128", 16), 16: ("BF16", 2), 17: ("FP8_E4M3FN", 1),
    18: ("FP8_E4M3FNUZ", 1), 19: ("FP8_E5M2", 1), 20: ("FP8_E5M2FNUZ", 1), 21: ("UINT4", 0.5), 22: ("INT4", 0.5),
}  # fmt: skip

_STANDARD: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})
_OF_ORT: Final = frozenset({"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})
# Operators that call back into Python, from onnxruntime-extensions and from ONNX Runtime's training build.
_CALLS_PYTHON: Final = frozenset({"PyOp", "PyCustomOp", "PyCustomOpDef", "PythonOp", "PythonOpGrad"})

_IR_VERSION, _PRODUCER, _PRODUCER_VERSION, _MODEL_VERSION, _GRAPH, _OPSET, _METADATA, _TRAINING, _FUNCTION = (
    1, 2, 3, 5, 7, 8, 14, 20, 25,
)  # fmt: skip

# Of these fields a message has one.
_PLAIN, _LIST, _MAP, _SPARSE, _OPTIONAL = 1, 4, 5, 8, 9  # what a value is
_KINDS: Final = frozenset({_PLAIN, _LIST, _MAP, _SPARSE, _OPTIONAL, 7})
_SIZE, _NAME = 1, 2  # what a dimension is


@dataclass
class _Found:
    """What has been counted while walking."""

    operators: dict[str, int] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    locations: set[str] = field(default_factory=set)
    calls_python: set[str] = field(default_factory=set)
    nodes: int = 0
    parameters: int = 0
    weight_bytes: float = 0


def read(path: Path, report: Report) -> None:
    """Fill in the report.

    Raises:
        ModelLoadError: it is no ONNX file, or an absurd one.
    """
    data, found = wire.mapped(path), _Found()
    try:
        _model(data, report, found)
    except wire.Malformed as error:
        raise ModelLoadError(
            f"{path}: cannot be read: it is no ONNX file, or a part of one ({error})",
            hint="check the file with onnx.checker, or export it again",
        ) from error
    except (_Absurd, wire.TooLong) as error:
        raise ModelLoadError(f"{path}: cannot be read: {error}") from error
    report.operators = by_count(found.operators)
    report.parameters, report.weight_bytes = found.parameters, int(found.weight_bytes)
    report.about["nodes"] = found.nodes
    _judge(path, report, found, len(data))


class _Absurd(Exception):
    pass


def _model(data: memoryview, report: Report, found: _Found) -> None:
    for number, value in wire.fields(data):
        if number == _IR_VERSION and isinstance(value, int):
            report.versions["IR"] = str(value)
        elif number == _MODEL_VERSION and isinstance(value, int) and 0 < value < 1 << 63:
            report.versions["model"] = str(value)
        elif number == _OPSET and isinstance(value, memoryview):
            domain = wire.text(wire.last(value, 1)) or "ai.onnx"
            report.versions[f"opset {domain}"] = str(wire.number(value, 2))
        elif number == _METADATA and isinstance(value, memoryview) and len(report.about) < _MOST_RANK:
            report.about[f"metadata {wire.text(wire.last(value, 1))[:64]}"] = wire.text(wire.last(value, 2))[:200]
        elif number == _TRAINING:
            report.find("odd", "it carries information for training, which serving does not use")
        elif number == _FUNCTION and isinstance(value, memoryview):
            report.about["functions"] = int(report.about.get("functions", 0)) + 1
            _nodes(value, 7, found, 1)
    if not wire.has(data, _GRAPH):
        raise wire.Malformed("it has no graph")
    producer = [wire.text(wire.last(data, number)) for number in (_PRODUCER, _PRODUCER_VERSION)]
    report.made_by = " ".join(filter(None, producer)) or None
    _top_graph(data, report, found)


def _top_graph(data: memoryview, report: Report, found: _Found) -> None:
    for part in wire.messages(data, _GRAPH):
        _graph(part, found, 0)
    weights = {wire.text(wire.last(each, 8)) for each in wire.messages(data, _GRAPH, 5)}
    inputs = [_tensor(value) for value in wire.messages(data, _GRAPH, 11)]
    # Until IR version 4, weights were listed among the inputs.
    report.inputs = [each for each in inputs if each.name not in weights]
    report.outputs = [_tensor(value) for value in wire.messages(data, _GRAPH, 12)]


def _graph(graph: memoryview, found: _Found, depth: int) -> None:
    _nodes(graph, 1, found, depth)
    for tensor in wire.messages(graph, 5):
        _weights(tensor, found)
    for sparse in wire.messages(graph, 15):
        _weights(wire.merged(sparse, 1), found)


def _nodes(holder: memoryview, number: int, found: _Found, depth: int) -> None:
    if depth > _DEEPEST:
        raise _Absurd(f"nested more than {_DEEPEST} deep")
    for node in wire.messages(holder, number):
        found.nodes += 1
        if found.nodes > MOST_NODES:
            raise _Absurd(f"more than {MOST_NODES} nodes")
        _node(node, found, depth)


def _node(node: memoryview, found: _Found, depth: int) -> None:
    kind, domain, attributes = "", "", []
    for number, value in wire.fields(node):
        if not isinstance(value, memoryview):
            continue
        if number == 4:
            kind = wire.text(value)
        elif number == 7:
            domain = wire.text(value)
        elif number == 5:
            attributes.append(value)
    found.domains.add(domain)
    if kind in _CALLS_PYTHON and domain not in _STANDARD:
        found.calls_python.add(f"{domain}.{kind}")
    name = kind if domain in ("", "ai.onnx") else f"{domain}.{kind}"
    found.operators[name] = found.operators.get(name, 0) + 1
    for attribute in attributes:
        _attribute(attribute, kind, found, depth)


def _attribute(attribute: memoryview, kind: str, found: _Found, depth: int) -> None:
    for number, value in wire.fields(attribute):
        if not isinstance(value, memoryview):
            continue
        if number in (6, 11):
            _graph(value, found, depth + 1)
        elif number == 10:
            _weights(value, found, counts=kind == "Constant")
        elif number in (22, 23):
            _weights(wire.merged(value, 1), found, counts=kind == "Constant")
    if wire.has(attribute, 5):
        _weights(wire.merged(attribute, 5), found, counts=kind == "Constant")


def _weights(tensor: memoryview, found: _Found, *, counts: bool = True) -> None:
    shape: list[int] = []
    kind = 0
    for number, value in wire.fields(tensor):
        if number == 1:
            shape += wire.numbers(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 13 and isinstance(value, memoryview) and wire.text(wire.last(value, 1)) == "location":
            found.locations.add(wire.name(wire.last(value, 2)))
        if len(shape) > _MOST_RANK:
            raise _Absurd(f"a tensor of more than {_MOST_RANK} dimensions")
    if counts:
        found.parameters += prod(shape)
        found.weight_bytes += prod(shape) * _TYPES.get(kind, ("", 0))[1]


def _tensor(value: memoryview) -> Tensor:
    datatype, shape = _type(wire.merged(value, 2), 0)
    return Tensor(name=wire.text(wire.last(value, 1)), datatype=datatype, shape=shape)


def _type(kind: memoryview, depth: int) -> tuple[str | None, list[int | str] | None]:
    if depth > _DEEPEST:
        raise _Absurd(f"a type nested more than {_DEEPEST} deep")
    number, value = wire.one_of(kind, _KINDS)
    if number in (_PLAIN, _SPARSE):
        code = wire.number(value, 1)
        shape = [_dimension(each) for each in wire.messages(value, 2, 1)] if wire.has(value, 2) else None
        return _TYPES.get(code, (f"type {code}", 0))[0], shape
    if number in (_LIST, _MAP):  # served as one tensor, whose shape is found by running it
        return _type(wire.merged(value, 1 if number == _LIST else 2), depth + 1)[0], None
    if number == _OPTIONAL:
        return f"optional of {_type(wire.merged(value, 1), depth + 1)[0]}", None
    return None, None


def _dimension(dimension: memoryview) -> int | str:
    number, _ = wire.one_of(dimension, {_NAME}, {_SIZE})
    if number == _SIZE:
        return wire.signed(wire.number(dimension, _SIZE))
    return wire.text(wire.last(dimension, _NAME)) or -1 if number == _NAME else -1


def _judge(path: Path, report: Report, found: _Found, size_bytes: int) -> None:
    _judge_domains(report, found)
    data_bytes = _judge_locations(path, report, found)
    if found.weight_bytes > size_bytes + data_bytes:
        report.find("odd", f"its weights are said to take {BYTES.plain(found.weight_bytes)}, which are not there")
    first = {each.shape[0] for each in report.inputs or () if each.shape}
    if first and all(isinstance(size, int) and size > 0 for size in first):
        report.find(
            "note",
            f"the batch dimension is fixed: {listed(str(size) for size in sorted(map(int, first)))}",
            "requests cannot run together; paceline optimize makes it dynamic where the graph allows",
        )
    if not report.inputs:
        report.find("odd", "it has no inputs")


def _judge_domains(report: Report, found: _Found) -> None:
    if found.calls_python:
        report.find("unsafe", f"operators that call Python code: {listed(sorted(found.calls_python))}")
    custom = sorted(found.domains - _STANDARD - _OF_ORT)
    if custom:
        report.find(
            "odd",
            f"operators of domains that ONNX Runtime does not have: {listed(custom)}",
            "they come from functions in the file, or from a library that has to be loaded beside it",
        )


def _judge_locations(path: Path, report: Report, found: _Found) -> int:
    """Report on external data; its size in bytes."""
    outside = sorted(each for each in found.locations if not names_inside(each, path.parent))
    inside = sorted(found.locations.difference(outside))
    if outside:
        report.find(
            "unsafe",
            f"external data outside of the model's folder: {listed(outside)}",
            "it is not read, and serving refuses the file",
        )
    missing = [each for each in inside if not (path.parent / each).is_file()]
    if missing:
        report.find("odd", f"external data is not there: {listed(missing)}", "put it beside the model")
    there = [each for each in inside if each not in missing]
    if there:
        report.find("note", f"its weights lie beside it: {listed(there)}", "move the files together")
    return sum((path.parent / each).stat().st_size for each in there)
