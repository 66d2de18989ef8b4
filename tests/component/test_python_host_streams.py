"""Code that answers in parts: what is sent, what ends a stream, and what is left of one that nobody wants."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from paceline.core.errors import InvalidRequest, ModelFailed, ModelLoadError
from support.hosts import Hosted, Line, hosted
from support.wire import until

pytestmark = pytest.mark.slow


def stream(host: Hosted, *items: object) -> tuple[list[object], object]:
    """The parts of one call, and what it came to."""
    result: list[object] = []

    async def talk(line: Line) -> None:
        line.start(0, *items)
        result.append(await line.outcome(0))
        result.insert(0, line.parts.get(0, []))

    host.talk(talk)
    parts, outcome = result
    assert isinstance(parts, list)
    return parts, outcome


@pytest.mark.parametrize(
    "code",
    [
        "def predict(item: int):\n    for each in range(item):\n        yield {'n': each}\n",
        "async def predict(item):\n    for n in range(item):\n        await asyncio.sleep(0)\n        yield {'n': n}\n",
    ],
)
def test_a_generator_streams_and_the_parts_are_the_prediction(tmp_path: Path, code: str):
    with hosted(tmp_path, f"import asyncio\n{code}") as host:
        about = host.service.about
        assert (about.streams, about.lanes, about.max_batch_rows, about.deterministic) == (True, 64, 1, False)
        assert host.says[0].startswith("function predict: predict streams")
        parts = [{"n": 0}, {"n": 1}, {"n": 2}]
        assert stream(host, 3) == (parts, [parts])


def test_a_stream_that_fails_says_so_behind_its_parts(tmp_path: Path):
    code = """
    class Service:
        def validate(self, item): return item > 0
        def format(self, part): return {"part": part}
        def predict(self, item):
            yield 1
            raise ValueError("in the middle")
    """
    with hosted(tmp_path, dedent(code)) as host:
        parts, (outcome,) = stream(host, 1)
        assert parts == [{"part": 1}]
        assert outcome.message == "predict raised ValueError"
        assert "in the middle" in outcome.detail
    with hosted(tmp_path, dedent(code)) as host:
        parts, (outcome,) = stream(host, -1)
        assert parts == []
        assert isinstance(outcome, InvalidRequest)


@pytest.mark.parametrize("kind", ["async ", ""])
def test_a_stream_may_have_to_fetch_first(tmp_path: Path, kind: str):
    code = f"""
    class Service:
        async def setup(self): self.mark = "!"
        {kind}def fetch(self, item):
            if item == "raise": raise OSError("unreachable")
            return item + self.mark
        def predict(self, item):
            yield item
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert stream(host, "a") == (["a!"], [["a!"]])
    with hosted(tmp_path, dedent(code)) as host:
        parts, (outcome,) = stream(host, "raise")
        assert parts == []
        assert outcome.message == "fetch raised OSError"


def test_fault_54_a_part_that_is_not_finite_ends_its_stream(tmp_path: Path):
    with hosted(tmp_path, "def predict(item):\n    yield 1.5\n    yield float('nan')\n    yield 2.5\n") as host:
        parts, (outcome,) = stream(host, 1)
        assert parts == [1.5]
        assert outcome.code == "nonfinite_output"


ENDLESS = """
import asyncio, itertools, threading
log = []
{kind}def predict(item):
    if item == "log":
        yield [*log, threading.current_thread().name]
        return
    log.append("begin")
    try:
        for each in itertools.count():
            {wait}
            yield each
    finally:
        log.append("closed")
"""


@pytest.mark.parametrize(("kind", "wait"), [("", "pass"), ("async ", "await asyncio.sleep(0.001)")])
def test_streams_take_turns_and_one_that_nobody_wants_is_closed(tmp_path: Path, kind: str, wait: str):
    with hosted(tmp_path, ENDLESS.format(kind=kind, wait=wait)) as host:

        async def talk(line: Line) -> None:
            line.start(0, "endless")
            line.start(1, "endless")
            await line.until(lambda: all(len(line.parts.get(call, ())) > 10 for call in (0, 1)))
            for call in (0, 1):
                line.worker.cancel(call)
                assert isinstance(await line.outcome(call), ModelFailed)
            line.start(2, "log")
            assert await line.outcome(2) == [[["begin", "begin", "closed", "closed", "MainThread"]]]

        host.talk(talk)


def test_a_stream_that_nobody_reads_pauses(tmp_path: Path):
    with hosted(tmp_path, ENDLESS.format(kind="async ", wait="await asyncio.sleep(0.001)")) as host:

        async def talk(line: Line) -> None:
            line.start(0, "endless")
            await line.until(lambda: len(line.parts.get(0, ())) > 3)
            line.worker.hold(0, True)
            line.start(1, "log")  # behind it: what comes before its end is all that was sent before the pause
            await line.outcome(1)
            paused_at = len(line.parts[0])
            line.start(2, "log")
            await line.outcome(2)
            assert len(line.parts[0]) <= paused_at + 1
            line.worker.hold(0, False)
            await line.until(lambda: len(line.parts[0]) > paused_at + 3)

        host.talk(talk)


@pytest.mark.parametrize("kind", ["async ", ""])
@pytest.mark.parametrize("raised", ["asyncio.CancelledError", "GeneratorExit", "SystemExit(3)", "StopIteration"])
def test_fault_93_whatever_a_generator_raises_is_the_end_of_its_stream(tmp_path: Path, kind: str, raised: str):
    code = f"import asyncio\n{kind}def predict(item):\n    yield 1\n    raise {raised}\n"
    with hosted(tmp_path, code) as host:
        parts, (outcome,) = stream(host, 1)
        assert parts == [1]
        name = "RuntimeError" if raised == "StopIteration" else raised.partition("(")[0].rpartition(".")[2]
        assert outcome.message == f"predict raised {name}"


def test_a_generator_that_does_not_want_to_end_is_let_go_of(tmp_path: Path):
    code = """
    def predict(item):
        while item != "well":
            try:
                yield 1
            except GeneratorExit:
                pass
        yield item
    """
    with hosted(tmp_path, dedent(code)) as host:

        async def talk(line: Line) -> None:
            line.start(0, "stubborn")
            await line.until(lambda: len(line.parts.get(0, ())) > 1)
            line.worker.cancel(0)
            outcome = await line.outcome(0)
            assert outcome.code == "cancelled"
            line.start(1, "well")
            assert await line.outcome(1) == [["well"]]

        host.talk(talk)


@pytest.mark.parametrize(("made", "parts"), [("list(function(item))", [1, 2]), ("function(item)", [1, 2])])
def test_a_decorator_may_make_something_else_of_a_generator(tmp_path: Path, made: str, parts: list[int]):
    code = f"""
    import functools
    def decorated(function):
        @functools.wraps(function)
        def inner(item): return {made}
        return inner
    @decorated
    def predict(item):
        yield from (1, 2)
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert stream(host, 1) == (parts, [parts])


def test_parts_that_are_too_long_for_one_list_are_sent_and_not_kept(tmp_path: Path):
    code = "def predict(item):\n    for _ in range(item):\n        yield 'x' * (1 << 20)\n"
    with hosted(tmp_path, code) as host:
        parts, (outcome,) = stream(host, 20)
        assert len(parts) == 20
        assert outcome.code == "stream_too_long"
        assert "ask for events" in outcome.message


def test_a_stream_does_not_run_ahead_of_a_server_that_reads_nothing(tmp_path: Path):
    with hosted(tmp_path, "def predict(item):\n    while True:\n        yield 'x' * 100_000\n") as host:

        async def talk(line: Line) -> None:
            line.start(0, "endless")
            # This loop reads nothing while it is asked how the worker is.
            until(lambda: all(is_asleep(line.worker.pid) for _ in range(100)), 20)
            assert line.worker.memory_bytes() < 500 << 20

        host.talk(talk)


def is_asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"S"


def test_a_generator_takes_one_item_and_not_an_array(tmp_path: Path):
    code = "import numpy as np\ndef predict(rows: np.ndarray):\n    yield 1\n"
    with pytest.raises(ModelLoadError) as caught, hosted(tmp_path, code):
        pass
    assert "a generator takes one item, and its annotation asks for a batch" in str(caught.value)
