"""Is the REST API the same over HTTP/2? Every kind of request both ways: one status, one content type, one body."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from paceline.testing import RunningServer, run_server
from support import models
from support.frames import Frames
from support.wire import ask

pytestmark = pytest.mark.slow
_OIP = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1.0, 2.0, 5.0]}]}
_BINARY = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 12}}],
    "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
}
_BINARY_TEXT = json.dumps(_BINARY).encode()
_LENGTH = ("-H", f"Inference-Header-Content-Length: {len(_BINARY_TEXT)}")
_BLOB = _BINARY_TEXT + np.array([1, 2, 5], "<f4").tobytes()

# Path, status, body, further arguments of curl.
CASES: dict[str, tuple[str, int, bytes | None, tuple[str, ...]]] = {
    "plain": ("/predict", 200, b"1.0", ()),
    "plain batch": ("/batch-predict", 200, b"[1.0, 2.0, 5.0]", ()),
    "open inference": ("/v2/models/half/infer", 200, json.dumps(_OIP).encode(), ()),
    "open inference, binary": ("/v2/models/half/infer", 200, _BLOB, _LENGTH),
    "open inference metadata": ("/v2/models/half", 200, None, ()),
    "tensorflow serving": ("/v1/models/half:predict", 200, b'{"instances": [1.0, 2.0, 5.0]}', ()),
    "docs": ("/docs", 200, None, ()),
    "openapi": ("/openapi.json", 200, None, ()),
    "metrics": ("/metrics", 200, None, ()),
    "ready": ("/readyz", 200, None, ()),
    "compressed answer": ("/openapi.json", 200, None, ("--compressed",)),
    "no json": ("/predict", 400, b"{", ()),
    "wrong item": ("/predict", 400, b'"text"', ()),
    "no such route": ("/nowhere", 404, None, ()),
    "no such model": ("/v2/models/no/infer", 404, json.dumps(_OIP).encode(), ()),
    "no such method": ("/predict", 405, None, ()),
    "not acceptable type": ("/predict", 415, b"1.0", ("-H", "Content-Type: text/plain")),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = models.half_plus_two(tmp_path_factory.mktemp("half") / "half.onnx")
    with run_server(path, ["--warmup-s", "0.05", "--max-body-mb", "1"]) as running:
        yield running


@pytest.mark.parametrize("case", CASES)
def test_both_versions_of_http_answer_alike(server: RunningServer, case: str, tmp_path: Path) -> None:
    path, status, body, more = CASES[case]
    over = [asked(server, version, path, body, more, tmp_path) for version in ("--http1.1", "--http2-prior-knowledge")]
    assert over[0][0] == ("1.1", str(status))
    assert over[1][0] == ("2", str(status))
    assert over[0][1:] == over[1][1:]


def test_a_body_that_is_too_large_is_answered_alike(server: RunningServer) -> None:
    """Without curl, some releases of which lose an answer that comes before they have sent everything."""
    sent = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (2 << 20)
    first = ask(server, sent)
    with Frames(server) as client:
        client.send(client.head(1, "/predict", ("content-length", str(2 << 20))))
        head = client.until(lambda f: getattr(f, "stream_id", 0) == 1)
        second = client.until(lambda f: getattr(f, "stream_id", 0) == 1).data
    assert (first.status, head.status) == (413, 413)
    assert first.headers["content-type"] == head.headers["content-type"].decode()
    assert {**json.loads(first.body), "request_id": ""} == {**json.loads(second), "request_id": ""}


def asked(
    server: RunningServer, version: str, path: str, body: bytes | None, more: tuple[str, ...], folder: Path
) -> tuple[tuple[str, ...], dict[str, str], bytes]:
    """Version and status, headers, body."""
    sent, head, answer = folder / "sent", folder / "head", folder / "answer"
    command = ["curl", "-s", version, "-H", "X-Request-ID: same", "-H", "Expect:", "-D", str(head), "-o", str(answer)]
    if body is not None:
        sent.write_bytes(body)
        command += ["-H", "Content-Type: application/json"] if "Content-Type" not in str(more) else []
        command += ["--data-binary", f"@{sent}"]
    subprocess.run([*command, *more, server.url + path], timeout=20, check=True)
    first, *lines = head.read_text().strip().splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    http, code = first.removeprefix("HTTP/").split()[:2]
    for name in ("connection", "server-timing"):  # HTTP/2 has none of the first
        headers.pop(name, None)
    data = answer.read_bytes()
    if path == "/metrics":  # the numbers change
        data = re.sub(rb" [^ ]+\n", b"\n", data)
        headers.pop("content-length")
    return (http, code), headers, data
