"""`paceline batch`: a file of rows through the real command, with real workers."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support import models

pytestmark = pytest.mark.slow

WAIT_S = 60.0
SERVICE = """
import os, time
from pathlib import Path

HERE = Path(__file__).parent

def predict(batch: list) -> list:
    return [answer(item) for item in batch]

def answer(item):
    x = item["x"]
    if x == "die":
        os._exit(3)
    if x == "wait":
        (HERE / "reached").touch()
        while not (HERE / "go").exists():
            time.sleep(0.005)
    if str(x).startswith("slow"):
        time.sleep(0.002)
    return {"twice": 2 * x if isinstance(x, (int, float)) else x}
"""


class Workplace:
    """A folder with a service, and what the command does there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "service.py"
        self.rows = folder / "rows.jsonl"
        self.out = folder / "out.jsonl"
        self.part = folder / "out.jsonl.part"
        self.model.write_text(SERVICE)

    def write_rows(self, values: Sequence[Any]) -> None:
        self.rows.write_text("".join(json.dumps({"x": value}) + "\n" for value in values))

    def command(
        self, *flags: str | Path, source: Path | str | None = None, target: Path | str | None = None
    ) -> list[str]:
        return [
            *(sys.executable, "-m", "paceline", "batch", str(self.model)),
            *("--input", str(source or self.rows), "--output", str(target or self.out)),
            *("--instances", "1"),
            *map(str, flags),
        ]

    def run(self, *flags: str | Path, **places: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*flags, **places), cwd=self.folder, capture_output=True, text=True, timeout=WAIT_S, check=False
        )

    @contextmanager
    def started(self, *flags: str | Path, **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
        places = {name: pipes.pop(name) for name in ("source", "target") if name in pipes}
        process = subprocess.Popen(self.command(*flags, **places), stderr=subprocess.PIPE, **pipes)
        with process:
            try:
                yield process
            finally:
                process.kill()

    def answers(self, path: Path | None = None) -> list[Any]:
        return [json.loads(line) for line in (path or self.out).read_text().splitlines()]

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)


def checkpointed(place: Workplace) -> int:
    try:
        return int(json.loads((place.folder / "out.jsonl.part.json").read_text())["rows"])
    except FileNotFoundError:
        return 0


def twice(count: int) -> list[Any]:
    return [{"twice": 2 * x} for x in range(count)]


# -- rows in, predictions out ---------------------------------------------------------------------------------


def test_every_row_has_its_prediction_in_its_place(place: Workplace):
    place.write_rows(range(5000))
    done = place.run("--json")
    assert done.returncode == 0, done.stderr
    assert place.answers() == twice(5000)
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["failed"], summary["complete"]) == (5000, 0, True)
    assert "function predict" in done.stderr
    assert "5 000 rows" in done.stderr
    assert place.names() == {"service.py", "rows.jsonl", "out.jsonl"}


def test_a_row_that_fails_says_why_in_its_place_and_the_others_go_on(place: Workplace):
    place.rows.write_text('{"x": 1}\n\n{"x": 2\n{"y": 3}\n{"x": 4}\n')
    done = place.run()
    assert done.returncode == 7
    first, broken, wrong, last = place.answers()
    assert (first, last) == ({"twice": 2}, {"twice": 8})
    assert broken["code"] == "decode_error"
    assert wrong["code"] == "model_failed"
    assert "KeyError" in wrong["error"]
    assert "row 2 failed" in done.stderr
    assert "4 rows, 2 of them failed" in done.stderr


def test_fault_98_a_row_that_kills_twice_fails_alone(place: Workplace):
    place.write_rows([0, 1, "die", 3, 4])
    done = place.run()
    assert done.returncode == 7, done.stderr
    answers = place.answers()
    assert answers[2]["code"] in ("instance_lost", "quarantined")
    assert answers[:2] + answers[3:] == [{"twice": 0}, {"twice": 2}, {"twice": 6}, {"twice": 8}]


def test_csv_in_and_out(place: Workplace):
    source, target = place.folder / "rows.csv", place.folder / "out.csv"
    place.model.write_text("def predict(batch: list) -> list:\n    return batch\n")
    source.write_text('id,x,"a, b"\n007,1.50,"two\nlines"\n8,,"say ""hi"""\n9\n-1e3,0,x\n')
    done = place.run(source=source, target=target)
    assert done.returncode == 7, done.stderr
    assert target.read_text() == (
        'id,x,"a, b",error\n007,1.5,"two\nlines",\n8,,"say ""hi""",\n,,,"expected 3 fields, got 1"\n-1000.0,0,x,\n'
    )


def test_a_list_in_json(place: Workplace):
    source = place.folder / "rows.json"
    source.write_text('[{"x": 1},\n {"x": 2}]')
    assert place.run(source=source).returncode == 0
    assert place.answers() == [{"twice": 2}, {"twice": 4}]
    source.write_text('{"x": 1}\n{"x": 2}\n')
    done = place.run(source=source)
    assert done.returncode == 1
    assert "rows.json: expected a list in JSON" in done.stderr
    assert "--input-format jsonl" in done.stderr
    assert place.run("--input-format", "jsonl", source=source).returncode == 0


def test_a_model_file_takes_rows_as_its_clients_send_them(place: Workplace):
    place.model = models.mlp(place.folder / "mlp.onnx", (3, 4, 2))
    place.rows.write_text('[1, 2, 3]\n{"x": [4, 5, 6]}\n[1, 2]\n')
    done = place.run()
    assert done.returncode == 7, done.stderr
    first, second, wrong = place.answers()
    assert len(first) == len(second) == 2
    assert wrong["code"] == "signature_mismatch"
    source = place.folder / "rows.csv"
    source.write_text("a,b,c\n1,2,3\n4,5,6\n")
    assert place.run(source=source).returncode == 0
    assert place.answers() == [first, second]


def test_what_comes_through_a_pipe_is_answered_as_it_comes(place: Workplace):
    with place.started(source="-", target="-", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for x in range(3):
            process.stdin.write(b'{"x": %d}\n' % x)
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"twice": 2 * x}
        process.stdin.close()
        assert process.wait(WAIT_S) == 0


def test_a_reader_who_leaves_is_no_traceback(place: Workplace):
    place.write_rows(range(50_000))
    with place.started(target="-", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(WAIT_S) == 1
    assert "Traceback" not in said


def test_a_terminal_gets_a_bar_that_is_gone_in_the_end(place: Workplace):
    place.write_rows(range(20_000))
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        process = subprocess.Popen(place.command(), stderr=theirs, env=environment)
        os.close(theirs)
        said = b""
        with suppress(OSError):  # the end of a terminal whose last writer has gone
            while block := os.read(ours, 4096):
                said += block
        assert process.wait(WAIT_S) == 0
    finally:
        os.close(ours)
    bars = re.findall(rb"\r\[(#*\.*)\] [0-9 ]+ rows, [0-9 ]+/s, [0-9]+%", said)
    assert bars
    assert all(len(bar) == 24 for bar in bars)
    assert b"\r\x1b[Kpaceline: 20 000 rows" in said


def test_an_input_that_is_empty_gives_an_empty_output(place: Workplace):
    place.rows.write_text("")
    assert place.run().returncode == 0
    assert place.out.read_text() == ""


# -- interrupted, and gone on with ----------------------------------------------------------------------------


def test_ctrl_c_leaves_what_resume_goes_on_with(place: Workplace):
    values = [*range(100), "wait", *range(101, 200)]
    place.write_rows(values)
    with place.started("--max-batch-size", "10") as process:
        until((place.folder / "reached").exists, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(WAIT_S) == 130
    assert "interrupted: 100 rows kept in" in said
    assert "--resume goes on after the last" in said
    assert not place.out.exists()
    assert place.answers(place.part) == twice(100)

    done = place.run()
    assert done.returncode == 3
    assert "an interrupted output is there" in done.stderr
    (place.folder / "go").touch()
    done = place.run("--resume", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["resumed"]) == (200, 100)
    assert [answer["twice"] for answer in place.answers()] == [x if x == "wait" else 2 * x for x in values]
    assert place.names() == {"service.py", "rows.jsonl", "out.jsonl", "reached", "go"}

    done = place.run("--resume")
    assert done.returncode == 0
    assert "is complete already" in done.stderr

    place.write_rows([1])
    os.utime(place.rows, (time.time() + 10, time.time() + 10))
    done = place.run("--resume")
    assert done.returncode == 3
    assert f"it is complete, but {place.rows} has changed since" in done.stderr


def test_kill_9_loses_what_came_after_the_last_checkpoint_and_no_more(place: Workplace):
    rows = [f"slow {index}" for index in range(3000)]  # equal ones would run once
    place.write_rows(rows)
    with place.started("--max-batch-size", "8") as process:
        until(lambda: checkpointed(place) > 0, process)
        process.kill()
        process.wait(WAIT_S)
    kept = checkpointed(place)
    assert 0 < kept < 3000
    with place.part.open("ab") as file:
        file.write(b'{"twice": "sl')  # what was on its way to the disk
    place.write_rows(rows)
    done = place.run("--resume", "--json", "--instances", "2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] == kept
    assert [answer["twice"][:4] for answer in place.answers()] == ["slow"] * 3000


def test_killed_at_any_moment_it_ends_with_every_row_once(place: Workplace):
    place.write_rows(["slow" if x % 50 == 0 else x for x in range(5000)])
    wanted = [{"twice": "slow" if x % 50 == 0 else 2 * x} for x in range(5000)]
    # Some before there is an output, some with nothing in it, some while rows are written, some at the end.
    for wait_s in (0.1, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3):
        with place.started("--resume", "--max-batch-size", "8") as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
            process.kill()
    done = place.run("--resume")
    assert done.returncode == 0, done.stderr
    assert place.answers() == wanted
    assert place.names() == {"service.py", "rows.jsonl", "out.jsonl"}


def test_killed_before_the_first_row_it_begins_anew(place: Workplace):
    place.write_rows([1])
    place.part.touch()
    for flags in (["--resume"], []):
        assert place.run(*flags).returncode == 0
        assert place.answers() == [{"twice": 2}]
        place.part.touch()


def test_csv_is_gone_on_with_in_its_columns(place: Workplace):
    target = place.folder / "out.csv"
    place.write_rows([1, 2, "wait", 4])
    with place.started("--max-batch-size", "1", target=target) as process:
        until((place.folder / "reached").exists, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 143
    (place.folder / "go").touch()
    assert place.run("--resume", target=target).returncode == 0
    assert target.read_text() == "twice,error\n2,\n4,\nwait,\n8,\n"


def test_fail_fast_stops_at_the_row_and_resume_begins_with_it(place: Workplace):
    place.write_rows([0, 1, None, 3])
    place.model.write_text(SERVICE.replace("return {", "x + 0\n    return {"))
    done = place.run("--fail-fast")
    assert done.returncode == 7
    assert "row 3 failed: 2 rows kept" in done.stderr
    place.model.write_text(SERVICE)
    done = place.run("--resume", "--fail-fast")
    assert done.returncode == 0, done.stderr
    assert "the model has changed: the rows after 2 are scored by the new one" in done.stderr
    assert [answer["twice"] for answer in place.answers()] == [0, 2, None, 6]


def test_another_input_is_not_mixed_in(place: Workplace):
    place.write_rows([0, 1, "wait"])
    with place.started("--max-batch-size", "1") as process:
        until((place.folder / "reached").exists, process)
        done = place.run("--resume")
        assert done.returncode == 3
        assert "another process writes it" in done.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
    before = place.part.read_text()
    place.write_rows([5, 1, "wait"])
    done = place.run("--resume")
    assert done.returncode == 3
    assert "it was made of another input" in done.stderr
    (place.folder / "out.jsonl.part.json").unlink()
    done = place.run("--resume")
    assert done.returncode == 3
    assert "says how far it is good" in done.stderr
    assert place.part.read_text() == before


def test_ctrl_c_before_the_model_is_ready_leaves_nothing_behind(place: Workplace):
    place.model.write_text(
        SERVICE.replace("HERE = ", "Path(__file__).with_name('reached').touch(); time.sleep(600)\nHERE = ")
    )
    place.write_rows([1])
    with place.started() as process:
        until((place.folder / "reached").exists, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
    assert place.names() == {"service.py", "rows.jsonl", "reached"}


# -- what cannot work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "places", "code", "said"),
    [
        ((), {"source": "none.jsonl"}, 1, "error: none.jsonl: no such file or directory\n"),
        ((), {"target": "none/out.jsonl"}, 3, "error: none/out.jsonl.part: no such file or directory\n"),
        ((), {"target": "rows.jsonl"}, 3, "error: rows.jsonl: is the input, too"),
        (("--resume",), {"target": "-"}, 2, "--resume needs files"),
        (("--json",), {"target": "-"}, 2, "leave one of them out"),
        (("--max-batch-size", "0"), {}, 2, "must be >= 1, got 0"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(place: Workplace, flags: Any, places: Any, code: int, said: str):
    place.write_rows([1])
    done = place.run(*flags, **places)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert place.names() == {"service.py", "rows.jsonl"}


def test_a_model_that_cannot_be_loaded_leaves_no_output(place: Workplace):
    place.write_rows([1])
    place.model.write_text("import no_such_module\n")
    done = place.run()
    assert done.returncode == 4
    assert "no_such_module" in done.stderr
    place.model = place.folder / "none.py"
    done = place.run()
    assert (done.returncode, done.stderr) == (4, f"error: {place.model}: no such file\n")
    place.model = place.folder
    assert "expected the file of one model, got a folder" in place.run().stderr
    assert place.names() == {"service.py", "rows.jsonl"}


def test_a_full_disk_ends_it_with_its_name(place: Workplace):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    for count in (10_000, 1):  # one row waits in a buffer until the end
        place.write_rows(range(count))
        done = place.run(target="/dev/full")
        assert done.returncode == 3
        assert "error: /dev/full: no space left on device\n" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_disk_that_fills_up_keeps_what_the_last_checkpoint_says(place: Workplace):
    place.write_rows(range(50_000))
    limited = ["bash", "-c", 'ulimit -f 64 && exec "$@"', "-", *place.command()]  # no file larger than 64 KiB
    done = subprocess.run(limited, cwd=place.folder, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 3
    assert f"error: {place.out}: file too large\n" in done.stderr
    assert "row" in done.stderr.splitlines()[-2], "it says what is left"
    assert "out.jsonl" not in place.names()
    assert place.run("--resume").returncode == 0
    assert place.answers() == twice(50_000)
    assert place.names() == {"service.py", "rows.jsonl", "out.jsonl"}


def test_an_input_that_breaks_off_keeps_what_came_before(place: Workplace):
    source = place.folder / "rows.csv"
    source.write_text("x\n" + "1\n" * 200_000 + '"2\n')
    done = place.run(source=source)
    assert done.returncode == 1
    assert "rows.csv: line 200002: a quote is opened and never closed" in done.stderr
    assert "200 000 rows kept" in done.stderr
