"""How fast is this machine really? Two seconds of memory copies and matrix products.

Rules:
- Each number is the best of many short runs: what the machine can do, not what its neighbours leave of it. The middle
  one stands beside it: where it is far off, something disturbs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, Final

from paceline.doctor.finding import Finding, note, ok
from paceline.doctor.host import Host
from paceline.runtimes.onnx_session import open_session, session_options

_SECONDS: Final = 0.4
_LEAST_RUNS: Final = 5
_COPY_BYTES: Final = 256 << 20  # past every cache
_WIDTH: Final = 1024
_ROWS: Final = 64
_UNSTEADY: Final = 1.3


def measure(host: Host) -> Iterator[Finding]:
    """Measure; takes about two seconds, and loads all usable cores."""
    best, middle = _copies()
    # A copy reads a byte and writes one.
    yield ok("memory bandwidth", f"{2 * _COPY_BYTES / best / 1e9:.1f} GB/s in one thread")
    yield from _steadiness(best, middle)
    yield from _products(host.cores.whole)


def _copies() -> tuple[float, float]:
    import numpy as np

    source = np.ones(_COPY_BYTES // 8)
    target = np.empty_like(source)
    return _timed(lambda: np.copyto(target, source))


def _steadiness(best: float, middle: float) -> Iterator[Finding]:
    if middle > _UNSTEADY * best:
        yield note(
            "steadiness",
            f"the same work takes {middle / best:.1f} times as long in the middle as at best",
            "something else runs here: what is measured now says little",
        )
    else:
        yield ok("steadiness", f"the same work takes {middle / best:.2f} times as long in the middle as at best")


def _products(threads: int) -> Iterator[Finding]:
    try:
        import onnx  # noqa: F401 (the models are made with it)
    except ImportError:
        yield note("matrix products", "not measured: onnx is not installed", "pip install 'paceline[demo]'")
        return
    operations = 2 * _ROWS * _WIDTH * _WIDTH
    f32, _ = _timed(_product("f32", threads))
    int8, _ = _timed(_product("int8", threads))
    yield ok("f32 products", f"{operations / f32 / 1e9:.0f} GFLOP/s in {threads} thread{'s' * (threads > 1)}")
    text = f"{operations / int8 / 1e9:.0f} GOP/s, {f32 / int8:.1f} times as fast as f32"
    if int8 < f32:
        yield ok("int8 products", text)
    else:
        yield note("int8 products", text, "int8 models are no faster here")


def _product(kind: str, threads: int) -> Callable[[], object]:
    """A product of [64, 1024] and [1024, 1024], as a model of ONNX Runtime's."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    is_f32 = kind == "f32"
    weights = random.integers(-128, 128, (_WIDTH, _WIDTH)).astype(np.float32 if is_f32 else np.int8)
    rows: Any = random.integers(0, 255, (_ROWS, _WIDTH)).astype(np.float32 if is_f32 else np.uint8)
    taken, given = (TensorProto.FLOAT, TensorProto.FLOAT) if is_f32 else (TensorProto.UINT8, TensorProto.INT32)
    graph = helper.make_graph(
        [helper.make_node("MatMul" if is_f32 else "MatMulInteger", ["x", "w"], ["y"])],
        kind,
        [helper.make_tensor_value_info("x", taken, [_ROWS, _WIDTH])],
        [helper.make_tensor_value_info("y", given, [_ROWS, _WIDTH])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = session_options()
    options.intra_op_num_threads = threads
    session = open_session(model.SerializeToString(), options)
    return lambda: session.run(None, {"x": rows})


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """The best and the middle of the seconds that runs take."""
    run()
    taken: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(taken) < _LEAST_RUNS or time.perf_counter() < until:
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return min(taken), median(taken)
