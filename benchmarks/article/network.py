"""Which network is served on the processor? One with large weights, so that rows share the cost of reading them.

Rules:
- Its weights, 134 MB, are more than a processor's cache holds, and are read again in each of its steps, as those of
  a recurrent network are: with `STEPS`, a call takes about 0.3 s on two cores, and five copies fit into any memory.
- The same file on every machine: made from a seed, kept in the build folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

STEPS: Final = 80
FEW_STEPS: Final = 28

_GRAPH: Final = """
<ir_version: 8, opset_import: ["" : 17]>
recurrent (float[N, 64] x) => (float[N, 10] y) {
    first = MatMul (x, into)
    go = Constant <value = bool {1}> ()
    last = Loop (steps, go, first) <body = step (int64 i, bool go, float[N, 4096] state)
        => (bool on, float[N, 4096] next) {
            on = Identity (go)
            one = MatMul (state, w0)
            between = Relu (one)
            two = MatMul (between, w1)
            next = Relu (two)
        }>
    y = MatMul (last, out)
}
"""
_WEIGHTS: Final = {"into": (64, 4096), "w0": (4096, 4096), "w1": (4096, 4096), "out": (4096, 10)}


def network(folder: Path, steps: int) -> Path:
    """The file of the network: `x` [N, 64] -> `y` [N, 10]."""
    path = folder / f"recurrent_{steps}.onnx"
    if path.exists():
        return path
    import onnx

    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(_GRAPH)
    known: dict[str, np.ndarray] = {"steps": np.array(steps, np.int64)}
    for name, size in _WEIGHTS.items():
        known[name] = random.standard_normal(size, np.float32) * np.float32((2 / size[0]) ** 0.5)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in known.items())
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    onnx.save(model, partial)
    partial.rename(path)
    return path
