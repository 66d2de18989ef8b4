"""What is in a model of OpenVINO's? Layers, inputs and outputs, from its XML, piece by piece.

Rules:
- A document type is refused: entities in it expand without end, or stand for other files. No model has one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Final
from xml.parsers import expat

from paceline.core.errors import ModelLoadError
from paceline.inspection.report import Report, Tensor, by_count

_MOST_LAYERS: Final = 250_000
_MOST_BYTES: Final = 1 << 30
_MOST_NAMES: Final = 10_000
_COMMA: Final = re.compile(r"(?<!\\),")
_TYPES: Final = {
    "f16": "FP16", "f32": "FP32", "f64": "FP64", "bf16": "BF16", "boolean": "BOOL", "string": "BYTES",
    "i8": "INT8", "i16": "INT16", "i32": "INT32", "i64": "INT64", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32",
    "u64": "UINT64", "I8": "INT8", "I32": "INT32", "I64": "INT64", "U8": "UINT8",
}  # fmt: skip


class _Refused(Exception):
    pass


@dataclass
class _Port:
    name: str
    datatype: str
    shape: list[int | str] = field(default_factory=list)


@dataclass
class _Layer:
    number: str
    name: str
    kind: str
    named: str
    data: Mapping[str, str] = field(default_factory=dict)
    ports: list[_Port] = field(default_factory=list)


class _Walk:
    """Follows the elements; only the outermost network's inputs and outputs count."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._layers: list[_Layer] = []
        self._text: list[str] = []
        self.count = 0
        self.operators: dict[str, int] = {}
        self.parameters = 0
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._producers: dict[tuple[str, str], str] = {}
        self._results: dict[str, int] = {}  # by number of the layer: where the output stands in the report

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        self._text.clear()
        if tag == "net":
            self._report.about.setdefault("network", attributes.get("name", "?")[:200])
            self._report.versions.setdefault("IR", attributes.get("version", "?")[:32])
        elif tag == "layer":
            self._layer(attributes)
        elif tag == "data" and self._layers:
            self._layers[-1].data = attributes
        elif tag == "port" and self._layers:
            self._port(self._layers[-1], attributes)
        elif tag == "edge" and not self._layers:
            self._edge(attributes)
        elif tag == "Runtime_version":
            self._report.made_by = f"OpenVINO {attributes.get('value', '?')[:100]}"

    def end(self, tag: str) -> None:
        """An element ends."""
        if tag == "dim" and self._layers and self._layers[-1].ports:
            size = "".join(self._text)[:32]
            known = int(size) if size.lstrip("-").isdecimal() else -1
            self._layers[-1].ports[-1].shape.append(known)
        elif tag == "layer" and self._layers:
            self._finish(self._layers.pop())

    def text(self, data: str) -> None:
        """Text inside of an element."""
        if len(self._text) < 8:
            self._text.append(data)

    def _layer(self, attributes: dict[str, str]) -> None:
        self.count += 1
        if self.count > _MOST_LAYERS:
            raise _Refused(f"more than {_MOST_LAYERS} layers")
        kind = attributes.get("type", "?")[:200]
        self.operators[kind] = self.operators.get(kind, 0) + 1
        name = attributes.get("name", "?")[:1000]
        self._layers.append(_Layer(attributes.get("id", ""), name, kind, _any_of(attributes.get("output_names", ""))))

    def _port(self, layer: _Layer, attributes: dict[str, str]) -> None:
        name = layer.named or _any_of(attributes.get("names", ""))
        layer.ports.append(_Port(name, attributes.get("precision", "")))
        if len(self._layers) == 1:
            self._producers[layer.number, attributes.get("id", "")] = name

    def _edge(self, attributes: dict[str, str]) -> None:
        """An output that has no name is called as the port that leads to it, which is only known now."""
        name = self._producers.get((attributes.get("from-layer", ""), attributes.get("from-port", "")))
        index = self._results.get(attributes.get("to-layer", ""))
        if name and index is not None:
            self.outputs[index].name = self.outputs[index].name or name

    def _finish(self, layer: _Layer) -> None:
        if layer.kind == "Const":
            sizes = [int(size) for size in layer.data.get("shape", "").split(",") if size.strip().isdecimal()]
            self.parameters += prod(sizes)
        if self._layers or not layer.ports:  # a layer inside of another: of a loop's body
            return
        port = layer.ports[0]
        datatype = _TYPES.get(layer.data.get("element_type", ""), port.datatype or None)
        if layer.kind == "Parameter":
            self.inputs.append(Tensor(name=port.name, datatype=datatype, shape=port.shape))
        elif layer.kind == "Result":
            self._results[layer.number] = len(self.outputs)
            self.outputs.append(Tensor(name=port.name, datatype=datatype, shape=port.shape))


def read(path: Path, report: Report) -> None:
    """Fill in the report of an .xml file, beside which its weights lie.

    Raises:
        ModelLoadError: it is none.
    """
    walk = _Walk(report)
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = walk.start, walk.end
    parser.CharacterDataHandler = walk.text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _Refused(f"it has more than {_MOST_BYTES} bytes")
        with path.open("rb") as file:
            parser.ParseFile(file)
    except (expat.ExpatError, _Refused) as error:
        raise ModelLoadError(f"{path}: cannot be read: {error}", hint="save it again with ov.save_model()") from error
    report.operators = by_count(walk.operators)
    report.parameters = walk.parameters
    report.about["layers"] = walk.count
    report.inputs, report.outputs = walk.inputs, walk.outputs
    if not all(each.name for each in [*walk.inputs, *walk.outputs]):
        report.find("odd", "an input or output has no name: it cannot be served", "name it: port.set_names({'x'})")
    _weights(path, report)


def _any_of(names: str) -> str:
    """The one of several names that OpenVINO takes: the first by the alphabet. A comma in a name has a backslash."""
    found = [each.replace("\\,", ",") for each in _COMMA.split(names[:_MOST_NAMES])]
    return min(filter(None, found), default="")


def _refuse(*_: object) -> None:
    raise _Refused("it declares a document type, which no model has")


def _weights(path: Path, report: Report) -> None:
    beside = path.with_suffix(".bin")
    if beside.is_file():
        report.weight_bytes = beside.stat().st_size
    elif report.parameters:
        report.find("odd", f"its weights are not there: {beside.name}", "put the .bin beside the .xml")
