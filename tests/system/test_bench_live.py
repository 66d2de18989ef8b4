"""`paceline bench` on a terminal: a real process, a real pseudo-terminal, and what an emulator shows of it."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from paceline.loadtest.result import Result
from paceline.testing import run_server
from support import models
from support.terminal import Terminal, terminal

pytestmark = pytest.mark.slow

BENCH = (sys.executable, "-m", "paceline", "bench")
LONG = ("--duration", "60s", "--warm-up", "0.1s")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = models.digits(tmp_path_factory.mktemp("models") / "digits.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as server:
        yield server.url


def is_as_before(screen: Terminal) -> bool:
    return screen.attributes == screen.before and not screen.cursor_is_hidden


def test_the_view_shows_this_second_and_is_gone_in_the_end(url: str, tmp_path: Path):
    with terminal([*BENCH, url, "--users", "2,4", "--duration", "2s", "--warm-up", "0.5s"], tmp_path) as screen:
        screen.shows(f"{url}/predict  digits (plain)", "2 users", "warm-up")
        screen.shows("2 users", "s left", "last second", "this step", "latency", "at most", "rows a batch")
        assert screen.cursor_is_hidden
        screen.shows("4 users", "s left", "errors   none", "of the one core", "n next step   q end")
        assert "client\n2 users" in screen.text  # the table of finished steps
        stdout = screen.ended()
        assert screen.process.returncode == 0
        assert screen.text == ""
        assert is_as_before(screen)
    assert [line.split("  ")[0] for line in stdout.splitlines()[3:5]] == ["2 users", "4 users"]


def test_keys_change_the_load_and_end_the_step_and_the_test(url: str, tmp_path: Path):
    with terminal([*BENCH, url, "--json", "--users", "8,2,3", *LONG], tmp_path) as screen:
        screen.shows("8 users", "+ - load")
        screen.press("+")
        screen.shows("8 users, then 10 users")
        screen.press("--")
        screen.shows("8 users, then 6 users")
        screen.press("xn")
        screen.shows("2 users", "s left")
        screen.press("q")
        result = msgspec.json.decode(screen.ended(), type=Result)
        assert is_as_before(screen)
    assert screen.process.returncode == 0
    assert result.steps[0].label == "8 users, then 6 users"
    assert len(result.steps) <= 2  # the third was left out; the second may have been in its warm-up
    assert "8 users, then 6 users: the load was changed by hand" in result.warnings
    assert "the test was ended by hand" in result.warnings


def test_keys_change_a_rate(url: str, tmp_path: Path):
    with terminal([*BENCH, url, "--json", "--rate", "100/s", *LONG], tmp_path) as screen:
        screen.shows("100/s", "+ - load")
        screen.press("+")
        screen.shows("100/s, then 125/s")
        screen.press("q")
        screen.ended()
        assert screen.process.returncode == 0


def test_a_search_takes_no_other_load(url: str, tmp_path: Path):
    with terminal([*BENCH, url, "--find-capacity", "--slo", "p99=5s", *LONG], tmp_path) as screen:
        screen.shows("n next step   q end")
        assert "+ - load" not in screen.text
        screen.press("+q")
        screen.ended()
        assert screen.process.returncode == 0


@pytest.mark.parametrize(("keys", "code"), [("\x03", 130), ("\x03\x03", 130)])
def test_ctrl_c_leaves_the_terminal_as_it_was(url: str, tmp_path: Path, keys: str, code: int):
    with terminal([*BENCH, url, "--users", "2", *LONG], tmp_path) as screen:
        screen.shows("this step", "s left")
        screen.press(keys)
        screen.ended()
        assert screen.process.returncode == code
        assert is_as_before(screen)
        assert "Traceback" not in screen.text


def test_sigterm_leaves_the_terminal_as_it_was_and_reports(url: str, tmp_path: Path):
    with terminal([*BENCH, url, "--users", "2", *LONG], tmp_path) as screen:
        screen.shows("this step", "s left")
        screen.process.send_signal(signal.SIGTERM)
        assert "2 users" in screen.ended()
        assert screen.process.returncode == 143
        assert is_as_before(screen)


def test_ctrl_z_gives_the_terminal_back_until_the_shell_says_fg(url: str, tmp_path: Path):
    # A shell with job control: only its jobs can be stopped by the terminal.
    test = shlex.join([*BENCH, url, "--users", "2", *LONG])
    script = f"set -m; {test}; echo the shell is back >&2; read line; fg >/dev/null"
    with terminal(["bash", "-c", script], tmp_path) as screen:
        screen.shows("this step", "s left")
        screen.press("\x1a")
        screen.shows("the shell is back")
        assert is_as_before(screen)
        screen.press("go on\n")
        screen.until(lambda: screen.cursor_is_hidden)
        screen.shows("this step", "+ - load")
        screen.press("+")
        screen.shows("2 users, then 3 users")
        screen.press("q")
        assert "2 users, then 3 users" in screen.ended()
        assert is_as_before(screen)


def test_in_the_background_it_reads_no_keys_and_is_not_stopped(url: str, tmp_path: Path):
    test = shlex.join([*BENCH, url, "--users", "1", "--duration", "1s", "--warm-up", "0s"])
    with terminal(["bash", "-c", f"set -m; {test} & wait %1"], tmp_path) as screen:
        screen.shows("this step")
        screen.press("q")
        assert "1 user " in screen.ended()
        assert screen.process.returncode == 0
        assert is_as_before(screen)


@pytest.mark.parametrize(("flags", "term"), [(("--no-live",), "xterm"), ((), "dumb")])
def test_where_nothing_can_be_drawn_there_are_lines(url: str, tmp_path: Path, flags: tuple[str, ...], term: str):
    load = ("--users", "1", "--duration", "0.3s", "--warm-up", "0s")
    with terminal([*BENCH, url, *load, *flags], tmp_path, TERM=term) as screen:
        screen.ended()
        assert screen.text.startswith("paceline: 1 user: ")
        assert b"\x1b" not in screen.raw


def test_a_low_and_narrow_terminal_shows_what_fits(url: str, tmp_path: Path):
    load = ("--users", "1,2", "--duration", "1s", "--warm-up", "0s")
    with terminal([*BENCH, url, *load], tmp_path, size=(60, 16)) as screen:
        screen.shows("2 users", "this step")
        screen.ended()
        assert screen.process.returncode == 0
        assert is_as_before(screen)
