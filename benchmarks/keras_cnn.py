"""What does serving a Keras model as ONNX bring over calling it, and over serving it as it is?

A small convolutional network, [28, 28, 1] -> 10, one image at a time. In Python: `model.predict`, the model called
as a function, and its SavedModel called as TensorFlow documents it. Served, asked by one connection with binary
tensors: the .keras file and the SavedModel as they are, and the model converted to ONNX. What is served is timed by
the client, with HTTP and all; what is called is not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.bench import BenchError, Group, Run, interleaved, middle, say
from benchmarks.environments import finished
from benchmarks.peers.model import Tensor
from benchmarks.peers.wires import binary_request
from benchmarks.processes import Server, paceline
from benchmarks.report import rounds_table
from benchmarks.wrk import load

_NEEDED = ("tensorflow", "keras", "tf2onnx", "sklearn")
_SCRIPT = Path(__file__).parent / "services" / "keras_cnn.py"
_CALLED = {"predict": "model.predict", "model": "the model as a function", "signature": "its SavedModel, called"}
_SERVED = {
    "keras": ("model.keras", "the .keras file, served"),
    "saved_model": ("saved_model", "its SavedModel, served"),
    "onnx": ("model.onnx", "converted to ONNX, served"),
}
_TITLES = {**_CALLED, **{name: title for name, (_, title) in _SERVED.items()}}
_SHAPE = (28, 28, 1)
_PATH = "/v2/models/cnn/infer"
_SAME = 1e-4


@dataclass(frozen=True)
class Times:
    """Of one image, in milliseconds."""

    p50_ms: float
    p99_ms: float


def measure(run: Run) -> Group:
    """Every way of calling and of serving, in turn."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BenchError(f"{', '.join(missing)}: not installed here; pip install 'paceline[tensorflow,test]'")
    folder = _made(run)
    seconds = run.either(3, 1)
    body, headers = binary_request([Tensor("image", "FP32", _SHAPE)], {"image": np.load(folder / "image.npy")})
    with ExitStack() as stack:
        call = stack.enter_context(_called(folder))
        cases: dict[str, Callable[[], Times]] = {name: partial(call, name, seconds) for name in _CALLED}
        for name, (file, _) in _SERVED.items():
            server = stack.enter_context(paceline(run, folder / file, ["--name", "cnn"]))
            _check(server, folder, body, headers)
            cases[name] = partial(_asked, run, server.url(_PATH), body, headers, seconds)
        samples = interleaved(cases, run.rounds)
    group = Group("A small convolutional network of Keras, one image at a time")
    group.samples = {name: [vars(each) for each in turns] for name, turns in samples.items()}
    _compare(group, samples)
    versions = (f"{name} {metadata.version(name)}" for name in ("keras", "tf2onnx", "onnxruntime"))
    group.notes = [f"{', '.join(versions)}; served: one connection, binary tensors, timed by the client"]
    return group


def _compare(group: Group, samples: dict[str, list[Times]]) -> None:
    ours = middle(samples["onnx"], "p50_ms")
    rows = []
    for name, title in _TITLES.items():
        p50_ms = middle(samples[name], "p50_ms")
        rows.append([title, p50_ms, middle(samples[name], "p99_ms"), "" if name == "onnx" else f"{p50_ms / ours:.1f}x"])
    group.tables.append(rounds_table("one image", ("way", "p50 ms", "p99 ms", "converted is"), rows))
    for name, least in (("predict", 10), ("signature", 1), ("saved_model", 1), ("keras", 1)):
        group.check(f"converted and served against {_TITLES[name]}", middle(samples[name], "p50_ms") / ours, least, "x")


def _made(run: Run) -> Path:
    folder = run.models / "keras_cnn"
    if not (folder / "model.onnx").exists():
        say("  training and converting a network")
        folder.mkdir(parents=True, exist_ok=True)
        finished([sys.executable, "-W", "ignore", str(_SCRIPT), "make", str(folder)])
    return folder


@contextmanager
def _called(folder: Path) -> Iterator[Callable[[str, float], Times]]:
    """A process that calls the model when it is asked to."""
    command = [sys.executable, "-W", "ignore", str(_SCRIPT), "call", str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asks, answers = process.stdin, process.stdout

        def call(way: str, seconds: float) -> Times:
            asks.write(f"{way} {seconds}\n")
            asks.flush()
            return Times(**json.loads(answers.readline()))

        if answers.readline() != "ready\n":
            raise BenchError(f"did not become ready: {command}")
        yield call
        asks.close()


def _check(server: Server, folder: Path, body: bytes, headers: Mapping[str, str]) -> None:
    answer, got = server.post(_PATH, body, headers)
    found = np.frombuffer(answer[int(got["inference-header-content-length"]) :], "<f4")
    if not np.allclose(found, np.load(folder / "expected.npy").ravel(), atol=_SAME):
        raise BenchError(f"{server.url(_PATH)} gives other numbers than the model")


def _asked(run: Run, url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Times:
    found = load(run, url, body, 1, seconds, headers)
    if found.failed:
        raise BenchError(f"{url}: {found.failed:.0%} of the requests failed")
    return Times(found.p50_ms, found.p99_ms)
