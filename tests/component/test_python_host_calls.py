"""Many calls at once: fetch and its concurrency, batches across calls, and calls that nobody waits for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from textwrap import dedent

import pytest

from paceline.core.errors import InvalidRequest, ModelFailed
from support.hosts import Line, hosted

pytestmark = pytest.mark.slow

# Each fetch waits until as many are under way as the item says.
MEETING = """
import asyncio, threading, time

class Service:
    def setup(self):
        self.under_way = self.most = 0
        self.lock = threading.Lock()
        self.batches = []

    def count(self, by):
        with self.lock:
            self.under_way += by
            self.most = max(self.most, self.under_way)

    {fetch}

    def predict(self, batch):
        self.batches.append(len(batch))
        return [{{"most": self.most, "batches": self.batches, "main": threading.current_thread().name}} for _ in batch]
"""

FETCH = {
    "async": """async def fetch(self, item):
        self.count(1)
        while self.most < item:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        self.count(-1)
        return item""",
    "sync": """def fetch(self, item):
        self.count(1)
        while self.most < item:
            time.sleep(0.001)
        time.sleep(0.01)
        self.count(-1)
        return item""",
}


@pytest.mark.parametrize("kind", FETCH)
def test_all_items_of_all_calls_are_fetched_at_once(tmp_path: Path, kind: str):
    with hosted(tmp_path, MEETING.format(fetch=FETCH[kind])) as host:
        assert host.service.about.lanes == 64

        async def talk(line: Line) -> None:
            for call in range(4):
                line.start(call, *[32] * 8)
            answers = [await line.outcome(call) for call in range(4)]
            assert answers[-1][0]["most"] == 32
            assert answers[-1][0]["main"] == "MainThread"

        host.talk(talk)


def test_what_is_ready_together_is_predicted_together(tmp_path: Path):
    code = """
    import asyncio
    class Service:
        async def setup(self):
            self.loop = asyncio.get_running_loop()
            self.fetched = 0
        async def fetch(self, item):
            self.fetched += 1
            return item
        def predict(self, batch):
            # Until the other calls are ready, and the loop has told of it.
            while batch[0] == "first" and (self.fetched < 10 or asyncio.all_tasks(self.loop)):
                pass
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result()
            return [len(batch)] * len(batch)
    """
    with hosted(tmp_path, dedent(code)) as host:

        async def talk(line: Line) -> None:
            line.start(0, "first")
            for call in (1, 2, 3):
                line.start(call, "a", "b", "c")
            sizes = [size for call in range(4) for size in await line.outcome(call)]
            batches = round(sum(1 / size for size in sizes))
            assert batches <= 2, f"the first, and all that became ready meanwhile: {sizes}"

        host.talk(talk)


@pytest.mark.parametrize("kind", FETCH)
def test_no_more_are_fetched_at_once_than_allowed(tmp_path: Path, kind: str):
    with hosted(tmp_path, MEETING.format(fetch=FETCH[kind]), fetch_concurrency=3) as host:

        async def talk(line: Line) -> None:
            for call in range(4):
                line.start(call, *[3] * 5)
            assert [(await line.outcome(call))[0]["most"] for call in range(4)] == [3] * 4

        host.talk(talk)


def test_batches_across_calls_keep_the_largest_size(tmp_path: Path):
    with hosted(tmp_path, MEETING.format(fetch=FETCH["async"]), max_batch_rows=10) as host:

        async def talk(line: Line) -> None:
            for call in range(6):
                line.start(call, *[24] * 4)
            answers = [await line.outcome(call) for call in range(6)]
            batches = max((each[0]["batches"] for each in answers), key=len)
            assert sum(batches) == 24
            assert max(batches) in (4, 8)

        host.talk(talk)


def test_an_item_whose_fetch_fails_fails_alone(tmp_path: Path):
    code = """
    class Service:
        def validate(self, item): return item != "invalid"
        async def fetch(self, item):
            if item == "raise": raise OSError("unreachable")
            if item == "exit": raise SystemExit(1)
            return item.upper()
        def predict(self, batch): return batch
    """
    with hosted(tmp_path, dedent(code)) as host:
        good, raised, invalid, ended, last = host.predict("a", "raise", "invalid", "exit", "b")
        assert (good, last) == ("A", "B")
        assert isinstance(raised, ModelFailed)
        assert raised.message == "fetch raised OSError"
        assert 'raise OSError("unreachable")' in (raised.detail or "")
        assert isinstance(invalid, InvalidRequest)
        assert isinstance(ended, ModelFailed)
        assert ended.message == "fetch raised SystemExit"


def test_a_predict_that_raises_fails_what_made_it_raise_and_nothing_is_fetched_again(tmp_path: Path):
    code = """
    import asyncio
    fetched = 0
    class Service:
        async def fetch(self, item):
            global fetched
            fetched += 1
            while fetched < 6:
                await asyncio.sleep(0.001)
            return item
        def predict(self, batch):
            if "poison" in batch: raise ValueError("poison")
            return [fetched for _ in batch]
    """
    with hosted(tmp_path, dedent(code)) as host:

        async def talk(line: Line) -> None:
            line.start(0, "a", "b")
            line.start(1, "c", "poison")
            line.start(2, "d", "e")
            assert await line.outcome(0) == await line.outcome(2) == [6, 6]
            good, poison = await line.outcome(1)
            assert good == 6
            assert poison.message == "predict raised ValueError"

        host.talk(talk)


def test_a_call_that_nobody_waits_for_is_dropped_and_its_fetch_cancelled(tmp_path: Path):
    code = """
    import asyncio
    log = []
    class Service:
        async def fetch(self, item):
            try:
                log.append(f"begin {item}")
                await asyncio.sleep(0 if item == "short" else 1000)
            finally:
                log.append(f"end {item}")
            return item
        def predict(self, batch): return [log for _ in batch]
    """
    with hosted(tmp_path, dedent(code)) as host:

        async def talk(line: Line) -> None:
            line.start(0, "long")
            line.worker.cancel(0)
            outcome = await line.outcome(0)
            assert isinstance(outcome, ModelFailed)
            line.start(1, "short")
            (log,) = await line.outcome(1)
            assert "end long" in log or "begin long" not in log
            assert "end short" in log

        host.talk(talk)


def test_setup_and_fetch_share_an_event_loop(tmp_path: Path):
    code = """
    import asyncio
    class Service:
        async def setup(self):
            self.loop = asyncio.get_running_loop()
            self.queue = asyncio.Queue()
        async def fetch(self, item):
            await self.queue.put(item)
            return [await self.queue.get(), self.loop is asyncio.get_running_loop()]
        async def predict(self, batch):
            return [[*each, self.loop is asyncio.get_running_loop()] for each in batch]
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.predict(1, 2) == [[1, True, True], [2, True, True]]


def test_a_worker_that_is_not_well_any_more_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = """
    from paceline.workers.python import health
    health._IDLE_S = 0.05
    class Service:
        asked = 0
        def health(self):
            self.asked += 1
            return self.asked < 3
        def predict(self, batch): return [self.asked for _ in batch]
    """
    with hosted(tmp_path, dedent(code)) as host:

        async def talk(line: Line) -> None:
            await line.until(lambda: line.death is not None)
            assert line.death == "it exited with 1"

        host.talk(talk)


@pytest.mark.parametrize("change", ["batch[0].pop('x', None)", "batch.clear()", "batch[0].update(x='', y=0)"])
def test_a_batch_that_runs_again_has_the_items_that_were_fetched(tmp_path: Path, change: str):
    code = f"""
    class Service:
        async def fetch(self, item): return item
        def predict(self, batch):
            outputs = [each["x"] // each["y"] for each in batch] if len(batch) < 4 else None
            {change}
            return outputs
    """
    with hosted(tmp_path, dedent(code)) as host:
        *good, zero = host.predict({"x": 4, "y": 2}, {"x": 9, "y": 3}, {"x": 8, "y": 2}, {"x": 1, "y": 0})
        assert good == [2, 3, 4]
        assert zero.message == "predict raised ZeroDivisionError"


@pytest.mark.parametrize("kind", ["async ", ""])
@pytest.mark.parametrize(
    ("returned", "answered"),
    [
        ("collections.deque(batch)", [1, 2]),
        ("[Odd() for _ in batch]", ["a prediction cannot be written as JSON: that raised ZeroDivisionError"] * 2),
        ("[[None, Mapped()] for _ in batch]", ["a prediction cannot be written as JSON: that raised KeyError"] * 2),
        ("(each for each in batch)", ["predict: expected 1 predictions, one for each item; got generator"] * 2),
    ],
)
def test_fault_93_no_answer_of_a_service_with_fetch_ends_its_worker(
    tmp_path: Path, kind: str, returned: str, answered: list[object]
):
    code = f"""
    import collections
    class Odd:
        def model_dump(self, mode): return 1 / 0
    class Mapped(collections.abc.Mapping):
        def __getitem__(self, key): raise KeyError(key)
        def __iter__(self): return iter("a")
        def __len__(self): return 1
    class Service:
        {kind}def fetch(self, item): return item
        def predict(self, batch): return {returned}
    """
    with hosted(tmp_path, dedent(code)) as host:
        for _ in range(2):
            outcomes = host.predict(1, 2)
            assert [getattr(each, "message", each) for each in outcomes] == answered


def test_a_decorator_may_hide_that_fetch_is_async(tmp_path: Path):
    code = """
    def timed(function):
        return lambda *args: function(*args)
    class Service:
        @timed
        async def fetch(self, item): return 10 * item
        @timed
        async def predict(self, batch): return batch
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.predict(1, 2) == [10, 20]


def test_a_call_that_is_dropped_while_its_thread_runs_ends_with_it(tmp_path: Path):
    code = """
    import os, time
    class Service:
        def fetch(self, item):
            while item != "quick" and not os.path.exists(item):
                time.sleep(0.001)
            return item
        def predict(self, batch): return batch
    """
    gate = tmp_path / "gate"
    with hosted(tmp_path, dedent(code), fetch_concurrency=2) as host:

        async def talk(line: Line) -> None:
            line.start(0, str(gate))
            line.start(1, "quick")
            assert await line.outcome(1) == ["quick"]
            line.worker.cancel(0)
            line.start(2, "quick")
            assert await line.outcome(2) == ["quick"]
            assert line.order == [1, 2], "a thread that runs cannot be stopped"
            gate.touch()
            outcome = await line.outcome(0)
            assert outcome.code == "cancelled"

        host.talk(talk)


def test_a_cancellation_that_only_the_code_has_asked_for_is_a_failure(tmp_path: Path):
    code = """
    import asyncio
    class Service:
        async def fetch(self, item):
            if item == "all":
                [each.cancel() for each in asyncio.all_tasks() if each is not asyncio.current_task()]
            elif item == "itself":
                asyncio.current_task().cancel()
                await asyncio.sleep(1)
            return item
        def predict(self, batch): return batch
    """
    with hosted(tmp_path, dedent(code)) as host:
        with pytest.raises(ModelFailed) as caught:
            host.predict("all")
        assert caught.value.message == "the code raised CancelledError"
        itself, other = host.predict("itself", "other")
        assert (itself.message, other) == ("fetch raised CancelledError", "other")


def test_calls_that_are_cancelled_at_any_moment_are_answered(tmp_path: Path):
    code = """
    import asyncio
    class Service:
        async def fetch(self, item):
            await asyncio.sleep(item / 10_000)
            return item
        def predict(self, batch): return batch
    """
    with hosted(tmp_path, dedent(code)) as host:

        async def talk(line: Line) -> None:
            for start in range(0, 640, 64):
                for call in range(start, start + 64):
                    line.start(call, call % 7, call % 3)
                for call in range(start, start + 64, 2):
                    line.worker.cancel(call)
                    await asyncio.sleep(0)
                for call in range(start, start + 64):
                    outcome = await line.outcome(call)
                    dropped = isinstance(outcome, ModelFailed) and outcome.code == "cancelled"
                    assert outcome == [call % 7, call % 3] or (call % 2 == 0 and dropped)

        host.talk(talk)
