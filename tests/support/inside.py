"""A whole server in this process, without sockets: an App, and connections on transports that remember."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from paceline.config.settings import ServeSettings
from paceline.engine.engine import Engine, Entry
from paceline.engine.model import ServedModel
from paceline.engine.warmup import Wishes, prepare
from paceline.runtimes.base import load
from paceline.server.app import App
from paceline.server.http1 import HttpConnection, Limits
from paceline.server.protocols import all_methods, all_routes


class Transport(asyncio.Transport):
    """Remembers what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self._anything = asyncio.Event()

    async def answer(self) -> bytes:
        """What was written, once anything was."""
        async with asyncio.timeout(20):
            await self._anything.wait()
        return self.written

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        self._anything.set()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        pass

    abort = close


class Inside:
    """One model behind an App, on the running loop; `options` are `ServedModel`'s."""

    def __init__(self, path: Path, **options: Any) -> None:
        loaded = load(path)
        entry = Entry(path.stem, "1", loaded.platform, loaded.signature)
        self.model = ServedModel(path.stem, "1", prepare(loaded, 1, Wishes(budget_s=0.05)), **options)
        engine = Engine()
        engine.add(entry)
        engine.opened(entry, self.model)
        self.app = App(engine, Limits())
        self.app.mount(all_routes(self.app, ServeSettings()))
        self.app.grpc.mount(all_methods(self.app, ServeSettings()))

    def send(self, path: str, body: Any, *header: str) -> tuple[HttpConnection, Transport]:
        """POST a body on a connection of its own."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "host: a", f"content-length: {len(raw)}", *header]
        data = "\r\n".join(lines).encode() + b"\r\n\r\n" + raw
        connection, transport = HttpConnection(self.app), Transport()
        connection.connection_made(transport)
        while data:
            buffer = connection.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size], data = data[:size], data[size:]
            connection.buffer_updated(size)
        return connection, transport

    async def post(self, path: str, body: Any, *header: str) -> tuple[int, Any]:
        """POST a body: status and JSON of the answer."""
        connection, transport = self.send(path, body, *header)
        written = await transport.answer()
        connection.connection_lost(None)
        head, _, answer = written.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(answer)
