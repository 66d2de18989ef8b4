"""A real server process of gRPC methods that do next to nothing: for what the transport does with calls.

`python grpc_echo.py '{"body_bytes": 1000}'` serves with these limits, and says where on its first line.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paceline.core.errors import InvalidRequest, Overloaded
from paceline.engine.engine import Engine
from paceline.server.app import App
from paceline.server.grpc import GrpcCall, Method
from paceline.server.http_request import HttpRequest, Limits
from paceline.server.listener import Listener
from paceline.server.routes import Route
from paceline.testing import RunningServer


class Service:
    """The methods; what happened to those that were never answered."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.left = 0
        self.waiting: list[GrpcCall] = []

    def methods(self) -> list[Method]:
        unary = (self.echo, self.big, self.never, self.told, self.busy, self.wrong, self.broken, self.later)
        return [
            *(Method(b"/test.Echo/" + work.__name__.encode(), work) for work in unary),
            Method(b"/test.Echo/stream", self.stream, streaming=True),
        ]

    def echo(self, call: GrpcCall) -> None:
        call.send(bytes(call.body))
        call.finish()

    def big(self, call: GrpcCall) -> None:
        """As many bytes as the message says."""
        call.send([b"x", b"y" * (int(call.body) - 1)])
        call.finish()

    def never(self, call: GrpcCall) -> None:
        call.on_disconnect = self._left

    def told(self, call: GrpcCall) -> None:
        """What the transport has seen: clients that left, bodies held, the call's headers."""
        headers = {name.decode(): value.decode() for name, value in call.headers.items()}
        seen = {"left": self.left, "receiving": self.app.receiving_bytes, "headers": headers}
        call.send(json.dumps(seen).encode())
        call.finish()

    def busy(self, call: GrpcCall) -> None:
        raise Overloaded("busy", reason="queue_full", retry_after_s=0.5)

    def wrong(self, call: GrpcCall) -> None:
        raise InvalidRequest("größer\n100 %")

    def broken(self, call: GrpcCall) -> None:
        raise RuntimeError("a defect")

    def later(self, call: GrpcCall) -> None:
        """Answered after as many seconds as the message says."""
        asyncio.get_running_loop().call_later(float(call.body), self.echo, call)

    def stream(self, call: GrpcCall) -> None:
        call.on_message = call.send
        call.on_end = call.finish
        call.on_disconnect = self._left

    def post(self, request: HttpRequest) -> None:
        self.app.reply(request, 200, bytes(request.body), b"application/octet-stream", b"X-Extra: yes\r\n")

    def _left(self) -> None:
        self.left += 1


async def _serve(limits: dict[str, float]) -> None:
    app = App(Engine(), Limits(**limits), log=_write)  # type: ignore[arg-type]
    service = Service(app)
    app.mount([Route("*", re.compile("/echo"), service.post)])
    app.grpc.mount(service.methods())
    listener = Listener(app, 1000)
    sys.stdout.write(await listener.open("127.0.0.1", 0) + "\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    app.draining = True
    listener.stop_accepting()
    await listener.drained(10)


def _write(line: bytes) -> None:
    sys.stderr.write(line.decode())
    sys.stderr.flush()


@contextmanager
def echo_server(folder: Path, **limits: float) -> Iterator[RunningServer]:
    """The process, until the block ends."""
    log = folder / "echo.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(limits)], stdout=subprocess.PIPE, stderr=stderr
        )
    try:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().decode().strip().rpartition(":")
        assert port, log.read_text()
        yield RunningServer(process, host, int(port), log)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(json.loads(sys.argv[1])))
