"""How fast are small gRPC calls, beside Triton and beside an echo of grpcio?

ModelInfer of the Open Inference Protocol with one row for the 64->128->10 model: one connection with 32 calls under
way, and 32 connections with one each. Each server runs alone, and is started anew in each round.

Rules:
- The client is the same for all, and the cheapest: h2load. Before a server is loaded, tritonclient asks it, and its
  numbers are compared with ONNX Runtime's; after it, the server's own count of inferences is compared with h2load's.
- The echo parses nothing and answers what is right for this one request: it is the most that grpcio.aio can do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, interleaved, middle
from benchmarks.h2load import Calls, as_data, call
from benchmarks.peers.catalogue import SETUPS
from benchmarks.peers.model import MODELS
from benchmarks.peers.results import Case
from benchmarks.peers.rounds import serving
from benchmarks.processes import Server, free_port, paceline, started
from benchmarks.report import rounds_table

METHOD = "/inference.GRPCInferenceService/ModelInfer"
SHAPES = {"1 connection x 32 streams": (1, 32), "32 connections x 1 stream": (32, 1)}
LEAST = {
    ("triton", "1 connection x 32 streams"): 1.5,
    ("grpcio.aio echo", "1 connection x 32 streams"): 3.0,
    ("triton", "32 connections x 1 stream"): 1.2,
}
_ECHO = Path(__file__).parent / "services" / "grpc_echo.py"
_MODEL = "mlp_64_128_10"  # the name of its file
_COUNTS = ("paceline", "triton")

Start = Callable[[], AbstractContextManager[Server]]


def measure(run: Run) -> Group:
    """All servers, both shapes."""
    try:
        import tritonclient.grpc  # noqa: F401
    except ImportError as error:
        raise BenchError(f"{error}; pip install 'tritonclient[grpc]'") from error
    group = Group("gRPC ModelInfer: the small model beside other servers")
    model = models.mlp(run.models, models.SMALL)
    row = np.random.default_rng(1).uniform(-1, 1, (1, models.SMALL[0])).astype(np.float32)
    expected = _expected(model, row)
    rounds = interleaved(
        {
            name: partial(_one, run, name, start, row, expected)
            for name, start in _servers(run, model, expected).items()
        },
        run.rounds,
    )
    samples = {
        f"{name}, {shape}": [each[shape] for each in turns] for name, turns in rounds.items() for shape in SHAPES
    }
    group.samples = as_data(samples)
    _compare(group, samples, list(rounds))
    group.notes = [
        "paceline: no flags, one process; gRPC on the port of HTTP",
        f"triton: {SETUPS['triton'].note}",
        "grpcio.aio echo: a generic handler that answers constant bytes, on asyncio's own loop, as grpcio advises",
    ]
    return group


def _servers(run: Run, model: Path, expected: np.ndarray) -> dict[str, Start]:
    triton = Case(SETUPS["triton"], MODELS["mlp"].make(run), "grpc")
    python = triton.setup.environment.python(run)
    return {
        "paceline": lambda: paceline(run, model),
        "triton": lambda: serving(run, triton, python=python),
        "grpcio.aio echo": lambda: _echo(run, expected),
    }


def _one(run: Run, name: str, start: Start, row: np.ndarray, expected: np.ndarray) -> dict[str, Calls]:
    with start() as server:
        message, answer = _checked(server.port, row, expected)
        call(run, server.url(METHOD), message, answer, 1, 32, 1)  # untimed: every code path once
        found = {}
        for shape, (connections, streams) in SHAPES.items():
            before = _inferences(server.port) if name in _COUNTS else 0
            found[shape] = call(run, server.url(METHOD), message, answer, connections, streams, run.either(5, 2))
            if name in _COUNTS and (counted := _inferences(server.port) - before) < found[shape].calls:
                raise BenchError(f"{name} counts {counted} inferences, h2load {found[shape].calls} answers")
        return found


def _compare(group: Group, samples: dict[str, list[Calls]], servers: list[str]) -> None:
    rows = []
    for shape in SHAPES:
        ours = middle(samples[f"paceline, {shape}"], "rate")
        for name in servers:
            each = samples[f"{name}, {shape}"]
            row = [shape, name, *(middle(each, what) for what in ("rate", "mean_ms", "max_ms"))]
            row += [middle(each, "answer_bytes"), middle(each, "client_cpu")]
            ratio = ours / middle(each, "rate")
            rows.append([*row, "" if name == "paceline" else f"{ratio:.2f}x"])
            if (name, shape) in LEAST:
                group.check(f"calls/s against {name}, {shape}", ratio, LEAST[name, shape], "x")
    columns = ("load", "server", "calls/s", "mean ms", "max ms", "answer bytes", "client cores", "ours is")
    group.tables.append(rounds_table("small model, ModelInfer", columns, rows))


# -- asking with tritonclient -------------------------------------------------------------------------------


def _checked(port: int, row: np.ndarray, expected: np.ndarray) -> tuple[bytes, bytes]:
    """The request and this server's answer as bytes, once the real client has had the right numbers."""
    import grpc
    import tritonclient.grpc as client
    from tritonclient.grpc import service_pb2 as pb

    asked = client.InferInput("x", row.shape, "FP32")
    asked.set_data_from_numpy(row)
    with client.InferenceServerClient(f"127.0.0.1:{port}") as triton_client:
        answer = triton_client.infer(_MODEL, [asked]).as_numpy("y")
    if answer is None or not np.allclose(answer, expected, rtol=1e-4, atol=1e-5):
        raise BenchError(f"port {port} gives other numbers than the model: {answer}")
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=row.shape)
    request = pb.ModelInferRequest(model_name=_MODEL, inputs=[tensor], raw_input_contents=[row.tobytes()])
    message = request.SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return message, channel.unary_unary(METHOD)(message, timeout=10)


def _inferences(port: int) -> int:
    import tritonclient.grpc as client

    with client.InferenceServerClient(f"127.0.0.1:{port}") as triton_client:
        statistics: Any = triton_client.get_inference_statistics(_MODEL)
    return sum(each.inference_stats.success.count for each in statistics.model_stats)


def _expected(model: Path, row: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": row})[0])


def _echo(run: Run, expected: np.ndarray) -> AbstractContextManager[Server]:
    from tritonclient.grpc import service_pb2 as pb

    tensor = pb.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=expected.shape)
    answer = pb.ModelInferResponse(model_name=_MODEL, model_version="1", outputs=[tensor])
    answer.raw_output_contents.append(expected.tobytes())
    path = run.folder / "bodies" / "answer.grpc"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(answer.SerializeToString())
    port = free_port()

    def ready(port: int) -> bool:
        import grpc

        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                return bool(channel.unary_unary(METHOD)(b"", timeout=5))
            except grpc.RpcError:
                return False

    return started(run, [sys.executable, str(_ECHO), str(port), METHOD, str(path)], port, ready=ready)
