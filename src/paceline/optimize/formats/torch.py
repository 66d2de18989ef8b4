"""How does a PyTorch program become ONNX? By PyTorch's own exporters: the one for `torch.export`, or for TorchScript.

Rules:
- The sizes that a program leaves open stay open. Those that it fixes stay fixed.
- Weights of less than 2 GiB are in the file itself, which is the most that ONNX's format allows.
- What it is compared with is the program, run by PyTorch.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

from paceline.core.errors import CannotChange
from paceline.core.tensors import Signature
from paceline.optimize.asking import answers
from paceline.optimize.data.rows import Rows
from paceline.optimize.formats.equality import FILE, converted
from paceline.optimize.result import Converted
from paceline.runtimes.options import RuntimeOptions
from paceline.runtimes.torch import TorchModel
from paceline.runtimes.torch_library import first_line, library
from paceline.runtimes.torch_program import to_tensor

_OPSET: Final = 18  # what both exporters write without converting versions
_MOST_INSIDE_BYTES: Final = 2_000_000_000


def convert(*, model: Path, rows: Path, folder: Path, allow_pickle: bool = False) -> Converted:  # noqa: ARG001
    """Convert a .pt2 or TorchScript file; see `optimize/formats`.

    Raises:
        CannotChange: an operator has no counterpart in ONNX.
        ModelLoadError, UnsafeModel, RuntimeUnavailable: it cannot be opened.
    """
    given = Rows.load(rows)
    native = TorchModel(model, RuntimeOptions())
    file = folder / FILE
    notes = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what will be different in later versions
            if isinstance(native.program.source, library().export.ExportedProgram):
                _export(native, file)
                notes = _notes(native.program.source)
            else:
                _export_script(native, given, file)
    except Exception as error:  # PyTorch raises what comes
        raise CannotChange(f"PyTorch cannot export it as ONNX: {first_line(error)}") from error
    return converted(file, given, answers(native, given), notes)


def _export(native: TorchModel, file: Path) -> None:
    source = native.program.source
    exported = library().onnx.export(
        source, output_names=_names(native.signature)[1], opset_version=_OPSET, dynamo=True, verbose=False
    )
    weights = sum(each.numel() * each.element_size() for each in source.state_dict.values())
    exported.save(str(file), external_data=weights > _MOST_INSIDE_BYTES)


def _export_script(native: TorchModel, rows: Rows, file: Path) -> None:
    signature = native.signature
    inputs, outputs = _names(signature)
    specs = signature.inputs
    example = [to_tensor(rows.inputs[spec.name][:1].astype(spec.datatype.dtype), spec.datatype) for spec in specs]
    is_open = all(spec.shape[:1] == (-1,) for spec in specs)
    library().onnx.export(
        native.program.source,
        tuple(example),
        str(file),
        input_names=inputs,
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)} if is_open else None,
        opset_version=_OPSET,
        dynamo=False,
    )


def _names(signature: Signature) -> tuple[list[str], list[str]]:
    return [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs]


def _notes(program: Any) -> list[str]:
    if not _is_training(program):
        return []
    return ["exported while it was being trained: answers are random; call model.eval() before torch.export.export"]


def _is_training(program: Any) -> bool:
    """True when a dropout is switched on in an exported program."""
    drops = [node.args for node in program.graph.nodes if node.target is library().ops.aten.dropout.default]
    return any(arguments[2:] == (True,) for arguments in drops)
