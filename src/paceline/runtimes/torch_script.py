"""TorchScript: what it takes, what it gives, and how it is called.

Rules:
- A file says how its inputs are called, and not what they are. A traced one holds the inputs that it was traced with.
  Any other needs rows beside it, in `NAME.examples.npz`: arrays called as the arguments of `forward`.
- Whether axis 0 is open is found out: one, two and three rows are run. All other axes are those of the example.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from paceline.core.errors import ModelLoadError
from paceline.core.tensors import DataType, Signature, TensorSpec
from paceline.runtimes.base import looks_batched
from paceline.runtimes.torch_library import first_line, library
from paceline.runtimes.torch_program import Program, datatypes, output_name, to_tensor

_TRIED_ROWS: Final = (1, 2, 3)


def examples_beside(path: Path) -> Path:
    """Where rows for a scripted model are looked for."""
    return path.with_name(f"{path.stem}.examples.npz")


def open_script(path: Path) -> Program:
    """Open a file of TorchScript's; `torch_file.check` comes first.

    Raises:
        ModelLoadError: it is broken, or nothing says what it takes.
    """
    module = load(path)
    sample = _sample(path, module)
    try:
        with library().inference_mode():
            outputs = _named(module(*sample.values()))
    except Exception as error:  # a program raises what comes
        raise ModelLoadError(f"{path}: it fails on its example: {first_line(error)}") from error
    if not outputs:
        raise ModelLoadError(f"{path}: it returns no tensor")
    is_open = _takes_any_rows(module, list(sample.values()))
    inputs = tuple(_spec(name, tensor, is_open, path) for name, tensor in sample.items())
    specs = tuple(_spec(name, tensor, is_open, path) for name, tensor in outputs.items())
    signature = Signature(inputs, specs, looks_batched(inputs, specs))
    return Program("pytorch_libtorch", signature, _caller(module), module)


def load(path: Path, *, with_shapes: bool = False) -> Any:
    """The module, in the mode for inference.

    Args:
        with_shapes: write the types of the inputs that it was traced with into its graph.
    """
    try:
        with _undeprecated():
            return library().jit.load(str(path), map_location="cpu", _restore_shapes=with_shapes).eval()
    except Exception as error:  # PyTorch raises what comes
        raise ModelLoadError(
            f"{path}: cannot be loaded: {first_line(error)}", hint="save it again with torch.jit.save, or torch.export"
        ) from error


def _sample(path: Path, module: Any) -> dict[str, Any]:
    """By name, tensors that it takes."""
    names = [each.name for each in module.forward.schema.arguments[1:] if not each.has_default_value()]
    beside = examples_beside(path)
    if beside.is_file():
        return _read(beside, names)
    if not names or not _was_traced(path):
        raise ModelLoadError(
            f"{path}: TorchScript does not tell the types and shapes of its inputs: {', '.join(names) or 'none'}",
            hint=f"put a few rows beside it, in {beside.name}, as arrays of these names; or use torch.export",
        )
    # Opened a second time: the module that runs must not take them for the only types and shapes there are.
    types = [each.type() for each in load(path, with_shapes=True).forward.graph.inputs()][1 : len(names) + 1]
    return {name: _ones(name, each, path) for name, each in zip(names, types, strict=True)}


def _was_traced(path: Path) -> bool:
    held: bool = library()._C.PyTorchFileReader(str(path)).has_record("traced_inputs.pkl")
    return held


def _ones(name: str, declared: Any, path: Path) -> Any:
    if declared.kind() != "TensorType" or declared.sizes() is None:
        raise ModelLoadError(f"{path}: expected '{name}' to be a tensor, got {declared.annotation_str}")
    return library().ones(declared.sizes(), dtype=declared.dtype())


def _read(path: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as held:
            return {name: to_tensor(held[name][:1], DataType.FP32) for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"{path}: cannot be read as rows: {first_line(error)}", hint=f"arrays called {', '.join(names)}"
        ) from error


def _takes_any_rows(module: Any, sample: Sequence[Any]) -> bool:
    if any(tensor.ndim == 0 for tensor in sample):
        return False
    for rows in _TRIED_ROWS:
        try:
            with library().inference_mode():
                given = [tensor[:1].expand(rows, *tensor.shape[1:]).contiguous() for tensor in sample]
                outputs = _named(module(*given)).values()
        except Exception:  # a program raises what comes: these rows do not fit
            return False
        if any(tensor.ndim == 0 or tensor.shape[0] != rows for tensor in outputs):
            return False
    return True


def _named(returned: Any) -> dict[str, Any]:
    from torch.utils import _pytree as pytree

    torch = library()
    leaves, _ = pytree.tree_flatten_with_path(returned)
    return {output_name(path): leaf for path, leaf in leaves if isinstance(leaf, torch.Tensor)}


def _caller(module: Any) -> Callable[[Sequence[Any]], Sequence[Any]]:
    def call(tensors: Sequence[Any]) -> Sequence[Any]:
        return list(_named(module(*tensors)).values())

    return call


def _spec(name: str, tensor: Any, is_open: bool, path: Path) -> TensorSpec:
    datatype = datatypes().get(tensor.dtype)
    if datatype is None:
        raise ModelLoadError(f"{path}: '{name}' has type {tensor.dtype}, which cannot be served")
    return TensorSpec(name, datatype, (-1, *tensor.shape[1:]) if is_open else tuple(tensor.shape))


@contextmanager
def _undeprecated() -> Iterator[None]:
    """TorchScript is deprecated; whoever serves a file of it knows, or cannot help it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        yield
