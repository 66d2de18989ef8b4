"""What user code does to its process must not reach the protocol, and what it raises must not end the worker."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from paceline.core.errors import ModelFailed
from support.hosts import Line, hosted

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("raise ValueError('no')", "ValueError"),
        ("sys.exit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("predict([*batch, 1])", "RecursionError"),
        ("raise MemoryError", "MemoryError"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise asyncio.CancelledError", "CancelledError"),
        ("raise Unprintable", "Unprintable"),
        ("raise ExceptionGroup('several', [ValueError('one')])", "ExceptionGroup"),
    ],
)
def test_fault_93_whatever_predict_raises_is_an_answer(tmp_path: Path, statement: str, name: str):
    code = f"""
    import asyncio, sys
    class Unprintable(Exception):
        def __str__(self): raise RuntimeError
    def predict(batch):
        if batch == ["well"]:
            return batch
        {statement}
    """
    with hosted(tmp_path, dedent(code)) as host:
        with pytest.raises(ModelFailed) as caught:
            host.predict(1, 2)
        assert caught.value.message == f"the code raised {name}"
        assert "service.py" in (caught.value.detail or "")
        assert "workers/python" not in (caught.value.detail or "")
        assert host.predict("well") == ["well"]


@pytest.mark.parametrize(
    "statement",
    [
        "print('to stdout'); sys.stderr.write('to stderr')",
        "os.write(1, bytes(range(256))); os.write(2, b'raw')",
        "sys.stdout.close(); sys.stderr.close()",
        "sys.stdout = sys.stderr = None",
        "os.closerange(0, 256)",
        "os.chdir('/')",
        "os.environ.clear()",
        "random.seed(1); np.random.seed(1)",
        "[signal.signal(each, signal.SIG_DFL) for each in (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM)]",
        "signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)",
        "sys.path.clear(); sys.argv.clear()",
        "sys.modules.pop('paceline', 0); sys.modules.pop('msgspec', 0)",
        "os.nice(1); os.umask(0o777)",
        "sys.setrecursionlimit(100)",
        "gc.disable(); sys.settrace(None)",
        "threading.Thread(target=lambda: sys.exit(1)).start()",
        "subprocess.run(['true'], close_fds=False)",
        "multiprocessing.get_context('fork').Process(target=print).start()",
        "multiprocessing.get_context('spawn').Process(target=print).start()",
    ],
)
def test_fault_96_the_protocol_is_out_of_reach(tmp_path: Path, statement: str):
    code = f"""
    import gc, json, multiprocessing, os, random, signal, subprocess, sys, threading
    import numpy as np
    def predict(batch):
        if batch == ["do"]:
            {statement}
        return batch
    """
    with hosted(tmp_path, dedent(code)) as host:
        for batch in (["do"], [1, 2], ["do"], [[None]]):
            assert host.predict(*batch) == batch


def test_a_child_of_user_code_does_not_hold_the_channel(tmp_path: Path):
    code = """
    import subprocess
    def predict(batch):
        subprocess.Popen(["sleep", "100"], close_fds=False)
        return batch
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.predict(1) == [1]

        async def talk(line: Line) -> None:
            line.worker.kill()
            await line.until(lambda: line.death is not None)
            assert line.death == "killed by SIGKILL"

        host.talk(talk)


def test_failures_are_logged_once_a_second_with_the_users_frames(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    code = """
    def inner(batch):
        raise ValueError(f"number {batch[0]}")
    def predict(batch):
        inner(batch)
    """
    with hosted(tmp_path, dedent(code)) as host:
        for number in range(20):
            with pytest.raises(ModelFailed):
                host.predict(number)
    logged = capfd.readouterr().err
    assert "paceline: test: the code raised ValueError\nTraceback" in logged
    assert "ValueError: number 0" in logged
    assert "ValueError: number 19" not in logged
    assert "inner(batch)" in logged
    assert "workers/python" not in logged


def test_what_is_printed_is_in_the_log_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with hosted(tmp_path, "def predict(batch):\n    print('seen', batch)\n    return batch\n") as host:
        host.predict(1)
        assert "seen [1]\n" in capfd.readouterr().err


def test_the_collector_does_not_walk_what_was_there_at_the_start(tmp_path: Path):
    code = "import gc\nKEPT = [[]] * 9\ndef predict(batch): return [gc.get_freeze_count() for _ in batch]\n"
    with hosted(tmp_path, code) as host:
        assert host.predict(1)[0] > 1000
