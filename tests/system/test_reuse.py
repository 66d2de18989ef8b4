"""What need not run does not: equal items under way, and predictions that are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.testing import run_server
from support import models
from support.recording import Recording, recording
from support.served import Served
from support.wire import Wire, connections, post, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """One worker, one item at a time."""
    with recording(tmp_path_factory.mktemp("sharing"), "--max-batch-size", "1") as service:
        yield service


def asks(item: Any, *headers: str, target: str = "/predict") -> bytes:
    return post(json.dumps(item).encode(), *headers, target=target)


# -- single flight ----------------------------------------------------------------------------------------


def test_fault_59_a_thousand_equal_requests_run_once(sharing: Recording) -> None:
    item = {**sharing.gate("fault 59"), "why": "all of them are equal"}
    shared = sharing.metric("paceline_shared_rows_total")
    with connections(sharing.server, 1000) as wires:
        for wire in wires:
            wire.send(asks(item))
        until(lambda: sharing.metric("paceline_shared_rows_total") == shared + 999, 60)
        sharing.open("fault 59")
        answers = [wire.response() for wire in wires]
    assert {answer.status for answer in answers} == {200}
    assert {answer.body for answer in answers} == {answers[0].body}
    assert json.loads(answers[0].body)["item"] == item
    assert sharing.ran.count(item) == 1


def test_fault_60_lists_and_single_items_share(sharing: Recording) -> None:
    slow = sharing.gate("fault 60")
    with connections(sharing.server, 3) as (one, other, third):
        one.send(asks(slow))
        sharing.wait_until_runs(slow)
        other.send(asks(["b", slow, "a", "b", slow], target="/batch-predict"))
        third.send(asks(["a", "c"], target="/batch-predict"))
        until(lambda: sharing.metric("paceline_queued_rows") == 3)
        sharing.open("fault 60")
        assert items_of(other) == ["b", slow, "a", "b", slow]
        assert items_of(third) == ["a", "c"]
        assert one.response().status == 200
    assert [sharing.ran.count(item) for item in (slow, "a", "b", "c")] == [1, 1, 1, 1]


def test_whoever_started_it_may_leave(sharing: Recording) -> None:
    item = sharing.gate("leaver")
    riders = sharing.metric("paceline_shared_rows_total")
    with Wire(sharing.server) as rider:
        with Wire(sharing.server) as owner:
            owner.send(asks(item))
            sharing.wait_until_runs(item)
            rider.send(asks(item))
            until(lambda: sharing.metric("paceline_shared_rows_total") == riders + 1)
        until(lambda: 'outcome="cancelled"' in sharing.get("/metrics").text)
        sharing.open("leaver")
        assert rider.response().status == 200
    assert sharing.ran.count(item) == 1


def test_everybody_keeps_the_deadline_that_they_have(sharing: Recording) -> None:
    item = sharing.gate("deadlines")
    with connections(sharing.server, 3) as (owner, patient, hurried):
        owner.send(asks(item, "X-Request-Timeout-Ms: 400"))
        sharing.wait_until_runs(item)
        patient.send(asks(item))
        hurried.send(asks(item, "X-Request-Timeout-Ms: 50"))
        assert hurried.response().status == 504
        assert owner.response().status == 504
        sharing.open("deadlines")
        assert patient.response().status == 200
    assert sharing.ran.count(item) == 1


def test_an_item_that_is_late_in_the_queue_runs_for_those_who_have_time(sharing: Recording) -> None:
    blocking, item = sharing.gate("blocking"), "behind it"
    with connections(sharing.server, 3) as (first, owner, rider):
        first.send(asks(blocking))
        sharing.wait_until_runs(blocking)
        owner.send(asks(item, "X-Request-Timeout-Ms: 100"))
        until(lambda: sharing.metric("paceline_queued_rows") == 1)
        rider.send(asks(item))
        assert owner.response().status in (503, 504)
        sharing.open("blocking")
        assert rider.response().status == 200
        assert first.response().status == 200
    assert sharing.ran.count(item) == 1


def test_an_error_is_the_error_of_all_who_wait_for_it(sharing: Recording) -> None:
    item = {**sharing.gate("broken"), "poison": True}
    shared = sharing.metric("paceline_shared_rows_total")
    with connections(sharing.server, 5) as wires:
        for wire in wires:
            wire.send(asks(item))
        until(lambda: sharing.metric("paceline_shared_rows_total") == shared + 4)
        sharing.open("broken")
        answers = [wire.response() for wire in wires]
    assert {answer.status for answer in answers} == {500}
    assert len({json.loads(answer.body)["request_id"] for answer in answers}) == 5
    assert sharing.ran.count(item) == 1


def test_what_is_over_is_run_again(sharing: Recording) -> None:
    for _ in range(2):
        assert sharing.post("/predict", '"again"').status == 200
    assert sharing.ran.count("again") == 2


@pytest.mark.parametrize(("flags", "code"), [(["--no-deduplicate"], ""), ([], "deterministic = False")])
def test_not_shared_where_that_would_be_wrong(tmp_path: Path, flags: list[str], code: str) -> None:
    with recording(tmp_path, *flags, code=code) as service:
        answer = service.post("/batch-predict", ["a", "b", "a"])
        assert [each["item"] for each in answer.json] == ["a", "b", "a"]
        assert sorted(service.ran) == ["a", "a", "b"]
        poisoned = service.post("/batch-predict", ["a", "poison", "a"]).json
        assert [each.get("item") for each in poisoned] == ["a", None, "a"]


# -- predictions that are kept ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    folder = tmp_path_factory.mktemp("keeping")
    with recording(folder, "--cache", "memory", "--cache-mb", "1", "--max-queue-requests", "1") as service:
        yield service


def test_what_was_answered_is_answered_again(keeping: Recording) -> None:
    first = keeping.post("/predict", '{"a": 1}')
    again = keeping.post("/predict", ' {"a": 1}\n')
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
    assert again.body == first.body
    assert int(again.headers["age"]) >= 0
    assert "age" not in first.headers
    assert "server-timing" not in again.headers
    assert keeping.ran.count({"a": 1}) == 1


def test_every_protocol_finds_it(keeping: Recording) -> None:
    keeping.post("/predict", '"everywhere"')
    tensor = {"name": "item", "datatype": "BYTES", "shape": [1], "data": ['"everywhere"']}
    for answer in (
        keeping.post("/batch-predict", ["everywhere", "everywhere"]),
        keeping.post("/v1/models/recording:predict", {"instances": ["everywhere"]}),
        keeping.post("/v2/models/recording/infer", {"inputs": [tensor]}),
    ):
        assert (answer.status, answer.headers["x-cache"]) == (200, "hit")
    assert keeping.ran.count("everywhere") == 1


def test_of_a_list_only_what_is_new_runs(keeping: Recording) -> None:
    keeping.post("/predict", '"known"')
    answer = keeping.post("/batch-predict", ["known", "new", "known"])
    assert [each["item"] for each in answer.json] == ["known", "new", "known"]
    assert answer.headers["x-cache"] == "miss"
    assert (keeping.ran.count("known"), keeping.ran.count("new")) == (1, 1)


def test_errors_are_not_kept(keeping: Recording) -> None:
    before = keeping.ran.count("poison")
    for _ in range(2):
        assert keeping.post("/predict", '"poison"').status == 500
    assert keeping.post("/batch-predict", ["poison"]).json[0]["code"] == "model_failed"
    assert keeping.ran.count("poison") == before + 3


def test_what_is_kept_waits_for_nothing(keeping: Recording) -> None:
    keeping.post("/predict", '"kept"')
    running, queued = keeping.gate("full"), "queued"
    with connections(keeping.server, 2) as (first, second):
        first.send(asks(running))
        keeping.wait_until_runs(running)
        second.send(asks(queued))
        until(lambda: keeping.metric("paceline_queued_requests") == 1)

        assert keeping.post("/predict", '"another"').status == 503
        answer = keeping.post("/predict", '"kept"')

        keeping.open("full")
        assert (first.response().status, second.response().status) == (200, 200)
    assert (answer.status, answer.headers["x-cache"]) == (200, "hit")


def test_what_is_kept_is_bounded(keeping: Recording) -> None:
    for number in range(40):
        assert keeping.post("/predict", [number, "x" * 50_000]).status == 200
    assert 0 < keeping.metric("paceline_cache_bytes") <= 1 << 20
    assert 5 <= keeping.metric("paceline_cache_entries") <= 20
    assert keeping.post("/predict", [39, "x" * 50_000]).headers["x-cache"] == "hit"
    assert keeping.post("/predict", [0, "x" * 50_000]).headers["x-cache"] == "miss"


def test_hits_and_misses_are_counted(keeping: Recording) -> None:
    hits, misses = keeping.metric("paceline_cache_hits_total"), keeping.metric("paceline_cache_misses_total")
    for _ in range(3):
        keeping.post("/batch-predict", ["counted", "counted"])
    assert keeping.metric("paceline_cache_hits_total") == hits + 2
    assert keeping.metric("paceline_cache_misses_total") == misses + 1
    inner = keeping.get("/v2/models/recording/stats").json["model_stats"][0]["inference_stats"]
    assert inner["cache_hit"]["count"] == hits + 2
    assert inner["cache_miss"]["count"] == misses + 1


def test_what_is_too_old_runs_again(tmp_path: Path) -> None:
    with recording(tmp_path, "--cache", "memory", "--cache-ttl-s", "0.05") as service:
        service.post("/predict", '"old"')
        until(lambda: service.post("/predict", '"old"').headers["x-cache"] == "miss")
        assert service.ran.count("old") >= 2


def test_nothing_is_kept_of_code_that_is_not_deterministic(tmp_path: Path) -> None:
    with recording(tmp_path, "--cache", "memory", code="deterministic = False") as service:
        for _ in range(2):
            assert "x-cache" not in service.post("/predict", "1").headers
        assert service.ran == [1, 1]
        assert "nothing is kept" in service.server.output


def test_nothing_is_kept_of_tensors(tmp_path: Path) -> None:
    with run_server(models.mlp(tmp_path / "m.onnx"), ["--cache", "memory", "--warmup-s", "0"]) as server:
        model = Served("m", tmp_path / "m.onnx", server)
        assert "x-cache" not in model.post("/predict", [0.0] * 64).headers
        assert "these are tensors" in server.output


# -- the example ------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "batch_endpoint" / "prices.py"


def test_the_example_is_the_one_of_the_guide() -> None:
    _, _, code = EXAMPLE.read_text().split('"""', 2)
    assert code.strip() in (ROOT / "docs" / "how-to" / "batch-and-cache.md").read_text()


def test_the_example_of_a_batch_endpoint() -> None:
    with run_server(EXAMPLE, ["--warmup-s", "0"]) as server:
        prices = Served("prices", EXAMPLE, server)
        flat = prices.get("/example").json
        good, bad, again = prices.post("/batch-predict", [flat, {**flat, "m2": 0}, flat]).json
    assert good == again == {"price": 174_000, "among": 1}
    assert bad["error"] == "m2: must be more than 0, got 0"


def items_of(wire: Wire) -> list[Any]:
    return [each["item"] for each in json.loads(wire.response().body)]
