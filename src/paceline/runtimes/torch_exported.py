"""A program of `torch.export`: what it takes, what it gives, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paceline.core.errors import ModelLoadError
from paceline.core.tensors import Signature, TensorSpec
from paceline.runtimes.base import looks_batched
from paceline.runtimes.torch_library import first_line, library
from paceline.runtimes.torch_program import Program, datatypes, output_name


def open_exported(path: Path) -> Program:
    """Open a .pt2 file; `torch_file.check` comes first.

    Raises:
        ModelLoadError: it is broken, was written by another version, or takes what cannot be served.
    """
    torch = library()
    try:
        program = torch.export.load(str(path))
        module = _module(program)
    except Exception as error:  # PyTorch raises what comes
        raise ModelLoadError(
            f"{path}: cannot be loaded: {first_line(error)}",
            hint=f"export it again with this version of PyTorch, {torch.__version__}",
        ) from error
    inputs, outputs = _inputs(program, path), _outputs(program, path)
    signature = Signature(inputs, tuple(outputs.values()), looks_batched(inputs, tuple(outputs.values())))
    return Program("pytorch_export", signature, _caller(program, module, list(outputs)), program)


def _module(program: Any) -> Any:
    module = program.module()
    # What was assumed of sizes is checked by `_guards_fn`; the rest of the checks, that there are as many inputs as it
    # takes, would cost more than a small model.
    module.validate_inputs = not hasattr(module, "_guards_fn")
    return module


def _inputs(program: Any, path: Path) -> tuple[TensorSpec, ...]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    specs = [_spec(each.arg.name, values[each.arg.name], path) for each in _user_inputs(program) if _is_tensor(each)]
    if not specs:
        raise ModelLoadError(f"{path}: it takes no tensor")
    return tuple(specs)


def _outputs(program: Any, path: Path) -> dict[int, TensorSpec]:
    """By their place among the leaves of what the program returns."""
    from torch.export.graph_signature import OutputKind
    from torch.utils import _pytree as pytree

    leaves = [each for each in program.graph_signature.output_specs if each.kind is OutputKind.USER_OUTPUT]
    shape = pytree.tree_unflatten(range(len(leaves)), program.call_spec.out_spec)
    paths = {leaf: where for where, leaf in pytree.tree_flatten_with_path(shape)[0]}
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = {
        index: _spec(output_name(paths[index]), values[leaf.arg.name], path)
        for index, leaf in enumerate(leaves)
        if _is_tensor(leaf)
    }
    if not found:
        raise ModelLoadError(f"{path}: it returns no tensor")
    return found


def _user_inputs(program: Any) -> list[Any]:
    from torch.export.graph_signature import InputKind

    return [each for each in program.graph_signature.input_specs if each.kind is InputKind.USER_INPUT]


def _is_tensor(spec: Any) -> bool:
    from torch.export.graph_signature import TensorArgument

    return isinstance(spec.arg, TensorArgument)


def _spec(name: str, value: Any, path: Path) -> TensorSpec:
    """`value` stands for the tensor: it has a type, and a shape with symbols where any size fits."""
    datatype = datatypes().get(getattr(value, "dtype", None))
    if datatype is None:
        raise ModelLoadError(f"{path}: '{name}' has type {getattr(value, 'dtype', None)}, which cannot be served")
    return TensorSpec(name, datatype, tuple(size if isinstance(size, int) else -1 for size in value.shape))


def _caller(program: Any, module: Any, kept: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Puts tensors where the program wants them, among what was constant when it was exported."""
    from torch.utils import _pytree as pytree

    in_spec, out_spec = program.call_spec.in_spec, program.call_spec.out_spec
    constants = [None if _is_tensor(each) else getattr(each.arg, "value", None) for each in _user_inputs(program)]
    places = [index for index, each in enumerate(_user_inputs(program)) if _is_tensor(each)]

    def call(tensors: Sequence[Any]) -> Sequence[Any]:
        leaves = list(constants)
        for place, tensor in zip(places, tensors, strict=True):
            leaves[place] = tensor
        arguments, keywords = pytree.tree_unflatten(leaves, in_spec)
        returned = pytree.tree_leaves(module(*arguments, **keywords))
        return [returned[index] for index in kept]

    def call_simply(tensors: Sequence[Any]) -> Sequence[Any]:
        return [module(*tensors)]

    # Taking containers apart and putting them together costs as much as a small model.
    takes = pytree.tree_unflatten(range(len(constants)), in_spec)
    is_simple = takes == (tuple(places), {}) and out_spec.is_leaf()
    return call_simply if is_simple else call
