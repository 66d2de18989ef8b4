"""The real client library against a real server: synchronous, asynchronous, compressed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from paceline.testing import RunningServer, run_server
from support import models, oip, oip_models

Served = tuple[RunningServer, triton.InferenceServerClient, Path]


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _serve(models.mlp(tmp_path_factory.mktemp("oip") / "mlp.onnx"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _serve(oip_models.text(tmp_path_factory.mktemp("oip") / "text.onnx"))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _serve(models.identity(tmp_path_factory.mktemp("oip") / "half.onnx", oip_models.ELEMENTS["FP16"]))


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _serve(models.identity(tmp_path_factory.mktemp("oip") / "brain.onnx", oip_models.ELEMENTS["BF16"]))


def _serve(path: Path) -> Iterator[Served]:
    with run_server(path, ["--warmup-s", "0.05"]) as server:
        client = triton.InferenceServerClient(f"{server.host}:{server.port}")
        yield server, client, path
        client.close()


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 64)).astype(np.float32)


def given(module: object, name: str, array: np.ndarray, datatype: str, *, binary: bool = True) -> list:
    tensor = module.InferInput(name, list(array.shape), datatype)  # type: ignore[attr-defined]
    tensor.set_data_from_numpy(array, binary_data=binary)
    return [tensor]


def expected(path: Path, x: np.ndarray) -> np.ndarray:
    y: np.ndarray = ort.InferenceSession(str(path)).run(None, {"x": x})[0]
    return y


def test_what_the_client_asks_before_it_infers(mlp: Served) -> None:
    _, client, _ = mlp
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp")
    assert client.is_model_ready("mlp", "1")
    assert not client.is_model_ready("no")
    assert client.get_server_metadata()["name"] == "paceline"
    assert client.get_model_metadata("mlp")["inputs"][0]["shape"] == [-1, 64]
    assert client.get_model_config("mlp", "1")["input"][0]["dims"] == [64]
    assert client.get_inference_statistics()["model_stats"][0]["name"] == "mlp"
    with pytest.raises(InferenceServerException, match="not allowed"):
        client.get_model_repository_index()


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_the_same_numbers_as_in_process(mlp: Served, binary_in: bool, binary_out: bool | None) -> None:
    _, client, path = mlp
    x = rows(3)
    outputs = None if binary_out is None else [triton.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer("mlp", given(triton, "x", x, "FP32", binary=binary_in), outputs=outputs, request_id="5")
    assert np.array_equal(result.as_numpy("y"), expected(path, x))
    assert result.get_response()["id"] == "5"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_both_ways(mlp: Served, algorithm: str, binary: bool) -> None:
    server, client, path = mlp
    x = rows(100)  # enough for the answer to be worth compressing
    result = client.infer(
        "mlp",
        given(triton, "x", x, "FP32", binary=binary),
        outputs=[triton.InferRequestedOutput("y", binary_data=binary)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.allclose(result.as_numpy("y"), expected(path, x), rtol=1e-5, atol=1e-6)
    with oip.connect(server.url) as plain:
        asked = {"name": "x", "shape": [100, 64], "datatype": "FP32", "data": x.ravel().tolist()}
        response = oip.infer(plain, "mlp", {"inputs": [asked]}, **{"accept-encoding": algorithm})
    assert response.headers["content-encoding"] == algorithm


def test_the_asynchronous_client(mlp: Served) -> None:
    server, _, path = mlp

    async def work() -> None:
        async with triton_aio.InferenceServerClient(f"{server.host}:{server.port}") as client:
            assert await client.is_model_ready("mlp")
            batches = [rows(count) for count in range(1, 6)]
            calls = [client.infer("mlp", given(triton_aio, "x", x, "FP32", binary=bool(len(x) % 2))) for x in batches]
            for x, result in zip(batches, await asyncio.gather(*calls), strict=True):
                assert np.allclose(result.as_numpy("y"), expected(path, x), rtol=1e-5, atol=1e-6)
            squeezed = await client.infer(
                "mlp",
                given(triton_aio, "x", rows(100), "FP32"),
                request_compression_algorithm="gzip",
                response_compression_algorithm="gzip",
            )
            assert squeezed.as_numpy("y").shape == (100, 10)

    asyncio.run(work())


def test_classification(mlp: Served) -> None:
    _, client, path = mlp
    x = rows(2)
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("y", binary_data=binary, class_count=3)]
        result = client.infer("mlp", given(triton, "x", x, "FP32"), outputs=outputs)
        assert result.get_output("y")["datatype"] == "BYTES"
        found = result.as_numpy("y")
        assert found.shape == (2, 3)
        for row, scores in zip(found, expected(path, x), strict=True):
            best = np.argsort(scores)[::-1][:3]
            texts = [item.decode() if isinstance(item, bytes) else item for item in row]
            assert [int(item.split(":")[1]) for item in texts] == best.tolist()
            assert texts[0].split(":")[0] == f"{scores[best[0]]:f}"


def test_errors_reach_the_client(mlp: Served) -> None:
    _, client, _ = mlp
    with pytest.raises(InferenceServerException, match="data-type is 'FP64', but model 'mlp' expects 'FP32'"):
        client.infer("mlp", given(triton, "x", rows(1).astype("f8"), "FP64"))
    with pytest.raises(InferenceServerException, match="unknown model: 'no' is not found"):
        client.infer("no", given(triton, "x", rows(1), "FP32"))


def test_a_large_request_is_served_in_parts(mlp: Served) -> None:
    _, client, path = mlp
    x = rows(1000)
    result = client.infer("mlp", given(triton, "x", x, "FP32"))
    assert np.allclose(result.as_numpy("y"), expected(path, x), rtol=1e-4, atol=1e-5)


def test_statistics_add_up(mlp: Served) -> None:
    _, client, _ = mlp
    before = client.get_inference_statistics("mlp")["model_stats"][0]
    for _ in range(4):
        client.infer("mlp", given(triton, "x", rows(2), "FP32"))
    after = client.get_inference_statistics("mlp", "1")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 8
    counts = [each["inference_stats"]["success"]["count"] for each in (before, after)]
    assert counts[1] - counts[0] == 4


@pytest.mark.parametrize("binary", [True, False])
def test_text(text: Served, binary: bool) -> None:
    _, client, _ = text
    x = np.array([["über"], [""], ["🙂"]], dtype=object)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = client.infer("text", given(triton, "x", x, "BYTES", binary=binary), outputs=outputs)
    got = [item.decode() if isinstance(item, bytes) else item for item in result.as_numpy("y").ravel()]
    assert got == x.ravel().tolist()


def test_raw_text(text: Served) -> None:
    server, _, _ = text
    with httpx.Client(base_url=server.url) as client:
        _, blobs = oip.split(oip.infer(client, "text", b"nur Text", header="0"))
    assert blobs == {"y": b"\x08\x00\x00\x00nur Text"}


def test_half_floats_in_binary(half: Served) -> None:
    x = np.array([[0.1, -2, 65504], [1e-7, 0, 3]], np.float16)
    assert np.array_equal(half[1].infer("half", given(triton, "x", x, "FP16")).as_numpy("y"), x)


def test_brain_floats_in_binary(brain: Served) -> None:
    import ml_dtypes

    x = np.array([[0.5, -2, 3e38], [1e-30, 0, 3]], ml_dtypes.bfloat16)
    assert np.array_equal(brain[1].infer("brain", given(triton, "x", x, "BF16")).as_numpy("y"), x)
