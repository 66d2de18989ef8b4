"""The start-up panel: whoever pastes its curl gets a prediction."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from paceline.testing import run_server
from support import models

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]


def pasted(output: str) -> object:
    line = re.search(r"curl .*", output)
    assert line is not None, output
    done = subprocess.run(["sh", "-c", line.group()], capture_output=True, check=True, timeout=20)
    return json.loads(done.stdout)


@pytest.mark.parametrize("sizes", [(4, 8, 3), (64, 8, 3)], ids=["inline", "fetched"])
def test_the_curl_in_a_file_works(tmp_path: Path, sizes: tuple[int, ...]):
    model = models.mlp(tmp_path / "model.onnx", sizes)
    with run_server(model, ["--warmup-s", "0.05"]) as server:
        output = server.output
        assert len(pasted(output)) == 3  # type: ignore[arg-type]
    assert ("/example |" in output) == (sizes[0] == 64)
    assert "\x1b" not in output


def test_the_example_is_the_operators_own(tmp_path: Path):
    model = models.mlp(tmp_path / "model.onnx", (2, 3))
    (tmp_path / "own.jsonl").write_text("[0.25, -7]\n[1, 1]\n")
    with run_server(model, ["--examples", str(tmp_path / "own.jsonl"), "--warmup-s", "0.05"]) as server:
        assert "-d '[0.25,-7]'" in server.output
        answer = pasted(server.output)
    expected = ort.InferenceSession(model).run(None, {"x": np.array([[0.25, -7]], np.float32)})[0][0]
    np.testing.assert_allclose(answer, expected, rtol=1e-6)


def test_an_address_that_means_all_is_shown_as_one_to_call(tmp_path: Path):
    with run_server(models.mlp(tmp_path / "m.onnx", (2, 3)), ["--host", "0.0.0.0", "--warmup-s", "0.05"]) as server:
        assert f"curl -s http://127.0.0.1:{server.port}/predict" in server.output


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_want_it(tmp_path: Path, env: dict[str, str], coloured: bool):
    output = on_a_terminal(models.mlp(tmp_path / "m.onnx", (2, 3)), env)
    assert ("\x1b[" in output) == coloured
    assert re.search(r"^  curl [^\x1b]*$", output, re.MULTILINE)  # the line to paste is never styled


def on_a_terminal(model: Path, env: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "paceline", "serve", str(model), "--port", "0", "--warmup-s", "0.05"]
    process = subprocess.Popen(command, stderr=theirs, env={**os.environ, "TERM": "xterm", **env})
    os.close(theirs)
    output = ""
    try:
        while not re.search(r"curl [^\n]*\n", output):
            output += os.read(ours, 65536).decode()
    finally:
        process.terminate()
        process.wait(20)
        os.close(ours)
    return output.replace("\r\n", "\n")
