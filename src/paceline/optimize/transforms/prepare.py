"""What must be true of a graph before it is quantized or pruned? Shapes known, constants folded, nodes named.

Rules:
- The model is read as serving reads it: external data only from its own folder, no absurd graphs.
- Preparing changes no answer: constants are folded, and what the standard has an operator for is one operator.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from paceline.core.errors import CannotChange, first_line
from paceline.optimize.transforms.onnx_files import fold, load
from paceline.optimize.transforms.onnx_graph import add_constant, array_of, constants, drop_unread, name_nodes
from paceline.runtimes.onnx_file import check
from paceline.runtimes.onnx_session import open_session, session_options

PRODUCTS: Final = ("MatMul", "Gemm", "Conv", "ConvTranspose")
"""Operators that multiply what comes in with weights: nearly all the time of a network is spent in them."""

# Scales for each channel came to QuantizeLinear with opset 13.
_LEAST_OPSET: Final = 13
_CURRENT_OPSET: Final = 17


def prepare(model: Path) -> Any:
    """Read a model, and fold what is constant in it.

    Returns:
        An `onnx.ModelProto` with its weights, in which each tensor has a type, and a shape as far as it is known.

    Raises:
        CannotChange: its operators are older than those for quantized numbers, and cannot be brought up.
        ModelLoadError: it refers to what is not in its folder, or is absurd, or ONNX Runtime does not take it.
    """
    check(model)
    with TemporaryDirectory() as work:
        folded = _folded(_current(model, Path(work)), Path(work))
    name_nodes(folded)
    _flatten_biases(folded)
    _trim_domains(folded)
    return folded


def weighty_nodes(model: Any) -> list[str]:
    """Names of the nodes that multiply with constant weights, in the graph's order."""
    known = constants(model)
    return [node.name for node in model.graph.node if node.op_type in PRODUCTS and node.input[1] in known]


def opset(model: Any) -> int:
    """The version of the standard's own operators."""
    return next((int(each.version) for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)


def _current(model: Path, folder: Path) -> Path:
    """The model in an opset that has quantized numbers."""
    import onnx
    from onnx import version_converter

    graph = onnx.load(str(model), load_external_data=False)
    if not 0 < opset(graph) < _LEAST_OPSET:
        return model
    try:
        converted = version_converter.convert_version(onnx.load(str(model)), _CURRENT_OPSET)
    except Exception as error:  # RuntimeError or its own ConvertError, by what fails
        raise CannotChange(
            f"the model is written in opset {opset(graph)}, 8-bit numbers need {_LEAST_OPSET}, "
            f"and it cannot be brought up: {first_line(error)}"
        ) from error
    onnx.save(converted, str(folder / "current.onnx"))
    return folder / "current.onnx"


def _folded(model: Path, folder: Path) -> Any:
    """The model as ONNX Runtime folds it, with its weights."""
    fold(model, folder / "folded.onnx")
    described = _described(folder / "folded.onnx")
    folded = load(folder / "folded.onnx")
    del folded.graph.value_info[:]
    folded.graph.value_info.extend(described)
    return folded


def _described(model: Path) -> list[Any]:
    """Type and shape of each tensor inside. ONNX Runtime tells them of outputs, for all operators that it has."""
    import onnx

    opened = onnx.load(str(model), load_external_data=False)
    declared = {each.name for each in opened.graph.output}
    inside = [name for node in opened.graph.node for name in node.output if name and name not in declared]
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside)
    onnx.save(opened, str(model.with_name("opened.onnx")))
    session = open_session(model.with_name("opened.onnx"), session_options("none"))
    told = {each.name: each for each in session.get_outputs()}
    found = [_description(told[name]) for name in inside]
    return [each for each in found if each is not None]


def _description(told: Any) -> Any:
    """As ONNX writes it; None: it is no tensor of numbers."""
    import numpy as np
    from onnx import helper

    name = told.type.removeprefix("tensor(").removesuffix(")")
    name = {"float": "float32", "double": "float64"}.get(name, name)
    if name not in np.sctypeDict:
        return None
    # No axes: a single number, or nobody knows; both are told alike.
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(name))
    return helper.make_tensor_value_info(told.name, kind, told.shape or None)


def _flatten_biases(model: Any) -> None:
    """A bias of shape [1, n], as skl2onnx writes them, becomes one of [n]: the quantizer takes no other."""
    known = constants(model)
    for node in model.graph.node:
        bias = known.get(node.input[2]) if node.op_type == "Gemm" and len(node.input) > 2 else None
        if bias is not None and len(bias.dims) == 2 and bias.dims[0] == 1:
            node.input[2] = add_constant(model.graph, array_of(model, node.input[2]).ravel(), f"{node.name}_bias")
    drop_unread(model.graph)


def _trim_domains(model: Any) -> None:
    """ONNX Runtime names all the sets of operators that it has; other readers take that for what is needed."""
    used = {node.domain for node in model.graph.node} | {node.domain for each in model.functions for node in each.node}
    kept = [each for each in model.opset_import if each.domain in used | {"", "ai.onnx"}]
    del model.opset_import[:]
    model.opset_import.extend(kept)
