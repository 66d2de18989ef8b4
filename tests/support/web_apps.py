"""Servers that people have written themselves, in processes of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

from support.wire import until

FASTAPI = """
    import pydantic
    from fastapi import FastAPI

    app = FastAPI()

    class Point(pydantic.BaseModel):
        x: float = pydantic.Field(examples=[1.5])
        label: str = "a"

    @app.post("/score-point")
    def score(point: Point) -> float:
        return 2 * point.x
"""
FLASK = """
    from flask import Flask, request

    app = Flask(__name__)

    @app.post("/predict")
    def predict():
        return {"y": 2 * request.get_json()["x"]}
"""


@contextmanager
def web_app(folder: Path, code: str) -> Iterator[str]:
    """The URL of an app that is called `app`, of FastAPI or Flask."""
    (folder / "web.py").write_text(dedent(code))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    is_flask = "Flask" in code
    address = ["--bind", f"127.0.0.1:{port}"] if is_flask else ["--port", str(port)]
    command = [sys.executable, "-m", "gunicorn" if is_flask else "uvicorn", "web:app", *address]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        until(lambda: _listens(port), 30)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
