"""Clients that ask one after the other without a pause, some on connections that they keep, some on new ones."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from support.wire import post


@dataclass
class Load:
    """What became of the requests so far.

    Attributes:
        failed: what went wrong, and when, in monotonic seconds.
    """

    answered: int = 0
    failed: list[tuple[float, str]] = field(default_factory=list)


@contextmanager
def load(host: str, port: int, body: bytes, clients: int = 8) -> Iterator[Load]:
    """Load a server until the block ends. Every fourth client opens a connection for each request."""
    result, stop = Load(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_all(result, stop, host, port, post(body), clients)))
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join()


async def _all(result: Load, stop: threading.Event, host: str, port: int, request: bytes, clients: int) -> None:
    each = (_client(result, stop, host, port, request, keep=bool(number % 4)) for number in range(clients))
    await asyncio.gather(*each)


async def _client(result: Load, stop: threading.Event, host: str, port: int, request: bytes, *, keep: bool) -> None:
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while not stop.is_set():
        try:
            async with asyncio.timeout(10):
                streams = streams or await asyncio.open_connection(host, port)
                closes = await _ask(*streams, request)
            result.answered += 1
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            result.failed.append((time.monotonic(), f"{type(error).__name__}: {error}"))
            closes = True
        if streams is not None and (closes or not keep):
            streams[1].close()
            streams = None
    if streams is not None:
        streams[1].close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
    """One request; True when the connection must not be used again."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    if not head.startswith(b"http/1.1 200"):
        raise ValueError(head.split(b"\r\n")[0].decode())
    return b"connection: close" in head
