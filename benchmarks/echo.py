"""The transport alone: an application with an echo and nothing else, on Paceline's own listener.

    python -m benchmarks.echo PORT

POST /echo answers the body it got; POST /discard answers 12 bytes, an average-pooled image.
"""

from __future__ import annotations

import asyncio
import re
import sys

import uvloop

from paceline.engine.engine import Engine
from paceline.server.app import App
from paceline.server.http1 import HttpRequest, Limits
from paceline.server.listener import Listener
from paceline.server.routes import Route

_OCTETS = b"application/octet-stream"


async def main(port: int) -> None:
    app = App(Engine(), Limits())

    def echo(request: HttpRequest) -> None:
        app.reply(request, 200, [request.body], _OCTETS)

    def discard(request: HttpRequest) -> None:
        app.reply(request, 200, b"\0" * 12, _OCTETS)

    def ready(request: HttpRequest) -> None:
        app.reply(request, 200, b"{}")

    app.mount(
        [
            Route("POST", re.compile("/echo"), echo),
            Route("POST", re.compile("/discard"), discard),
            Route("GET", re.compile("/readyz"), ready),
        ]
    )
    await Listener(app, 10_000).open("127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
