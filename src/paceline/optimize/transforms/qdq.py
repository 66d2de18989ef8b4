"""How is a graph written with 8-bit numbers whose ranges are known? With pairs of Quantize- and DequantizeLinear.

Rules:
- Weights are signed and symmetric, one scale for each channel; activations unsigned, one range for each tensor: what
  x86 and Arm have one instruction for.
- A pair stands only where an operator reads its number as 8 bits. Elsewhere it would cost precision and time for
  nothing; so the model's outputs keep all their bits, and so do sums and norms between the products.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from paceline.optimize.quiet import quiet
from paceline.optimize.transforms.onnx_graph import copy, drop_unread, name_nodes, readers
from paceline.optimize.transforms.prepare import PRODUCTS, weighty_nodes

# Convolutions hand 8-bit numbers from one to the next, through what lies between them.
_BETWEEN_CONVOLUTIONS: Final = ("Add", "AveragePool", "Concat", "GlobalAveragePool", "MaxPool")
# What these put out is quantized; what they read need not be. ONNX Runtime leaves out those whose work is done by the
# range of what they put out; the tool itself would do so too early, before it is known which pairs remain.
_ACTIVATIONS: Final = ("Clip", "Relu")
_OPTIONS: Final = {"QDQKeepRemovableActivations": True}


@dataclass(frozen=True)
class Scheme:
    """How numbers become 8 bits.

    Attributes:
        per_channel: a scale for each output channel of the weights; else one for all.
        reduce_range: weights of 7 bits: without an instruction for 8-bit dot products, sums of 16 bits overflow.
    """

    per_channel: bool = True
    reduce_range: bool = False


def operators(model: Any) -> list[str]:
    """Kinds of operators whose numbers are worth 8 bits in this model."""
    return [*_readers(model), *_ACTIVATIONS]


def quantized(model: Any, ranges: Any, scheme: Scheme, floats: Collection[str] = ()) -> Any:
    """A prepared model with 8-bit numbers.

    Args:
        ranges: as `calibrate.ranges` found them.
        floats: names of nodes that stay as they are.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    copied = copy(model)
    # Types and shapes are there: a prepared model need not be written and read again to infer them.
    add_infer_metadata(copied)
    left = {*floats, *_of_two_activations(model)}
    with quiet():
        quantizer = QDQQuantizer(
            copied,
            scheme.per_channel,
            scheme.reduce_range,
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            [],
            sorted(left),
            operators(model),
            dict(_OPTIONS),
        )
        quantizer.quantize_model()
    written = quantizer.model.model
    drop_idle_pairs(written, _readers(model), left)
    name_nodes(written)
    return written


def drop_idle_pairs(model: Any, kinds: Sequence[str], floats: Collection[str]) -> int:
    """Take out the pairs behind which nothing computes with 8 bits; how many there were.

    Args:
        kinds: operators that read 8 bits.
        floats: names of nodes that do not, whatever their kind.
    """
    graph = model.graph
    nodes = list(graph.node)
    makers = {name: node for node in nodes for name in node.output}
    read_by = {name: [nodes[place] for place in places] for name, places in readers(nodes).items()}
    outputs = {each.name for each in graph.output}
    idle = [
        (makers[node.input[0]], node)
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in makers
        and makers[node.input[0]].op_type == "QuantizeLinear"
        and not any(each.op_type in kinds and each.name not in floats for each in read_by.get(node.output[0], ()))
        and len(read_by[node.input[0]]) == 1
        and (makers[node.input[0]].input[0] in makers or node.output[0] not in outputs)
    ]
    for quantize, dequantize in idle:
        _bridge(quantize.input[0], dequantize.output[0], makers, read_by, outputs)
        graph.node.remove(quantize)
        graph.node.remove(dequantize)
    drop_unread(graph)
    return len(idle)


def count_weights(model: Any) -> int:
    """How many tensors of weights are held in 8 bits and multiplied."""
    stored = {each.name for each in model.graph.initializer if len(each.dims) >= 2}
    kinds = ("DequantizeLinear", "MatMulInteger", "ConvInteger", "QAttention", "DynamicQuantizeLSTM")
    read = {name for node in model.graph.node if node.op_type in kinds for name in node.input}
    return len({name for name in stored & read if not name.endswith(("_scale", "_zero_point"))})


def _bridge(before: str, after: str, makers: Any, read_by: Any, outputs: Collection[str]) -> None:
    """Let those that read `after` read `before`; what the model puts out keeps its name."""
    if after not in outputs:
        for node in read_by.get(after, ()):
            node.input[:] = [before if name == after else name for name in node.input]
        read_by.setdefault(before, []).extend(read_by.get(after, ()))
        return
    maker = makers[before]
    maker.output[:] = [after if name == before else name for name in maker.output]
    makers[after] = maker
    for node in read_by.get(before, ()):
        node.input[:] = [after if name == before else name for name in node.input]


def _readers(model: Any) -> list[str]:
    """Kinds of operators that compute with 8 bits."""
    has_convolutions = any(node.op_type.startswith("Conv") for node in model.graph.node)
    return [*PRODUCTS, *(_BETWEEN_CONVOLUTIONS if has_convolutions else ())]


def _of_two_activations(model: Any) -> set[str]:
    """Products without weights, such as those inside of attention: 8 bits cost them much and gain little."""
    weighty = set(weighty_nodes(model))
    return {node.name for node in model.graph.node if node.op_type in PRODUCTS and node.name not in weighty}
