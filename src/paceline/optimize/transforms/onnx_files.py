"""How does a change read and write an ONNX file? As serving reads it; weights too many for one file lie beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from paceline.optimize.search.facts import size_bytes
from paceline.optimize.transforms.onnx_graph import inputs
from paceline.runtimes.onnx_file import check
from paceline.runtimes.onnx_session import open_session, session_options

# A protobuf holds 2 GiB at most, and the tools that read it make copies of parts of it.
_MOST_INSIDE_BYTES: Final = 1 << 30
# Files of before list their constants among the inputs, and do not mean that these could be given.
_LEAST_IR_OF_DEFAULTS: Final = 4


def load(path: Path) -> Any:
    """A model with all its weights, none of which is an input.

    Raises:
        ModelLoadError: it refers to what is not in its folder, or is absurd.
    """
    import onnx

    check(path)
    model = onnx.load(str(path))
    if model.ir_version < _LEAST_IR_OF_DEFAULTS:
        given = inputs(model.graph)
        del model.graph.input[:]
        model.graph.input.extend(given)
        model.ir_version = _LEAST_IR_OF_DEFAULTS
    return model


def save(model: Any, folder: Path, name: str = "model.onnx") -> str:
    """Write a model into a folder; the name of the file."""
    import onnx

    large = is_large(model)
    onnx.save(model, str(folder / name), save_as_external_data=large, location=f"{name}.data" if large else None)
    return name


def is_large(model: Any) -> bool:
    """True when it does not fit into one file, and so not into a session that is made of bytes."""
    return weight_bytes(model) > _MOST_INSIDE_BYTES


def weight_bytes(model: Any) -> int:
    """Of all initializers."""
    return sum(size_bytes(each) for each in model.graph.initializer)


def fold(model: Path, file: Path) -> None:
    """Write another file of the model, with its constants folded, and no operator that is not of the standard.

    Raises:
        ModelLoadError: ONNX Runtime does not take the model.
    """
    options = session_options("basic")
    options.optimized_model_filepath = str(file)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    open_session(model, options)
