"""`paceline.cached`: what is kept, for whom a call is made, and what Redis changes."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import paceline
from paceline import DeadlineExceeded
from paceline.core.errors import ConfigError
from paceline.engine.redis_cache import connect
from paceline.library.keys import size_of
from support.redis_server import RedisServer, needs_redis, redis_server

WAIT_S = 20.0


class Calls:
    """Counts, and returns what it was called with."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def __call__(self, item: Any) -> Any:
        self.made.append(item)
        return {"item": item}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# -- what is kept ---------------------------------------------------------------------------------------------


def test_what_was_returned_is_not_asked_for_again():
    calls = Calls()

    @paceline.cached()
    def look_up(item: int) -> Any:
        """Doc."""
        return calls(item)

    assert [look_up(1), look_up(1), look_up(2)] == [{"item": 1}, {"item": 1}, {"item": 2}]
    assert calls.made == [1, 2]
    info = look_up.cache_info()
    assert (info.hits, info.misses, info.shared, info.entries) == (1, 2, 0, 2)
    assert (look_up.__name__, look_up.__doc__) == ("look_up", "Doc.")


def test_a_result_is_good_for_its_ttl():
    calls = Calls()
    look_up = paceline.cached(ttl=0.05)(lambda item: calls(item))
    look_up(1)
    until(lambda: (look_up(1), len(calls.made) == 2)[1])


def test_what_was_not_used_for_longest_makes_room():
    calls = Calls()

    @paceline.cached(max_bytes=5000)
    def look_up(item: int) -> bytes:
        calls(item)
        return bytes(1500)

    for item in (1, 2, 1, 3):
        look_up(item)
    assert look_up.cache_info().entries == 2
    assert look_up.cache_info().bytes <= 5000
    look_up(1)
    look_up(2)
    assert calls.made == [1, 2, 3, 2]


def test_a_result_larger_than_the_cache_is_returned_and_not_kept():
    look_up = paceline.cached(max_bytes=1000)(lambda item: bytes(2000))
    assert len(look_up(1)) == 2000
    assert look_up.cache_info().entries == 0


def test_clearing_forgets_also_what_is_on_its_way():
    began, gate = threading.Event(), threading.Event()

    @paceline.cached()
    def look_up(item: int) -> int:
        began.set()
        assert gate.wait(WAIT_S)
        return item

    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(look_up, 1)
        assert began.wait(WAIT_S)
        look_up.cache_clear()
        gate.set()
        assert under_way.result(WAIT_S) == 1
    assert look_up.cache_info().entries == 0


def test_none_is_a_result():
    calls = Calls()
    look_up = paceline.cached()(lambda item: calls(item) and None)
    assert look_up(1) is look_up(1) is None
    assert calls.made == [1]


# -- keys -----------------------------------------------------------------------------------------------------


def test_arguments_are_compared_by_what_they_hold():
    calls = Calls()

    @paceline.cached()
    def look_up(item: Any, more: Any = None) -> Any:
        return calls(item)

    different = [1, 1.0, True, "1", b"1", None, [1], {"a": 1}, {"a": 2}]
    for item in different * 2:
        look_up(item)
    assert calls.made == different
    look_up({"b": 1, "c": 2}, more=3)
    look_up({"c": 2, "b": 1}, 3)
    look_up(more=3, item={"c": 2, "b": 1})
    assert len(calls.made) == len(different) + 1


def test_what_has_a_name_is_not_what_stands_in_a_place():
    @paceline.cached()
    def look_up(item: Any, options: Any = None, *, a: Any = None) -> Any:
        return (item, options, a)

    assert look_up(1, a=1) == (1, None, 1)
    assert look_up([1], {"a": 1}) == ([1], {"a": 1}, None)


def test_an_argument_that_is_changed_later_changes_no_key():
    calls = Calls()
    look_up = paceline.cached()(lambda item: calls(list(item)))
    items = [1]
    look_up(items)
    items.append(2)
    look_up(items)
    assert calls.made == [[1], [1, 2]]


class Client:
    def __init__(self) -> None:
        self.calls = Calls()

    @paceline.cached()
    def without_key(self, item: int) -> Any:
        return self.calls(item)

    @paceline.cached(key=lambda self, item: item)
    def with_key(self, item: int) -> Any:
        return self.calls(item)


def test_what_is_no_plain_data_needs_a_key():
    client = Client()
    with pytest.raises(TypeError, match=r"Client.without_key: argument 0 is a Client.*key=lambda"):
        client.without_key(1)
    assert client.with_key(1) is client.with_key(1)
    assert client.calls.made == [1]


def test_a_key_that_is_no_plain_data_is_an_error():
    look_up = paceline.cached(key=lambda item: object())(lambda item: item)
    with pytest.raises(TypeError, match=r"key=\.\.\. gave what is not plain data"):
        look_up(1)


def test_arguments_that_the_function_does_not_take_are_its_own_error():
    @paceline.cached()
    def look_up(item: int) -> int:
        return item

    with pytest.raises(TypeError, match="unexpected keyword argument 'itm'"):
        look_up(itm=1)


def test_a_ttl_that_is_no_number_is_named():
    with pytest.raises(TypeError, match=r"ttl: expected a number, got datetime.timedelta"):
        paceline.cached(ttl=timedelta(seconds=5))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"ttl": 0}, {"ttl": float("inf")}, {"max_bytes": -1}, {"timeout_s": 0}])
def test_options_are_checked_where_they_are_written(wrong: dict[str, Any]):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}: must be > 0"):
        paceline.cached(**wrong)


def test_without_parentheses_it_says_what_to_write():
    with pytest.raises(TypeError, match=r"write @paceline.cached\(\) above look_up"):

        @paceline.cached
        def look_up(item: int) -> int:
            return item


def test_a_generator_is_refused():
    with pytest.raises(TypeError, match="can be read only once"):

        @paceline.cached()
        def look_up(item: int) -> Iterator[int]:
            yield item


@pytest.mark.parametrize("make", [lambda item: (each for each in [item]), lambda item: asyncio.sleep(0, item)])
def test_what_can_be_used_only_once_is_not_kept(make: Callable[[int], Any]):
    made: list[Any] = []

    def look_up(item: int) -> Any:
        made.append(make(item))
        return made[-1]

    with pytest.raises(TypeError, match="can be used only once"):
        paceline.cached()(look_up)(1)
    made[0].close()


def test_an_object_that_is_awaited_is_called_once():
    class Client:
        calls = 0

        async def __call__(self, item: int) -> int:
            self.calls += 1
            return item

    client = Client()
    look_up = paceline.cached()(client)

    async def twice() -> list[int]:
        return [await look_up(1), await look_up(1)]

    assert asyncio.run(twice()) == [1, 1]
    assert client.calls == 1


def test_sizes_are_those_of_what_a_value_holds():
    assert size_of(bytes(1000)) == pytest.approx(1000, abs=100)
    assert size_of(["x" * 1000, {"a": "y" * 1000}]) == pytest.approx(2000, abs=600)
    assert size_of(np.zeros(1000)) == pytest.approx(8000, abs=300)
    held = Client()
    held.calls.made = [bytes(5000)]
    assert size_of(held) == pytest.approx(5000, abs=1500)
    loop: list[Any] = []
    loop.append(loop)
    assert size_of(loop) < 200


# -- single flight --------------------------------------------------------------------------------------------


def test_threads_that_ask_for_the_same_at_the_same_time_call_once():
    calls, gate = Calls(), threading.Event()

    @paceline.cached()
    def look_up(item: int) -> Any:
        assert gate.wait(WAIT_S)
        return calls(item)

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(look_up, 1) for _ in range(8)]
        until(lambda: look_up.cache_info().shared == 7)
        gate.set()
        results = [each.result(WAIT_S) for each in asked]
    assert calls.made == [1]
    assert all(result is results[0] for result in results)


def test_an_error_reaches_all_who_wait_and_is_not_kept():
    gate, made = threading.Event(), []

    @paceline.cached()
    def look_up(item: int) -> int:
        made.append(item)
        assert gate.wait(WAIT_S)
        if len(made) == 1:
            raise OSError("down")
        return item

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(look_up, 1) for _ in range(4)]
        until(lambda: look_up.cache_info().shared == 3)
        gate.set()
        for each in asked:
            with pytest.raises(OSError, match="down"):
                each.result(WAIT_S)
    assert look_up(1) == 1
    assert made == [1, 1]


def test_whoever_waits_for_another_waits_for_timeout_s():
    gate = threading.Event()

    @paceline.cached(timeout_s=0.05)
    def look_up(item: int) -> int:
        assert gate.wait(WAIT_S)
        return item

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(look_up, 1)
        until(lambda: _under_way(look_up))
        with pytest.raises(DeadlineExceeded, match=r"look_up: the call of another took longer than 0.05 s"):
            look_up(1)
        gate.set()
        assert first.result(WAIT_S) == 1


def _under_way(look_up: Any) -> bool:
    try:
        with ThreadPoolExecutor(1) as threads:
            threads.submit(look_up, 1).result()
    except DeadlineExceeded:
        return True
    return False


def test_a_caller_who_is_interrupted_leaves_the_call_to_the_others():
    made, gate = [], threading.Event()

    @paceline.cached()
    def look_up(item: int) -> int:
        made.append(item)
        assert gate.wait(WAIT_S)
        if len(made) == 1:
            raise KeyboardInterrupt
        return item

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(look_up, 1)
        until(lambda: made == [1])
        second = threads.submit(look_up, 1)
        until(lambda: look_up.cache_info().shared == 1)
        gate.set()
        with pytest.raises(KeyboardInterrupt):
            first.result(WAIT_S)
        assert second.result(WAIT_S) == 1


def test_a_function_may_ask_itself():
    @paceline.cached()
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(30) == 832040
    assert fibonacci.cache_info().misses == 31


# -- async functions ------------------------------------------------------------------------------------------


def test_tasks_that_ask_for_the_same_at_the_same_time_call_once():
    calls = Calls()

    @paceline.cached()
    async def look_up(item: int) -> Any:
        await asyncio.sleep(0)
        return calls(item)

    async def main() -> None:
        results = await asyncio.gather(*[look_up(item) for item in (1, 2, 1, 1)])
        assert [result["item"] for result in results] == [1, 2, 1, 1]
        assert await look_up(1) is results[0]

    assert inspect.iscoroutinefunction(look_up)
    asyncio.run(main())
    asyncio.run(look_up(2))  # another loop
    assert calls.made == [1, 2]
    assert look_up.cache_info()[:3] == (2, 2, 2)


def test_an_error_reaches_all_tasks_and_is_not_kept():
    made = []

    @paceline.cached()
    async def look_up(item: int) -> int:
        made.append(item)
        await asyncio.sleep(0)
        if len(made) == 1:
            raise OSError("down")
        return item

    async def main() -> None:
        results = await asyncio.gather(*[look_up(1) for _ in range(3)], return_exceptions=True)
        assert [str(result) for result in results] == ["down"] * 3
        assert await look_up(1) == 1

    asyncio.run(main())


def test_an_async_function_that_asks_itself_for_the_same_is_told():
    @paceline.cached()
    async def look_up(item: int) -> int:
        return await look_up(item)

    with pytest.raises(RuntimeError, match="asks itself for the same"):
        asyncio.run(look_up(1))


def test_a_task_that_is_cancelled_does_not_cancel_the_others():
    gate = asyncio.Event()

    @paceline.cached()
    async def look_up(item: int) -> int:
        await gate.wait()
        return item

    async def main() -> None:
        first, second = asyncio.create_task(look_up(1)), asyncio.create_task(look_up(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        assert await second == 1

    asyncio.run(main())


def test_the_last_task_that_leaves_takes_the_call_along():
    ended = []

    @paceline.cached()
    async def look_up(item: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(item)
        return item

    async def main() -> None:
        only = asyncio.create_task(look_up(1))
        while not only.done():
            await asyncio.sleep(0)
            if look_up.cache_info().shared == 0:
                only.cancel()
        await asyncio.sleep(0)
        assert ended == [1]

    asyncio.run(main())


def test_who_comes_after_a_cancelled_call_begins_a_new_one():
    made = []

    @paceline.cached()
    async def look_up(item: int) -> int:
        made.append(item)
        if len(made) == 1:
            await asyncio.Event().wait()
        return item

    async def main() -> None:
        first = asyncio.create_task(look_up(1))
        while not made:  # noqa: ASYNC110 (nobody says when a call has begun)
            await asyncio.sleep(0)
        first.cancel()
        second = asyncio.create_task(look_up(1))
        assert await second == 1

    asyncio.run(main())


def test_it_works_in_a_fork():
    calls = Calls()
    look_up = paceline.cached()(lambda item: calls(item))
    look_up(1)
    child = os.fork()
    if child == 0:
        look_up(1)
        look_up(2)
        os._exit(0 if calls.made == [1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


# -- Redis ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    with running.client() as client:
        client.flushall()
    return running


def two_processes(redis: str, calls: Calls, **options: Any) -> tuple[Any, Any]:
    """The same function decorated twice: each has no memory but Redis."""

    def look_up(item: Any) -> Any:
        return calls(item)

    return tuple(paceline.cached(redis=redis, **options)(look_up) for _ in range(2))  # type: ignore[return-value]


@needs_redis
@pytest.mark.slow
def test_what_one_process_has_asked_for_another_finds(server: RedisServer):
    calls = Calls()
    here, there = two_processes(server.url, calls, ttl=100)
    assert here(["a", 1.5, None]) == there(["a", 1.5, None]) == {"item": ["a", 1.5, None]}
    assert calls.made == [["a", 1.5, None]]
    assert (there.cache_info().hits, there.cache_info().misses, there.cache_info().entries) == (1, 0, 0)
    with server.client() as client:
        (key,) = client.keys("paceline:*look_up*")
        assert 0 < client.pttl(key) <= 100_000
        assert msgspec.msgpack.decode(client.get(key)) == {"item": ["a", 1.5, None]}
    here.cache_clear()
    assert there("b") == {"item": "b"}
    there(["a", 1.5, None])
    assert len(calls.made) == 3


@needs_redis
@pytest.mark.slow
def test_async_functions_share_redis_too(server: RedisServer):
    made = []

    async def look_up(item: int) -> tuple[int, int]:
        made.append(item)
        return (item, item)

    here, there = (paceline.cached(redis=server.url)(look_up) for _ in range(2))

    async def main() -> None:
        assert await asyncio.gather(here(1), here(1)) == [[1, 1], [1, 1]]
        assert await there(1) == [1, 1]

    asyncio.run(main())
    asyncio.run(there(1))  # another loop
    assert made == [1]


@needs_redis
@pytest.mark.slow
def test_the_first_caller_gets_what_the_others_will(server: RedisServer):
    here, there = two_processes(server.url, Calls())
    assert here((1, (2, 3))) == there((1, (2, 3))) == {"item": [1, [2, 3]]}


@needs_redis
@pytest.mark.slow
def test_a_result_that_is_no_plain_data_is_an_error_and_never_a_pickle(server: RedisServer):
    @paceline.cached(redis=server.url)
    def look_up(item: int) -> Any:
        return Calls()

    with pytest.raises(TypeError, match=r"look_up: its result cannot be kept in Redis: .*Calls"):
        look_up(1)


@needs_redis
@pytest.mark.slow
def test_a_value_that_somebody_else_wrote_is_not_found(server: RedisServer):
    calls = Calls()
    here, there = two_processes(server.url, calls)
    here("spoilt")
    spoilt = [b"\xc1 no msgpack", b"", b"\xa2\xff\xfe", b"\x91" * 100_000 + b"\xc0"]
    with server.client() as client:
        for data in spoilt:
            for key in client.keys("paceline:*look_up*"):
                client.set(key, data)
            assert there("spoilt") == {"item": "spoilt"}
    assert calls.made == ["spoilt"] * (1 + len(spoilt))


@needs_redis
@pytest.mark.slow
def test_when_redis_fails_calls_are_made_without_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    calls = Calls()
    with redis_server(tmp_path) as server:
        here, _ = two_processes(server.url, calls)
        here(1)
        server.stop()
        with caplog.at_level(logging.WARNING, "paceline"):
            began = time.monotonic()
            assert [here(item)["item"] for item in (1, 2, 3)] == [1, 2, 3]
            assert time.monotonic() - began < WAIT_S
        assert here.cache_info().redis_errors == 1
        assert len(caplog.records) == 1
        assert "Redis failed, calls go on without it" in caplog.text


@needs_redis
@pytest.mark.slow
def test_when_redis_is_back_it_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paceline.library.redis_store._PAUSE_S", 0.05)
    calls = Calls()
    with redis_server(tmp_path) as server:
        here, there = two_processes(server.url, calls)
        server.stop()
        here(1)
        server.start()
        until(lambda: (here(1), there(1), there.cache_info().hits > 0)[2])


def test_a_url_that_is_none_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match="scheme"):
        paceline.cached(redis="localhost:6379")(lambda item: item)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2/x@localhost:6379/0",
        "redis://me:hunter2#x@localhost:6379/0",
        "redis://me:hunter2 x@localhost:port/0",
        "redis://localhost/0?password=hunter2&db=x",
        "http://me:hunter2@localhost",
        "redis:/me:hunter2@localhost",
    ],
)
def test_fault_108_a_password_in_a_url_is_in_no_error(url: str):
    wrong: list[Callable[[], Any]] = [lambda: paceline.cached(redis=url)(len), lambda: connect(url)]
    for each in wrong:
        with pytest.raises((ValueError, ConfigError)) as caught:
            each()
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
