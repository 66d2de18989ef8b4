"""With which inputs does Triton's `model_warmup` warm a model up?

Rules:
- The first sample counts: one batch is enough to warm up, and to measure with.
- Files are those of the folder `warmup` beside the model, in Triton's raw layout: little-endian, the length before
  each string. One that holds a single row is repeated for each row of the batch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from paceline.config.prototext import Block, read_prototext
from paceline.config.triton_config import CONFIG_NAME, batch_dimension, datatype, dims
from paceline.core.paths import is_inside

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER: Final = "warmup"

_CODES: Final = {
    **dict(zip(("BOOL", "FP16", "FP32", "FP64", "BF16", "BYTES"), ("?", "<f2", "<f4", "<f8", "<u2", "O"), strict=True)),
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
}
_KNOWN: Final = frozenset({"data_type", "dims", "zero_data", "random_data", "input_data_file"})
_MOST_ELEMENTS: Final = 1 << 28
_LENGTH_BYTES: Final = 4


def warmup_inputs(folder: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of the first sample in a model's `config.pbtxt`, by input name; None when it has none.

    BYTES are object arrays of `bytes`; BF16 arrays of bit patterns.

    Raises:
        ConfigError: the sample is wrong, or its file.
    """
    if not (folder / CONFIG_NAME).is_file():
        return None
    block = read_prototext(folder / CONFIG_NAME)
    for sample in block.blocks("model_warmup"):
        rows = sample.integer("batch_size") or 1
        if rows < 1:
            raise sample.wrong("batch_size", f"must be >= 1, got {rows}")
        batch = (rows,) if batch_dimension(block) else ()
        return {entry.text("key") or "": _array(entry, batch, folder) for entry in sample.blocks("inputs")}
    return None


def _array(entry: Block, batch: tuple[int, ...], folder: Path) -> NDArray[Any]:
    import numpy as np

    entry.allow({"key", "value"})
    tensor = entry.block("value")
    if tensor is None:
        raise entry.wrong("value", "must say data_type, dims and data")
    tensor.allow(_KNOWN)
    label, sizes = datatype(tensor), dims(tensor)
    if -1 in sizes:
        raise tensor.wrong("dims", f"must be sizes, without -1, got {list(sizes)}")
    shape = (*batch, *sizes)
    count = math.prod(shape)
    if count > _MOST_ELEMENTS:
        raise tensor.wrong("dims", f"at most {_MOST_ELEMENTS} elements, got {count}")
    name = tensor.text("input_data_file")
    if name is not None:
        return _from_file(tensor, folder / FOLDER, name, label, shape, math.prod(sizes))
    if label == "BYTES":
        return np.full(shape, b"", dtype=object)
    if tensor.boolean("random_data"):
        return _random(label, shape)
    return np.zeros(shape, _CODES[label])


def _random(label: str, shape: tuple[int, ...]) -> NDArray[Any]:
    import numpy as np

    random = np.random.default_rng(0)
    if label.startswith("FP"):
        return random.random(shape).astype(_CODES[label])
    # Any bits would do for Triton. An index or a token, though, is seldom larger than 1, and BF16 never so.
    return random.integers(0, 2, shape).astype(_CODES[label])


def _from_file(
    tensor: Block, folder: Path, name: str, label: str, shape: tuple[int, ...], row_elements: int
) -> NDArray[Any]:
    import numpy as np

    path = folder / name
    if not is_inside(path, folder):
        raise tensor.wrong("input_data_file", f"must be a file in {folder}, got {name!r}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise tensor.wrong("input_data_file", f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    if label == "BYTES":
        values: NDArray[Any] = _strings(tensor, path, data)
    elif len(data) % np.dtype(_CODES[label]).itemsize:
        raise tensor.wrong("input_data_file", f"{path}: {len(data)} bytes are no whole number of {label}")
    else:
        values = np.frombuffer(data, _CODES[label])
    count = math.prod(shape)
    if values.size not in (row_elements, count):
        raise tensor.wrong(
            "input_data_file", f"{path}: must hold {count} elements for {list(shape)}, has {values.size}"
        )
    return np.resize(values, shape)


def _strings(tensor: Block, path: Path, data: bytes) -> NDArray[Any]:
    import numpy as np

    strings, at = [], 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            raise tensor.wrong("input_data_file", f"{path}: the last string is cut short")
        strings.append(data[start:at])
    array = np.empty(len(strings), dtype=object)
    array[:] = strings
    return array
