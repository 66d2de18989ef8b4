"""Writes Open Inference requests by hand, and reads the answers, without a client library's help."""

from __future__ import annotations

import json
from typing import Any

import httpx

HEADER = "Inference-Header-Content-Length"


def connect(url: str) -> httpx.Client:
    """A client that asks for no compression."""
    return httpx.Client(base_url=url, headers={"accept-encoding": "identity"}, timeout=10)


def infer(client: httpx.Client, model: str, body: Any, *blobs: bytes, **headers: str) -> httpx.Response:
    """POST a request; `blobs` make it a binary one, `header` overrides the length announced."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json"}
    if blobs:
        sent = {"content-type": "application/octet-stream", HEADER: str(len(text))}
    sent |= {HEADER if name == "header" else name: value for name, value in headers.items()}
    return client.post(f"/v2/models/{model}/infer", content=text + b"".join(blobs), headers=sent)


def split(response: httpx.Response) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON of an answer, and the binary tensors behind it by name."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(HEADER, len(response.content)))
    document = json.loads(response.content[:length])
    rest, blobs = response.content[length:], {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            blobs[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return document, blobs


def error(response: httpx.Response, status: int = 400) -> str:
    """The message of an answer that must be an error."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/json"
    message: str = response.json()["error"]
    return message
