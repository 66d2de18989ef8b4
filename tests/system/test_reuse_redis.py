"""Predictions kept in Redis: shared by servers, and never in anybody's way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.recording import Recording, recording
from support.redis_server import RedisServer, needs_redis, redis_server
from support.wire import connections, post, until

pytestmark = [pytest.mark.slow, needs_redis]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keeping")


@pytest.fixture(scope="module")
def service(redis: RedisServer, folder: Path) -> Iterator[Recording]:
    with recording(folder, "--cache", redis.url, record=folder.parent / "one") as service:
        yield service


def keep(service: Recording, item: str) -> bytes:
    """Ask until the prediction is kept; it."""
    until(lambda: service.post("/predict", f'"{item}"').headers["x-cache"] == "hit")
    return service.post("/predict", f'"{item}"').body


def test_what_was_answered_is_answered_again(service: Recording) -> None:
    first = service.post("/predict", '"first"')
    assert first.headers["x-cache"] == "miss"
    assert keep(service, "first") == first.body
    until(lambda: int(service.post("/predict", '"first"').headers["age"]) >= 1)
    assert service.metric("paceline_cache_hits_total") >= 2


def test_another_server_of_the_same_code_finds_it(service: Recording, redis: RedisServer, folder: Path) -> None:
    kept = keep(service, "shared")
    with recording(folder, "--cache", redis.url, record=folder.parent / "other") as other:
        answer = other.post("/predict", '"shared"')
        assert (answer.body, answer.headers["x-cache"]) == (kept, "hit")
        assert other.ran == []


@pytest.mark.parametrize("change", ["code", "file", "name"])
def test_another_code_another_file_or_another_name_does_not(
    service: Recording, redis: RedisServer, tmp_path: Path, change: str
) -> None:
    keep(service, "changed")
    flags = ["--name", "other"] if change == "name" else []
    if change == "file":
        (tmp_path / "weights.bin").write_bytes(b"\1")
    by = "changed code" if change == "code" else "code"
    with recording(tmp_path, "--cache", redis.url, *flags, by=by, record=tmp_path.parent / change) as changed:
        answer = changed.post("/predict", '"changed"')
        assert answer.headers["x-cache"] == "miss"
        assert answer.json == {"item": "changed", "by": by}


def test_a_list_is_looked_for_item_by_item(service: Recording) -> None:
    keep(service, "known")
    answer = service.post("/batch-predict", ["known", "unknown", "known", "poison"])
    assert [each.get("item") for each in answer.json] == ["known", "unknown", "known", None]
    assert answer.headers["x-cache"] == "miss"
    keep(service, "unknown")
    assert service.post("/batch-predict", ["unknown", "known"]).headers["x-cache"] == "hit"
    assert service.post("/batch-predict", ["poison"]).json[0]["code"] == "model_failed"
    assert service.ran.count("known") == 1


def test_a_long_list_is_looked_for_and_kept_in_parts(service: Recording) -> None:
    items = [f"long {index}" for index in range(20_000)]
    until(lambda: service.post("/batch-predict", items).headers["x-cache"] == "hit")
    assert [each["item"] for each in service.post("/batch-predict", items).json] == items


def test_equal_requests_share_one_question_and_one_run(service: Recording) -> None:
    item = '"many at once"'
    with connections(service.server, 50) as wires:
        for wire in wires:
            wire.send(post(item.encode()))
        answers = {(answer.status, answer.body) for answer in [wire.response() for wire in wires]}
    assert len(answers) == 1
    assert service.ran.count("many at once") == 1


def test_what_somebody_else_wrote_there_is_no_prediction(service: Recording, redis: RedisServer) -> None:
    keep(service, "tampered")
    with redis.client() as client:
        for key in client.scan_iter("paceline:*"):
            client.set(key, b"garbage")
    answer = service.post("/predict", '"tampered"')
    assert (answer.status, answer.headers["x-cache"]) == (200, "miss")


def test_it_forgets_in_time(tmp_path: Path) -> None:
    flags = ["--cache-ttl-s", "0.3"]
    with (
        redis_server(tmp_path) as redis,
        recording(tmp_path, "--cache", redis.url, *flags, record=tmp_path / "r") as service,
    ):
        service.post("/predict", '"short"')
        with redis.client() as client:
            until(lambda: client.dbsize() == 1)
            assert client.pttl(client.keys()[0]) <= 300
            until(lambda: client.dbsize() == 0)
        assert service.post("/predict", '"short"').headers["x-cache"] == "miss"
        assert service.ran == ["short", "short"]


# -- Redis fails ------------------------------------------------------------------------------------------


def slowest_s(service: Recording, requests: int = 30) -> float:
    """The longest of some requests, which all must be answered."""
    longest = 0.0
    for number in range(requests):
        began = time.monotonic()
        assert service.post("/predict", f'"{number}"').status == 200
        longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_redis_that_fails_is_done_without_until_it_is_back(tmp_path: Path, fault: str) -> None:
    with redis_server(tmp_path) as redis, recording(tmp_path, "--cache", redis.url, record=tmp_path / "r") as service:
        keep(service, "before")
        redis.stop() if fault == "killed" else redis.freeze()

        assert slowest_s(service) < 2

        assert service.server.output.count("Redis does not answer") == 1
        assert service.metric("paceline_cache_errors_total") >= 1
        redis.start() if fault == "killed" else redis.thaw()
        until(lambda: "Redis answers again" in service.server.output, 30)
        keep(service, "after")


def test_a_server_starts_without_its_redis(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    with recording(tmp_path, "--cache", redis.url, record=tmp_path / "r") as service:
        assert slowest_s(service) < 2
        redis.start()
        try:
            keep(service, "after")
        finally:
            redis.stop()


def test_fault_108_the_password_is_nowhere_to_be_read(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "s3cret-right") as redis:
        wrong = redis.url.replace("://", "://:s3cret-wrong@")
        with recording(tmp_path, "--cache", wrong, record=tmp_path / "r") as service:
            assert slowest_s(service, 3) < 2
            until(lambda: "Redis does not answer" in service.server.output)
            assert "s3cret" not in service.server.output
            assert "s3cret" not in service.get("/metrics").text
        right = redis.url.replace("://", "://:s3cret-right@")
        with recording(tmp_path, "--cache", right, record=tmp_path / "r") as service:
            keep(service, "with a password")
