"""`paceline.batched`: which calls share a batch, how each ends, and what is left of it in a fork and at the exit."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import paceline
from paceline import DeadlineExceeded, Overloaded
from paceline.core.errors import ModelFailed

WAIT_S = 20.0


class Gated:
    """Doubles numbers; a batch begins when the gate lets it.

    Attributes:
        batches: what came together.
    """

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.began = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.began.release()
        assert self.gate.acquire(timeout=WAIT_S)
        return [2 * item for item in items]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def call_all(function: Callable[[Any], Any], items: list[Any]) -> list[Future[Any]]:
    """Call with each item on a thread of its own, in their order."""
    calls = []
    with_threads = ThreadPoolExecutor(len(items))
    for item in items:
        before = function.statistics().calls
        calls.append(with_threads.submit(function, item))
        until(lambda before=before: function.statistics().calls > before)
    with_threads.shutdown(wait=False)
    return calls


# -- which calls share a batch --------------------------------------------------------------------------------


def test_a_caller_who_is_alone_waits_for_nobody():
    double = paceline.batched(lambda items: [2 * item for item in items])
    assert [double(3), double(4)] == [6, 8]
    assert double.statistics().batches == 2
    assert double.statistics().largest_batch == 1


def test_what_comes_while_a_batch_runs_is_the_next_batch():
    function = Gated()
    double = paceline.batched(function)
    calls = call_all(double, [1])
    assert function.began.acquire(timeout=WAIT_S)
    calls += call_all(double, [2, 3, 4])
    function.gate.release(2)
    assert [call.result(WAIT_S) for call in calls] == [2, 4, 6, 8]
    assert function.batches == [[1], [2, 3, 4]]


def test_a_batch_has_at_most_max_batch_size_items():
    function = Gated()
    double = paceline.batched(function, max_batch_size=2)
    calls = call_all(double, [1])
    assert function.began.acquire(timeout=WAIT_S)
    calls += call_all(double, [2, 3, 4])
    function.gate.release(3)
    assert [call.result(WAIT_S) for call in calls] == [2, 4, 6, 8]
    assert function.batches == [[1], [2, 3], [4]]


@pytest.mark.slow
def test_with_a_delay_the_first_waits_for_company():
    batches: list[list[int]] = []
    record = paceline.batched(lambda items: batches.append(items) or items, max_batch_size=3, max_queue_delay_ms=60_000)
    calls = call_all(record, [1, 2, 3])
    assert [call.result(WAIT_S) for call in calls] == [1, 2, 3]
    assert batches == [[1, 2, 3]]


@pytest.mark.slow
def test_with_a_delay_nobody_waits_longer_than_it():
    record = paceline.batched(lambda items: items, max_queue_delay_ms=50)
    began = time.monotonic()
    assert record(1) == 1
    assert time.monotonic() - began >= 0.05


def test_the_function_always_runs_on_the_same_thread():
    ident = paceline.batched(lambda items: [threading.get_ident()] * len(items))
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ident, range(50)))) == 1


def test_threads_and_event_loops_share_batches():
    function = Gated()
    double = paceline.batched(function)
    calls = call_all(double, [1])
    assert function.began.acquire(timeout=WAIT_S)

    async def loop() -> int:
        return await double.aio(3)

    calls += call_all(double, [2])
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(asyncio.run, loop())
        until(lambda: double.statistics().waiting == 2)
        function.gate.release(2)
        assert [call.result(WAIT_S) for call in [*calls, other]] == [2, 4, 6]
    assert function.batches[1] == [2, 3]


# -- how each call ends ---------------------------------------------------------------------------------------


def test_the_guilty_item_alone_gets_what_the_function_raised():
    function = Gated()

    @paceline.batched
    def divide(items: list[int]) -> list[float]:
        function(items)
        return [12 / item for item in items]

    calls = call_all(divide, [1])
    assert function.began.acquire(timeout=WAIT_S)
    calls += call_all(divide, [2, 0, 3])
    function.gate.release(20)
    assert [calls[0].result(WAIT_S), calls[1].result(WAIT_S), calls[3].result(WAIT_S)] == [12, 6, 4]
    with pytest.raises(ZeroDivisionError):
        calls[2].result(WAIT_S)
    assert divide.statistics().failed == 1


def test_an_exception_among_the_results_is_raised_to_its_caller_and_nothing_runs_again():
    runs: list[list[int]] = []

    @paceline.batched(max_batch_size=3, max_queue_delay_ms=60_000)
    def check(items: list[int]) -> list[Any]:
        runs.append(items)
        return [KeyError(item) if item == 2 else item for item in items]

    calls = call_all(check, [1, 2, 3])
    assert [calls[0].result(WAIT_S), calls[2].result(WAIT_S)] == [1, 3]
    with pytest.raises(KeyError, match="2"):
        calls[1].result(WAIT_S)
    assert runs == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("result", "got"),
    [
        ([], "expected 1 result, got 0"),
        ({1: 2}, "got a dict"),
        ({1}, "got a set"),
        ("a", "got a str"),
        (None, "got a NoneType"),
        (iter([1]), "got a list_iterator"),
        (np.array(1.0), "got a ndarray"),  # it has `__len__`, which raises
    ],
)
def test_what_is_not_a_list_with_one_result_for_each_is_an_error(result: Any, got: str):
    with pytest.raises(ModelFailed, match=got) as caught:
        paceline.batched(lambda items: result)(1)
    assert "one result for each" in str(caught.value.hint)


def test_rows_of_an_array_are_results():
    square = paceline.batched(lambda items: np.array(items) ** 2)
    assert square(3) == 9


def test_a_traceback_shows_the_function_and_not_the_threads_between():
    def guilty(items: list[int]) -> list[int]:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        paceline.batched(guilty)(1)
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "guilty"
    assert "_run" not in names


def test_a_call_whose_deadline_passes_ends_and_the_batch_goes_on():
    function = Gated()
    double = paceline.batched(function, timeout_s=0.05)
    with pytest.raises(DeadlineExceeded, match=r"Gated: no result within 0.05 s"):
        double(1)
    function.gate.release(10)
    until(lambda: _answers(double))
    assert double.statistics().late >= 1


def _answers(double: Any) -> bool:
    try:
        return bool(double(5) == 10)
    except (DeadlineExceeded, Overloaded):  # the first one is still running
        return False


def test_more_calls_than_may_wait_are_refused_at_once():
    function = Gated()
    double = paceline.batched(function, max_queue=2)
    calls = call_all(double, [1])
    assert function.began.acquire(timeout=WAIT_S)
    calls += call_all(double, [2, 3])
    with pytest.raises(Overloaded, match="Gated: 2 calls wait already"):
        double(4)
    function.gate.release(5)
    assert [call.result(WAIT_S) for call in calls] == [2, 4, 6]
    assert double.statistics().refused == 1


def test_a_task_that_is_cancelled_leaves_its_batch_before_it_runs():
    function = Gated()
    double = paceline.batched(function)
    calls = call_all(double, [1])
    assert function.began.acquire(timeout=WAIT_S)

    async def leave() -> None:
        waiting = asyncio.create_task(double.aio(2))
        while double.statistics().waiting != 1:  # noqa: ASYNC110 (nobody says when a call waits)
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())
    assert double.statistics().waiting == 0
    function.gate.release(2)
    assert calls[0].result(WAIT_S) == 2
    assert function.batches == [[1]]


def test_a_function_that_calls_itself_is_told_instead_of_waiting_for_itself():
    @paceline.batched
    def recursive(items: list[int]) -> list[int]:
        return [recursive(item) for item in items]

    with pytest.raises(RuntimeError, match="called by itself"):
        recursive(1)


def test_blocking_the_event_loop_is_a_warning():
    same = paceline.batched(lambda items: items)

    async def wrong() -> None:
        with pytest.warns(RuntimeWarning, match=r"blocks the event loop.*\.aio\("):
            assert same(1) == 1

    asyncio.run(wrong())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch_size": 0}, "max_batch_size: must be >= 1, got 0"),
        ({"max_batch_size": 1.5}, "max_batch_size: expected an integer, got 1.5"),
        ({"timeout_s": "3"}, "timeout_s: expected a number, got '3'"),
        ({"max_queue_delay_ms": -1}, "max_queue_delay_ms: must be >= 0, got -1"),
    ],
)
def test_options_are_checked_where_they_are_written(options: dict[str, Any], message: str):
    with pytest.raises((TypeError, ValueError)) as caught:
        paceline.batched(**options)
    assert str(caught.value) == message


def test_a_generator_is_refused():
    def generate(items: list[int]) -> Any:
        yield from items

    with pytest.raises(TypeError, match="generate is a generator"):
        paceline.batched(generate)


# -- methods --------------------------------------------------------------------------------------------------


class Model:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @paceline.batched
    def predict(self, items: list[int]) -> list[int]:
        """Multiply."""
        return [self.factor * item for item in items]


def test_each_object_has_batches_of_its_own():
    two, three = Model(2), Model(3)
    assert (two.predict(5), three.predict(5), two.predict(6)) == (10, 15, 12)
    assert two.predict.statistics().calls == 2
    assert two.predict.__doc__ == "Multiply."


def test_a_copy_of_an_object_has_batches_of_its_own():
    two = Model(2)
    assert two.predict(5) == 10
    for copied in (copy.copy(two), copy.deepcopy(two), pickle.loads(pickle.dumps(two))):
        copied.factor = 3
        assert (two.predict(5), copied.predict(5)) == (10, 15)
        assert copied.predict.statistics().calls == 1


@paceline.batched
def increment(items: list[int]) -> list[int]:
    return [item + 1 for item in items]


def test_a_function_is_pickled_by_its_name():
    assert pickle.loads(pickle.dumps(increment)) is increment


def test_a_method_that_has_no_place_for_batches_is_told():
    class Slots:
        __slots__ = ()

        @paceline.batched
        def predict(self, items: list[int]) -> list[int]:
            return items

        @classmethod
        @paceline.batched
        def of_class(cls, items: list[int]) -> list[int]:
            return items

    with pytest.raises(TypeError, match=r"Slots.predict is a method of an object without __dict__"):
        Slots().predict(1)
    with pytest.raises(TypeError, match=r"Slots.of_class is a classmethod"):
        Slots.of_class(1)


def test_an_object_that_nobody_uses_is_freed_with_its_thread():
    model = Model(2)
    assert model.predict(1) == 2
    names = {thread.name for thread in threading.enumerate()}
    assert "paceline-Model.predict" in names
    gone = weakref.ref(model)
    before = sum(thread.name == "paceline-Model.predict" for thread in threading.enumerate())
    del model
    until(lambda: (gc.collect(), gone() is None)[1])
    until(lambda: sum(thread.name == "paceline-Model.predict" for thread in threading.enumerate()) < before)


# -- async functions ------------------------------------------------------------------------------------------


def test_calls_of_an_async_function_that_meet_run_together():
    batches: list[list[int]] = []

    @paceline.batched
    async def double(items: list[int]) -> list[int]:
        batches.append(items)
        await asyncio.sleep(0)
        return [2 * item for item in items]

    async def main() -> list[int]:
        return await asyncio.gather(*[double(item) for item in range(100)])

    for _ in range(2):  # a loop of its own each time
        assert asyncio.run(main()) == [2 * item for item in range(100)]
    assert [len(batch) for batch in batches] == [64, 36, 64, 36]


def test_the_guilty_item_of_an_async_function_fails_alone():
    @paceline.batched
    async def divide(items: list[int]) -> list[float]:
        return [12 / item for item in items]

    async def main() -> list[Any]:
        return await asyncio.gather(*[divide(item) for item in (1, 0, 3)], return_exceptions=True)

    one, none, three = asyncio.run(main())
    assert (one, three) == (12, 4)
    assert isinstance(none, ZeroDivisionError)


def test_an_async_function_that_hangs_ends_at_the_deadline_and_the_next_batch_runs():
    @paceline.batched(timeout_s=0.1)
    async def hang(items: list[int]) -> list[int]:
        if 1 in items:
            await asyncio.Event().wait()
        return items

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await hang(1)
        assert hang.statistics().late == 1
        assert await hang(2) == 2

    asyncio.run(main())


def test_an_async_function_that_calls_itself_is_told():
    @paceline.batched
    async def recursive(items: list[int]) -> list[int]:
        return [await recursive(item) for item in items]

    with pytest.raises(RuntimeError, match="called by itself"):
        asyncio.run(recursive(1))


def test_an_event_loop_that_has_ended_is_let_go():
    @paceline.batched(max_queue_delay_ms=1)
    async def echo(items: list[int]) -> list[int]:
        return items

    async def once() -> weakref.ref[Any]:
        assert await echo(1) == 1
        return weakref.ref(asyncio.get_running_loop())

    loops = [asyncio.run(once()) for _ in range(3)]
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3


def test_an_async_function_with_a_delay_waits_for_company():
    batches: list[list[int]] = []

    @paceline.batched(max_batch_size=2, max_queue_delay_ms=60_000)
    async def record(items: list[int]) -> list[int]:
        batches.append(items)
        return items

    async def main() -> None:
        first = asyncio.create_task(record(1))
        while not record.statistics().calls:  # noqa: ASYNC110 (nobody says when a call waits)
            await asyncio.sleep(0)
        assert await asyncio.gather(first, record(2)) == [1, 2]

    asyncio.run(main())
    assert batches == [[1, 2]]


# -- processes ------------------------------------------------------------------------------------------------


def test_it_works_in_a_fork_of_a_process_that_has_used_it():
    double = paceline.batched(lambda items: [2 * item for item in items])
    assert double(1) == 2
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on: this process has threads; that is the point
        child = os.fork()
    if child == 0:
        try:
            os.write(writes, str((double(21), double.statistics().calls)).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        assert answer.read() == "(42, 1)"
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_in_the_middle_of_a_batch_has_an_empty_queue():
    function = Gated()
    double = paceline.batched(function)
    calls = call_all(double, [1])
    assert function.began.acquire(timeout=WAIT_S)
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            function.gate.release()
            os.write(writes, str(double(21)).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        assert answer.read() == "42"
    assert os.waitpid(child, 0)[1] == 0
    function.gate.release()
    assert calls[0].result(WAIT_S) == 2


@pytest.mark.slow
def test_the_interpreter_ends_while_a_batch_runs():
    code = """
import threading, time, paceline
began = threading.Event()
@paceline.batched
def slow(items):
    began.set()
    time.sleep(60)
    return items
threading.Thread(target=slow, args=(1,), daemon=True).start()
began.wait()
print("end")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.slow
def test_importing_paceline_imports_no_library_and_knows_its_names():
    code = (
        "import paceline, sys; print('numpy' in sys.modules, 'asyncio' in sys.modules); "
        "assert set(paceline.__all__) <= set(dir(paceline)); [getattr(paceline, name) for name in paceline.__all__]; "
        "print(sorted(paceline.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == [
        "False False",
        "['DeadlineExceeded', 'Overloaded', 'PacelineError', '__version__', 'batched', 'cached']",
    ]
