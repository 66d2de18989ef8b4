"""Servers that are not Paceline, as far as a client can see: a front that passes on only what others have, too."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from paceline.testing import RunningServer


@contextmanager
def http_front(server: RunningServer, passes: str, prefix: str = "") -> Iterator[str]:
    """The URL of a server that answers 404 to every path but those that match, which Paceline answers.

    Args:
        prefix: of its paths, which is taken off.
    """

    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # an answer in one piece: two would wait for an acknowledgement between them

        def do_GET(self) -> None:
            path = self.path.removeprefix(prefix)
            if not self.path.startswith(prefix) or not re.fullmatch(passes, path):
                self._answer(404, b'{"detail":"Not Found"}', {})
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
            sent = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            connection.request(self.command, path, body or None, sent)
            response = connection.getresponse()
            self._answer(response.status, response.read(), dict(response.getheaders()))
            connection.close()

        do_POST = do_GET  # noqa: N815 - the names are the library's

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            self.send_header("content-type", headers.get("content-type", "application/json"))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing to stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Front) as front:
        front.daemon_threads = True
        thread = threading.Thread(target=front.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{front.server_port}{prefix}"
        finally:
            front.shutdown()
            thread.join()


class _PassOn(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.Channel, passes: str) -> None:
        self._channel = channel
        self._passes = re.compile(passes)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if not self._passes.fullmatch(details.method):
            return None
        call = self._channel.unary_unary(details.method)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                response: bytes = call(request, timeout=20)
                return response
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def grpc_front(server: RunningServer, passes: str) -> Iterator[str]:
    """The URL of a server that speaks gRPC alone: methods that match are Paceline's, all others unimplemented."""
    with grpc.insecure_channel(f"{server.host}:{server.port}") as channel, ThreadPoolExecutor(4) as threads:
        front = grpc.server(threads, handlers=[_PassOn(channel, passes)])
        port = front.add_insecure_port("127.0.0.1:0")
        front.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            front.stop(0).wait()
