"""Wheels made by hand, and a package index that serves them: pip for real, without a network."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile


def wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """A wheel with one module, called as the package."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{facts}/RECORD", "")
    return path


class Index:
    """A package index on a port of its own.

    Attributes:
        asked: every path that was asked for.
        opened: answers wait until it is set.
        waiting: set while somebody waits.
        left: set when somebody who waited has gone.
    """

    def __init__(self, wheels: Path) -> None:
        self.wheels = wheels
        self.asked: list[str] = []
        self.opened = threading.Event()
        self.opened.set()
        self.waiting = threading.Event()
        self.left = threading.Event()
        self.url = ""


@contextmanager
def index(wheels: Path) -> Iterator[Index]:
    """Serve the wheels of a folder."""
    state = Index(wheels)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            if not self._still_wanted():
                return
            body = self._body()
            self.send_response(200 if body else 404)
            self.send_header("content-type", "text/html" if self.path.endswith("/") else "application/zip")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _still_wanted(self) -> bool:
            """Wait until answers are given; False when nobody waits for this one any more."""
            self.connection.settimeout(0.02)
            while not state.opened.is_set():
                state.waiting.set()
                try:
                    self.connection.recv(1)
                except TimeoutError:
                    continue
                state.left.set()
                self.close_connection = True
                return False
            self.connection.settimeout(None)
            return True

        def _body(self) -> bytes:
            name = self.path.strip("/").rpartition("/")[2]
            if not self.path.endswith("/"):
                return (state.wheels / name).read_bytes()
            found = [path.name for path in state.wheels.glob(f"{name}-*.whl")]
            return "".join(f'<a href="/files/{each}">{each}</a>' for each in found).encode()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    state.url = f"http://127.0.0.1:{server.server_port}/simple/"
    try:
        yield state
    finally:
        state.opened.set()
        server.shutdown()
        serving.join()
        server.server_close()
