"""Many inferences in one call: order, errors in their place, back-pressure, and a client that leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from paceline.server.protocols.oip_grpc_stream import MOST_UNDER_WAY
from paceline.testing import RunningServer, run_server
from support import grpcs, models


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = models.gather(tmp_path_factory.mktemp("grpc") / "table.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpcs.connect(server) as channel:
        yield channel


def row(index: int, **more: Any) -> Any:
    """Asks for one row of the table."""
    i = np.array([index], "<i8")
    fields = {"model_name": "table", "inputs": [grpcs.described("i", i, "INT64")], "raw_input_contents": [i.tobytes()]}
    return grpcs.REQUEST(**{**fields, **more})


def first(response: Any) -> float:
    assert not response.error_message
    return float(np.frombuffer(response.infer_response.raw_output_contents[0], "<f4")[0])


def test_answers_come_in_the_order_of_the_requests(channel: grpc.Channel) -> None:
    count = 5 * MOST_UNDER_WAY
    answers = list(grpcs.stream(channel, (row(number % 10, id=str(number)) for number in range(count))))
    assert [each.infer_response.id for each in answers] == [str(number) for number in range(count)]
    assert [first(each) for each in answers] == [4.0 * (number % 10) for number in range(count)]


def test_what_goes_wrong_is_said_in_its_place_and_the_stream_goes_on(channel: grpc.Channel) -> None:
    wrong = [row(99), row(0, model_name="no"), row(0, raw_input_contents=[b"1"])]
    answers = list(grpcs.stream(channel, [row(1), *wrong, row(2)]))
    assert first(answers[0]) == 4.0
    assert answers[2].error_message == "Request for unknown model: 'no' is not found"
    assert answers[3].error_message.startswith("input byte size mismatch for input 'i'")
    assert all(each.error_message for each in answers[1:4])
    assert first(answers[4]) == 8.0


def test_a_message_that_is_none_spoils_only_itself(channel: grpc.Channel) -> None:
    method = channel.stream_stream(f"/{grpcs.SERVICE}/ModelStreamInfer")
    good = row(3).SerializeToString()
    answers = list(method(iter([good, b"\xff\xff", good]), timeout=20))
    assert len(answers) == 3
    assert answers[0] == answers[2]
    assert b"not a inference.ModelInferRequest" in answers[1]


def test_an_empty_stream_ends(channel: grpc.Channel) -> None:
    call = grpcs.stream(channel, [])
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_an_answer_comes_before_the_next_request(channel: grpc.Channel) -> None:
    """The client sends only after it has read: nothing waits for more."""
    allowed = threading.Semaphore(1)

    def requests() -> Iterator[Any]:
        for index in range(5):
            assert allowed.acquire(timeout=20)
            yield row(index)

    got = []
    for answer in grpcs.stream(channel, requests()):
        got.append(first(answer))
        allowed.release()
    assert got == [0.0, 4.0, 8.0, 12.0, 16.0]


def test_the_last_of_a_requests_responses_is_marked_for_those_who_ask(channel: grpc.Channel) -> None:
    asked = row(1, parameters={"triton_enable_empty_final_response": {"bool_param": True}})
    (answer,) = grpcs.stream(channel, [asked])
    assert answer.infer_response.parameters["triton_final_response"].bool_param


@pytest.mark.slow
def test_requests_of_a_stream_share_batches(channel: grpc.Channel) -> None:
    (before,) = grpcs.ask(channel, "ModelStatistics").model_stats
    assert len(list(grpcs.stream(channel, [row(number % 10) for number in range(2000)]))) == 2000
    (after,) = grpcs.ask(channel, "ModelStatistics").model_stats
    assert after.inference_count - before.inference_count == 2000
    assert after.execution_count - before.execution_count < 1000


@pytest.mark.slow
def test_a_client_that_leaves_drops_all_of_its_requests(tmp_path: Any) -> None:
    path = models.slow(tmp_path / "slow.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as server, grpcs.connect(server) as channel:
        spec = grpcs.ask(channel, "ModelMetadata", name="slow").inputs[0]
        x = np.zeros([1 if size < 0 else size for size in spec.shape], "<f4")
        asked = grpcs.REQUEST(
            model_name="slow",
            inputs=[grpcs.described(spec.name, x, "FP32")],
            raw_input_contents=[x.tobytes()],
        )
        sent, left = threading.Event(), threading.Event()

        def requests() -> Iterator[Any]:
            yield from [asked] * 200
            sent.set()
            left.wait(20)

        call = grpcs.stream(channel, requests())
        assert sent.wait(20)
        call.cancel()
        left.set()
        until = time.monotonic() + 20
        while grpcs.ask(channel, "ModelStatistics").model_stats[0].inference_stats.fail.count <= 100:
            assert time.monotonic() < until
