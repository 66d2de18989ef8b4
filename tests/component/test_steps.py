"""Steps in processes of their own: what they return, how they end, and that they are not run twice.

The step that misbehaves is the conversion of a pickle, which runs whatever the file says.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.core.errors import CannotChange, ConfigError, ModelLoadError, StepFailed
from paceline.optimize.candidate import Made
from paceline.optimize.data.rows import Rows
from paceline.optimize.processes import steps
from paceline.optimize.result import Converted
from paceline.optimize.search.facts import Facts
from support import models

pytestmark = pytest.mark.slow
pytest.importorskip("onnx", reason="steps change ONNX files")

CONVERT = "formats.sklearn:convert"


class Does:
    """An object whose pickle calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def pickled(folder: Path, function: Any, *arguments: Any) -> dict[str, Any]:
    """Arguments of a conversion that calls something."""
    pytest.importorskip("sklearn", reason="the pickle is read as scikit-learn's")
    (folder / "model.pkl").write_bytes(pickle.dumps(Does(function, *arguments)))
    Rows({"input": np.zeros((4, 2))}).save(folder / "rows.npz")
    return {"model": folder / "model.pkl", "rows": folder / "rows.npz", "allow_pickle": True}


def convert(arguments: dict[str, Any], folder: Path, timeout_s: float = 60.0) -> Converted:
    return steps.run(CONVERT, Converted, arguments, folder, timeout_s=timeout_s)


def facts(model: Path, folder: Path) -> Facts:
    return steps.run("search.facts:read", Facts, {"model": model}, folder, timeout_s=60)


def written(folder: Path) -> int:
    return (folder / steps.OUTCOME).stat().st_mtime_ns


def test_a_step_returns_what_its_function_does(tmp_path: Path):
    assert facts(models.mlp(tmp_path / "m.onnx"), tmp_path / "step").operators["Relu"] == 1


def test_an_equal_step_is_not_run_again(tmp_path: Path):
    model = models.mlp(tmp_path / "m.onnx")
    first = facts(model, tmp_path / "step")
    before = written(tmp_path / "step")
    assert facts(model, tmp_path / "step") == first
    assert written(tmp_path / "step") == before


def test_a_step_that_depends_on_more_than_its_arguments_is_run_each_time(tmp_path: Path):
    arguments = {"model": models.mlp(tmp_path / "m.onnx")}
    when = []
    for _ in range(2):
        steps.run("search.facts:read", Facts, arguments, tmp_path / "step", timeout_s=60, reuse=False)
        when.append(written(tmp_path / "step"))
    assert when[0] < when[1]


def test_a_file_of_other_bytes_makes_it_another_step(tmp_path: Path):
    model = models.mlp(tmp_path / "m.onnx")
    call, arguments = "search.facts:read", {"model": model}
    place = steps.folder_of(tmp_path, call, arguments)
    facts(model, place)
    models.mlp(model, (64, 32, 32, 10))
    assert facts(model, place).operators["Relu"] == 2
    assert steps.folder_of(tmp_path, call, arguments) != place


def test_other_arguments_make_it_another_step(tmp_path: Path):
    model = models.mlp(tmp_path / "m.onnx")
    keys = {steps.key_of("transforms.quantize:dynamic", {"model": model, "per_channel": each}) for each in (0, 1)}
    assert len(keys) == 2


def test_a_change_that_does_not_apply_says_so_and_is_not_tried_again(tmp_path: Path):
    model = models.mlp(tmp_path / "m.onnx")
    Rows({"x": np.zeros((4, 64), np.float32)}).save(tmp_path / "rows.npz")
    arguments = {"model": model, "rows": tmp_path / "rows.npz"}
    when = []
    for _ in range(2):
        with pytest.raises(CannotChange, match="not fixed"):
            steps.run("transforms.dynamic_batch:opened", Made, arguments, tmp_path / "step", timeout_s=60)
        when.append(written(tmp_path / "step"))
    assert when[0] == when[1]


def test_an_error_keeps_its_class_and_its_message(tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelLoadError, match=r"broken\.onnx: cannot be loaded") as caught:
        facts(tmp_path / "broken.onnx", tmp_path / "step")
    assert caught.value.hint


def test_what_nobody_foresaw_is_told_with_its_class(tmp_path: Path):
    arguments = {"model": models.mlp(tmp_path / "m.onnx"), "colour": "blue"}
    with pytest.raises(StepFailed, match=r"TypeError: .*colour"):
        steps.run("search.facts:read", Facts, arguments, tmp_path / "step", timeout_s=60)


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (os._exit, (3,), "exited with 3"),
        (signal.raise_signal, (signal.SIGSEGV,), "SIGSEGV"),
        (signal.raise_signal, (signal.SIGKILL,), "memory"),
    ],
    ids=["exits", "crashes", "is killed"],
)
def test_a_process_that_dies_fails_its_step_with_the_reason(function: Any, arguments: Any, said: str, tmp_path: Path):
    with pytest.raises(StepFailed, match=said):
        convert(pickled(tmp_path, function, *arguments), tmp_path / "step")


def test_the_last_words_are_told(tmp_path: Path):
    script = "import os, sys; sys.stderr.write('no such layer: attention_7\\n'); sys.stderr.flush(); os._exit(9)"
    with pytest.raises(StepFailed, match="no such layer: attention_7"):
        convert(pickled(tmp_path, exec, script), tmp_path / "step")


def test_a_step_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path):
    script = "import subprocess; p = subprocess.Popen(['sleep', '1000']); open('{0}', 'w').write(str(p.pid)); p.wait()"
    arguments = pickled(tmp_path, exec, script.format(tmp_path / "pid"))
    with pytest.raises(StepFailed, match="took longer than 20 s"):
        convert(arguments, tmp_path / "step", timeout_s=20.0)
    sleeper = int((tmp_path / "pid").read_text())
    gone(sleeper)


def test_a_step_that_failed_is_tried_again(tmp_path: Path):
    counter = tmp_path / "count"
    arguments = pickled(tmp_path, exec, f"open('{counter}', 'a').write('x'); raise RuntimeError('not today')")
    for _ in range(2):
        with pytest.raises(ModelLoadError, match="not today"):
            convert(arguments, tmp_path / "step")
    assert counter.read_text() == "xx"


def test_what_an_interrupted_run_left_is_not_taken_for_a_result(tmp_path: Path):
    model = models.mlp(tmp_path / "m.onnx")
    place = tmp_path / "step"
    place.mkdir()
    (place / "model.onnx").write_bytes(b"half of it")
    (place / steps.OUTCOME).write_text('{"key": "')
    assert facts(model, place).operators
    assert not (place / "model.onnx").exists()


def test_a_step_ends_with_the_process_that_started_it(tmp_path: Path):
    arguments = pickled(
        tmp_path, exec, f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(1000)"
    )
    code = f"""
from pathlib import Path
from paceline.optimize.processes import steps
from paceline.optimize.result import Converted
paths = {{name: Path(text) for name, text in {strings(arguments)!r}.items()}}
steps.run({CONVERT!r}, Converted, {{**paths, "allow_pickle": True}}, Path({str(tmp_path / "step")!r}), timeout_s=600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait(10)
    gone(int((tmp_path / "pid").read_text()))


def test_what_the_function_prints_is_progress(tmp_path: Path):
    arguments = pickled(tmp_path, exec, "print('layer 1 of 2'); print('layer 2 of 2'); raise RuntimeError('enough')")
    said: list[str] = []
    with pytest.raises(ModelLoadError, match="enough"):
        steps.run(CONVERT, Converted, arguments, tmp_path / "step", timeout_s=60, say=said.append)
    assert said == ["layer 1 of 2", "layer 2 of 2"]


def test_rows_that_are_none_are_a_configuration_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read as rows"):
        Rows.load(models.mlp(tmp_path / "m.onnx"))


def strings(arguments: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in arguments.items() if isinstance(value, Path)}


def gone(pid: int) -> None:
    """Wait until a process is no more, or is only waited for."""
    until = time.monotonic() + 20
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.02)
