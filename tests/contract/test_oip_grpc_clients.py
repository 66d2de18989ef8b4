"""Triton's gRPC client against a real server: synchronous, asynchronous, in a stream."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from paceline.testing import RunningServer, run_server
from support import models

Served = tuple[RunningServer, triton.InferenceServerClient, Path]


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = models.mlp(tmp_path_factory.mktemp("grpc") / "mlp.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as server:
        client = triton.InferenceServerClient(f"{server.host}:{server.port}")
        yield server, client, path
        client.close()


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 64)).astype(np.float32)


def given(x: np.ndarray, datatype: str = "FP32") -> list[Any]:
    tensor = triton.InferInput("x", list(x.shape), datatype)
    tensor.set_data_from_numpy(x)
    return [tensor]


def close(result: Any, path: Path, x: np.ndarray) -> bool:
    expected = ort.InferenceSession(str(path)).run(None, {"x": x})[0]
    return bool(np.allclose(result.as_numpy("y"), expected, rtol=1e-4, atol=1e-5))


def test_what_the_client_asks_before_it_infers(mlp: Served) -> None:
    _, client, _ = mlp
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp", "1")
    assert client.get_server_metadata(as_json=True)["name"] == "paceline"
    assert client.get_model_metadata("mlp", as_json=True)["inputs"][0]["shape"] == ["-1", "64"]
    config = client.get_model_config("mlp", as_json=True)["config"]
    assert config["input"][0] == {"name": "x", "data_type": "TYPE_FP32", "dims": ["64"]}
    assert client.get_inference_statistics("mlp").model_stats[0].name == "mlp"
    with pytest.raises(InferenceServerException, match="not allowed"):
        client.get_model_repository_index()
    with pytest.raises(InferenceServerException, match="unknown method"):
        client.get_system_shared_memory_status()


def test_inference(mlp: Served) -> None:
    _, client, path = mlp
    for count, outputs, name in ((3, None, ""), (3, [triton.InferRequestedOutput("y")], "5"), (1000, None, "6")):
        result = client.infer("mlp", given(rows(count)), outputs=outputs, request_id=name)
        assert close(result, path, rows(count))
        assert result.get_response().id == name


def test_classification(mlp: Served) -> None:
    _, client, _ = mlp
    x = rows(2)
    scores = client.infer("mlp", given(x)).as_numpy("y")
    found = client.infer("mlp", given(x), outputs=[triton.InferRequestedOutput("y", class_count=3)]).as_numpy("y")
    assert found.shape == (2, 3)
    for row, values in zip(found, scores, strict=True):
        assert [int(item.decode().split(":")[1]) for item in row] == np.argsort(values)[::-1][:3].tolist()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(mlp: Served, algorithm: str) -> None:
    _, client, path = mlp
    assert close(client.infer("mlp", given(rows(100)), compression_algorithm=algorithm), path, rows(100))


def test_errors_reach_the_client(mlp: Served) -> None:
    _, client, _ = mlp
    with pytest.raises(InferenceServerException, match="data-type is 'FP64', but model 'mlp' expects 'FP32'") as caught:
        client.infer("mlp", given(rows(1).astype("f8"), "FP64"))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="unknown model: 'no' is not found"):
        client.infer("no", given(rows(1)))


def test_calls_in_the_background(mlp: Served) -> None:
    _, client, path = mlp
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for _ in range(50):
        client.async_infer("mlp", given(rows(2)), lambda result, error: done.put((result, error)), client_timeout=20)
    for _ in range(50):
        result, error = done.get(timeout=20)
        assert error is None
    assert close(result, path, rows(2))


def test_a_stream(mlp: Served) -> None:
    server, _, path = mlp
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as client:
        client.start_stream(lambda result, error: done.put((result, error)))
        for number in range(300):
            client.async_stream_infer("no" if number == 7 else "mlp", given(rows(2)), request_id=str(number))
        got = [done.get(timeout=20) for _ in range(300)]
        client.stop_stream()
    assert "unknown model: 'no'" in str(got.pop(7)[1])
    assert all(error is None for _, error in got)
    assert [result.get_response().id for result, _ in got] == [str(number) for number in range(300) if number != 7]
    assert close(got[0][0], path, rows(2))


def test_the_asynchronous_client(mlp: Served) -> None:
    server, _, path = mlp

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(20):
            yield {"model_name": "mlp", "inputs": given(rows(2)), "request_id": str(number)}

    async def work() -> None:
        async with triton_aio.InferenceServerClient(f"{server.host}:{server.port}") as client:
            assert await client.is_model_ready("mlp")
            results = await asyncio.gather(*[client.infer("mlp", given(rows(count))) for count in range(1, 30)])
            assert all(close(result, path, rows(count)) for count, result in enumerate(results, 1))
            ids = []
            async for result, error in client.stream_infer(requests()):
                assert error is None
                ids.append(result.get_response().id)
            assert ids == [str(number) for number in range(20)]

    asyncio.run(work())
