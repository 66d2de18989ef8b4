"""What is a PyTorch program once it is open, whichever way it was saved?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from paceline.core.tensors import Array, DataType, Signature
from paceline.runtimes.torch_library import library


@dataclass(frozen=True)
class Program:
    """A program, ready to be run.

    Attributes:
        call: from the inputs to the outputs, both tensors in the signature's order.
        source: what PyTorch opened: an `ExportedProgram`, or a `ScriptModule`.
    """

    platform: str
    signature: Signature
    call: Callable[[Sequence[Any]], Sequence[Any]]
    source: Any


@cache
def datatypes() -> dict[Any, DataType]:
    """By PyTorch's types, those that can be served."""
    torch = library()
    names = {
        "bool": DataType.BOOL,
        "uint8": DataType.UINT8,
        "uint16": DataType.UINT16,
        "uint32": DataType.UINT32,
        "uint64": DataType.UINT64,
        "int8": DataType.INT8,
        "int16": DataType.INT16,
        "int32": DataType.INT32,
        "int64": DataType.INT64,
        "float16": DataType.FP16,
        "float32": DataType.FP32,
        "float64": DataType.FP64,
        "bfloat16": DataType.BF16,
    }
    return {getattr(torch, name): datatype for name, datatype in names.items()}


def to_tensor(array: Array, datatype: DataType) -> Any:
    """A tensor with the array's values, copied: a program may write into its inputs."""
    torch = library()
    tensor = torch.tensor(array)
    return tensor.view(torch.bfloat16) if datatype is DataType.BF16 else tensor


def to_array(tensor: Any) -> Array:
    """The tensor's values as a C-contiguous array; see `DataType.BF16` for how those are held."""
    torch = library()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.contiguous().view(torch.uint16)
    array: Array = tensor.detach().contiguous().numpy()
    return array


def output_name(path: Iterable[Any]) -> str:
    """What the output at this place of the returned value is called: `output`, `output_0`, or its key in a dict.

    Args:
        path: PyTorch's keys, from the outside in.
    """
    keys = [str(getattr(key, "idx", getattr(key, "key", getattr(key, "name", "")))) for key in path]
    named = keys and not keys[0].isdigit()
    return "_".join(keys if named else ["output", *keys])
