"""How does a change read and write an ONNX file? As serving reads it; weights too many for one file lie beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from paceline.optimize.facts import size_bytes
from paceline.runtimes.onnx_file import check

# A protobuf holds 2 GiB at most, and the tools that read it make copies of parts of it.
_MOST_INSIDE_BYTES: Final = 1 << 30


def load(path: Path) -> Any:
    """A model with all its weights.

    Raises:
        ModelLoadError: it refers to what is not in its folder, or is absurd.
    """
    import onnx

    check(path)
    return onnx.load(str(path))


def save(model: Any, folder: Path, name: str = "model.onnx") -> str:
    """Write a model into a folder; the name of the file."""
    import onnx

    large = sum(size_bytes(tensor) for tensor in model.graph.initializer) > _MOST_INSIDE_BYTES
    onnx.save(model, str(folder / name), save_as_external_data=large, location=f"{name}.data" if large else None)
    return name
