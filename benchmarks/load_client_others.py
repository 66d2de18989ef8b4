"""How fast are closed loops that one would write in Python? `benchmarks.load_client` runs them as processes.

    python -m benchmarks.load_client_others uvloop|aiohttp|httpx URL CONNECTIONS SECONDS < BODY

Each connection posts the body, waits for the answer, and posts it again. Printed: answers per second, and cores taken.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import uvloop

_HEADERS = {"content-type": "application/json"}


class _Poster(asyncio.Protocol):
    """Posts again as soon as an answer has come; the shortest that works."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._received = b""
        self.answers = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        end = received.find(b"\r\n\r\n")
        head = received[:end].lower()
        at = head.find(b"content-length:") + 15
        if end < 0 or len(received) < end + 4 + int(head[at : head.find(b"\r", at) if b"\r" in head[at:] else None]):
            self._received = received
            return
        self._received = b""
        self.answers += 1
        if time.monotonic() < self._until:
            self._transport.write(self._request)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set_result(None)


async def _on_uvloop(url: str, body: bytes, connections: int, until: float) -> int:
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", *(f"{k}: {v}" for k, v in _HEADERS.items())]
    request = ("\r\n".join(lines) + f"\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body
    loop = asyncio.get_running_loop()
    posters = []
    for _ in range(connections):
        _, poster = await loop.create_connection(lambda: _Poster(request, until), parts.hostname, parts.port)
        posters.append(poster)
    await asyncio.gather(*(each.done for each in posters))
    return sum(each.answers for each in posters)


async def _on_aiohttp(url: str, body: bytes, connections: int, until: float) -> int:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=_HEADERS) as session:

        async def post() -> None:
            async with session.post(url, data=body) as response:
                response.raise_for_status()
                await response.read()

        return await _users(post, connections, until)


async def _on_httpx(url: str, body: bytes, connections: int, until: float) -> int:
    import httpx

    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(limits=limits, headers=_HEADERS) as client:

        async def post() -> None:
            (await client.post(url, content=body)).raise_for_status()

        return await _users(post, connections, until)


async def _users(post: Callable[[], Awaitable[None]], count: int, until: float) -> int:
    async def user() -> int:
        answers = 0
        while time.monotonic() < until:
            await post()
            answers += 1
        return answers

    return sum(await asyncio.gather(*(user() for _ in range(count))))


_KINDS = {"uvloop": _on_uvloop, "aiohttp": _on_aiohttp, "httpx": _on_httpx}


def main() -> None:
    kind, url, connections, seconds = sys.argv[1:]
    body = sys.stdin.buffer.read()
    begun, cpu_s = time.monotonic(), time.process_time()
    answers = uvloop.run(_KINDS[kind](url, body, int(connections), begun + float(seconds)))
    wall_s = time.monotonic() - begun
    json.dump({"rate": answers / wall_s, "cpu": (time.process_time() - cpu_s) / wall_s}, sys.stdout)


if __name__ == "__main__":
    main()
