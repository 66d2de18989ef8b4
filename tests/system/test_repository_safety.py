"""Names and model files that mean harm: no file is touched that was not offered, and no memory taken beyond its cap."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from tritonclient.grpc import service_pb2, service_pb2_grpc

from paceline.core.errors import ModelLoadError
from paceline.core.tensors import Tensors
from paceline.runtimes.base import load
from paceline.testing import RunningServer, run_server
from support.repositories import put, times, wait
from support.wire import ask, get, memory_bytes, post

HOSTILE = [
    "../canary",
    "..",
    ".",
    "../../../../../../../../etc",
    "a/../../canary",
    "a/1",
    "/etc/passwd",
    "canary\0",
    "a\0",
    "a\n",
    "a\r\nx: y",
    "\x1b[2J",
    "..\\canary",
    "%2e%2e/canary",
    "a" * 5000,
    "",
]
TARGETS = [
    ("POST", "/models/{}/predict"),
    ("POST", "/models/{}/batch-predict"),
    ("GET", "/models/{}/example"),
    ("GET", "/v2/models/{}"),
    ("GET", "/v2/models/{}/ready"),
    ("GET", "/v2/models/{}/config"),
    ("GET", "/v2/models/{}/stats"),
    ("POST", "/v2/models/{}/infer"),
    ("POST", "/v2/models/{}/versions/1/infer"),
    ("POST", "/v2/repository/models/{}/load"),
    ("POST", "/v2/repository/models/{}/unload"),
    ("GET", "/v1/models/{}"),
    ("GET", "/v1/models/{}/metadata"),
    ("POST", "/v1/models/{}:predict"),
    ("POST", "/v1/models/{}:classify"),
    ("POST", "/v1/models/{}/labels/stable:predict"),
    ("GET", "/v1/models/a/labels/{}"),
]
TENSOR = b'{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}'
BODIES = {"infer": TENSOR, "predict": b'{"instances": [[1]]}', "load": b"{}", "unload": b"{}"}


# -- names ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Iterator[tuple[RunningServer, Path]]:
    """A server that loads by request, and beside its repository a model that it must not touch."""
    folder = tmp_path_factory.mktemp("safety")
    put(folder / "models", "a", 1)
    canary = folder / "canary" / "1"
    canary.mkdir(parents=True)
    # Whoever opens it waits for a writer that never comes.
    os.mkfifo(canary / "model.onnx")
    flags = ["--model-control-mode", "explicit", "--load-model", "a", "--warmup-s", "0", "--max-url-kb", "64"]
    with run_server(folder / "models", flags) as server:
        yield server, canary


@pytest.mark.slow
@pytest.mark.parametrize("raw", [False, True], ids=["escaped", "raw"])
@pytest.mark.parametrize(("method", "target"), TARGETS)
def test_fault_100_hostile_model_names(watched, method, target, raw):
    server, canary = watched
    looked_at = os.stat(canary).st_atime_ns
    for name in HOSTILE:
        if raw and (not name.isprintable() or " " in name):
            continue  # refused by the parser of HTTP, whose tests say so
        path = target.format(name if raw else quote(name, safe=""))
        verb = target.rpartition("/")[2].rpartition(":")[2]
        request = post(BODIES.get(verb, b"[1]"), target=path) if method == "POST" else get(path)
        answer = ask(server, request)
        # An empty name, or a raw slash, makes another address of it.
        assert answer.status in ((400, 404, 405) if raw or not name else (400, 404)), (path, answer.body)
        assert "/canary" not in json.loads(answer.body)["error"].replace(name, "")
    assert os.stat(canary).st_atime_ns == looked_at
    assert ask(server, post(b"[1]", target="/models/a/predict")).status == 200


GRPC_CALLS = [
    ("ModelMetadata", "name"),
    ("ModelConfig", "name"),
    ("ModelInfer", "model_name"),
    ("RepositoryModelLoad", "model_name"),
    ("RepositoryModelUnload", "model_name"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "field"), GRPC_CALLS)
def test_fault_100_hostile_model_names_over_grpc(watched, method, field):
    server, canary = watched
    looked_at = os.stat(canary).st_atime_ns
    request = getattr(service_pb2, f"{method}Request")
    answer = getattr(service_pb2, f"{method}Response")
    with grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
        call = channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}", request.SerializeToString, answer.FromString
        )
        for name in filter(None, HOSTILE):
            with pytest.raises(grpc.RpcError) as caught:
                call(request(**{field: name}), timeout=10)
            assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT), name
            assert "/canary" not in caught.value.details().replace(name, "")
    assert os.stat(canary).st_atime_ns == looked_at


# -- data outside the file ------------------------------------------------------------------------------------


def with_external_data(folder: Path, location: str, *, where: str = "initializer", real: str | None = None) -> Path:
    """A model `x` + weights, [N, 4], whose weights lie at `location`; they are written to `real` of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = np.arange(4, dtype=np.float32)
    if real is not None:
        (folder / real).parent.mkdir(parents=True, exist_ok=True)
        (folder / real).write_bytes(weights.tobytes())
    tensor = numpy_helper.from_array(weights, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = T.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    if where == "attribute":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", T.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", T.FLOAT, ["N", 4])],
        [tensor] if where == "initializer" else [],
    )
    if where == "subgraph":
        # Both branches of a condition hold the reference, one graph deeper.
        inner = helper.make_graph(
            [helper.make_node("Identity", ["w"], ["z"])],
            "i",
            [],
            [helper.make_tensor_value_info("z", T.FLOAT, [4])],
            [tensor],
        )
        choice = helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner)
        graph.ClearField("node")
        graph.node.extend([choice, helper.make_node("Add", ["x", "z"], ["y"])])
        graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def run(path: Path) -> Tensors:
    (instance,) = load(path).instances(1, 1)
    return instance.run((np.zeros((1, 4), np.float32),))


@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "data/weights.bin"])
def test_fault_103_data_beside_the_model_is_read(tmp_path, location):
    path = with_external_data(tmp_path / "m", location, real=location)
    assert run(path)[0].tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph"])
@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "data/../../secret.bin",
        "/etc/passwd",
        "link.bin",
        "linked/secret.bin",
        "loop",
        "..\\secret.bin",
        "C:\\secret.bin",
        "secret.bin\0.txt",
        "",
        "*/_ORT_MEM_ADDR_/*",
        "a\x1b[2Jb",
        "pipe",
    ],
)
def test_fault_103_data_elsewhere_is_refused_before_anything_is_opened(tmp_path, location, where):
    folder = tmp_path / "m"
    (folder / "data").mkdir(parents=True)
    # Whoever opens it waits for ever.
    os.mkfifo(tmp_path / "secret.bin")
    os.mkfifo(folder / "pipe")
    (folder / "link.bin").symlink_to("../secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    path = with_external_data(folder, location, where=where)
    with pytest.raises(ModelLoadError, match=r"external data '.*' is not (in the model's folder|there)") as caught:
        load(path)
    assert str(caught.value).isprintable()


def test_fault_103_data_in_a_mounted_volume(tmp_path):
    """As Kubernetes mounts it: every file is a link into a hidden folder, which is a link itself."""
    with_external_data(tmp_path / "..2024", "weights.bin", real="weights.bin")
    (tmp_path / "..data").symlink_to("..2024")
    for name in ("model.onnx", "weights.bin"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert run(tmp_path / "model.onnx")[0].tolist() == [[0, 1, 2, 3]]


@pytest.mark.slow
def test_fault_103_in_a_repository_and_in_a_single_file(tmp_path):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 16)
    put(tmp_path / "models", "a", 1)
    with run_server(tmp_path / "models", ["--repository-poll-s", "0.05"]) as server:
        with_external_data(tmp_path / "models/a/2", "../../../secret.bin")
        wait(lambda: "version 1 serves on" in server.output)
        assert "external data '../../../secret.bin' is not in the model's folder" in server.output
        assert ask(server, post(b"[1]")).status == 200
    code, said, _ = start(tmp_path / "models/a/2/model.onnx")
    assert code == 4
    assert "is not in the model's folder" in said


# -- absurd models --------------------------------------------------------------------------------------------


def start(path: Path, memory_mb: int = 4096) -> tuple[int, str, int]:
    """Exit code, stderr and peak memory in MiB of a server that must end by itself."""
    code = (
        "import resource, sys; from paceline.cli.main import main\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({memory_mb << 20}, {memory_mb << 20}))\n"
        "try: main(['serve', sys.argv[1], '--port', '0'])\n"
        "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    said, _, peak = result.stderr.rpartition("peak ")
    assert "Traceback" not in said
    return result.returncode, said, int(peak)


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _model_of(*graph: bytes) -> bytes:
    """A model of parts of a graph with the input x and the output y, [N, 3]."""
    shape = _field(1, _field(2, b"N")) + _field(1, b"\x08\x03")
    values = [_field(1, name) + _field(2, _field(1, b"\x08\x01" + _field(2, shape))) for name in (b"x", b"y")]
    whole = b"".join([*graph, _field(11, values[0]), _field(12, values[1])])
    return b"\x08\x08" + _field(7, whole) + _field(8, b"\x10\x11")


def _node(kind: bytes, *names: bytes, attribute: bytes = b"") -> bytes:
    *inputs, output = names
    named = b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, kind)
    return _field(1, named + (_field(5, attribute) if attribute else b""))


def deep() -> bytes:
    """Conditions in conditions, two thousand deep."""
    graph = _node(b"Identity", b"x", b"y")
    for _ in range(2000):
        graph = _node(b"If", b"x", b"y", attribute=_field(1, b"then_branch") + _field(6, graph) + b"\xa0\x01\x05")
    return _model_of(graph)


def _with_weights(*dims: int, rest: bytes = b"") -> bytes:
    sizes = b"".join(b"\x08" + _varint(size) for size in dims)
    return _model_of(_node(b"Add", b"x", b"w", b"y"), _field(5, sizes + b"\x10\x01" + _field(8, b"w") + rest))


def many_nodes() -> bytes:
    """A million of them, one behind the other."""
    names = [b"x", *(b"t%d" % index for index in range(999_999)), b"y"]
    return _model_of(*(_node(b"Identity", one, next_) for one, next_ in pairwise(names)))


def _grown(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", T.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", T.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def unpacked(size: int) -> bytes:
    """A hundred bytes that stand for a tensor of `size` numbers."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    return _grown(nodes, {"size": np.array([size], np.int64)})


def doubled() -> bytes:
    """Joined with itself forty-five times."""
    names = ["x", *(f"a{index}" for index in range(45))]
    nodes = [helper.make_node("Concat", [one, one], [two], axis=1) for one, two in pairwise(names)]
    return _grown(
        [*nodes, helper.make_node("ReduceSum", [names[-1], "axis"], ["y"])], {"axis": np.array([1], np.int64)}
    )


ABSURD = {
    "deep": deep,
    "huge": lambda: _with_weights(1 << 33),
    "overflow": lambda: _with_weights(1 << 62, 8),
    "negative": lambda: _with_weights((1 << 64) - 5),
    "rank": lambda: _with_weights(*[1] * 100_000),
    "short": lambda: _with_weights(1000, 3, rest=_field(9, b"\0" * 16)),
    "many_nodes": many_nodes,
    "unpacked": lambda: unpacked(1 << 33),
    "unpacked_more": lambda: unpacked(1 << 60),
    "doubled": doubled,
    "truncated": lambda: unpacked(3)[:-20],
    "length": lambda: b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "endless_number": lambda: b"\x08" + b"\xff" * 100,
    "group": lambda: b"\x3b\x3b\x3b",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ABSURD)
def test_fault_104_absurd_models_are_refused_within_bounds(tmp_path, kind):
    """The server ends with 4, or is live and says that the warm-up has failed; it never takes more than it may."""
    put(tmp_path / "models", "a", 1, build=lambda path: path.write_bytes(ABSURD[kind]()))
    code, said, peak_mb = start(tmp_path / "models", memory_mb=2048)
    assert code == 4, said
    last = next(line for line in said.splitlines() if line.startswith("error: "))
    assert "a/1/model.onnx: cannot be loaded: " in last or "warm-up failed" in last
    assert last.isprintable()
    assert peak_mb < 2048 + 256


@pytest.mark.slow
def test_fault_104_an_absurd_version_leaves_the_one_before_in_service(tmp_path):
    put(tmp_path, "a", 1)
    with run_server(tmp_path, ["--repository-poll-s", "0.05"]) as server:
        before = memory_bytes(server)
        for version, kind in enumerate(("deep", "many_nodes", "unpacked_more", "truncated"), 2):
            put(tmp_path, "a", version, build=lambda path, kind=kind: path.write_bytes(ABSURD[kind]()))
            wait(lambda version=version: f"version {version} is not loaded" in server.output)
            assert ask(server, post(b"[1]")).body == b"[1.0]"
        assert memory_bytes(server, "VmHWM") < before + (256 << 20)


def test_the_memory_of_the_machine_is_the_most_that_a_server_takes(tmp_path):
    with run_server(times(tmp_path / "m.onnx", 1), ["--warmup-s", "0"]) as server:
        soft, _ = resource.prlimit(server.process.pid, resource.RLIMIT_DATA)
    assert 0 < soft < 1 << 50


@pytest.mark.slow
def test_fault_100_no_hostile_name_is_ready(watched):
    server, canary = watched
    looked_at = os.stat(canary).st_atime_ns
    with grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name in filter(None, HOSTILE):
            assert not stub.ModelReady(service_pb2.ModelReadyRequest(name=name), timeout=10).ready, name
    assert os.stat(canary).st_atime_ns == looked_at
