"""Do the metrics tell what happened, in a form that Prometheus reads, and stay bounded?"""

from __future__ import annotations

import re

import httpx
import pytest

from paceline.testing import run_server
from support import models

SERIES = re.compile(r"^([a-z_]+)(?:\{([^}]*)\})? (\S+)$")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with run_server(models.log_of(tmp_path_factory.mktemp("metrics") / "log.onnx")) as running:
        yield running


def scrape(server) -> dict[str, float]:
    response = httpx.get(server.url + "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = {}
    for line in response.text.splitlines():
        if not line.startswith("#"):
            match = SERIES.match(line)
            assert match, line
            values[f"{match[1]}{{{match[2] or ''}}}"] = float(match[3])
    return values


def difference(server, act) -> dict[str, float]:
    before = scrape(server)
    act()
    after = scrape(server)
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def test_answered_requests_are_counted_by_protocol_with_rows_and_latency(server):
    def act():
        with httpx.Client(base_url=server.url) as client:
            for _ in range(3):
                assert client.post("/predict", json=[1.0, 2.0]).status_code == 200
            assert client.post("/batch-predict", json=[[1.0, 2.0]] * 5).status_code == 200

    change = difference(server, act)
    model = 'model="log",version="1"'
    assert change[f'paceline_requests_total{{{model},protocol="plain",outcome="ok"}}'] == 4
    assert change[f"paceline_rows_total{{{model}}}"] == 8
    assert change[f"paceline_latency_seconds_count{{{model}}}"] == 4
    assert change[f"paceline_queue_delay_seconds_count{{{model}}}"] == 4
    assert change[f"paceline_service_time_seconds_count{{{model}}}"] == 4
    assert change[f"paceline_batch_rows_sum{{{model}}}"] == 8
    assert 0 < change[f"paceline_latency_seconds_sum{{{model}}}"] < 4


def test_failures_are_counted_by_outcome(server):
    def act():
        assert httpx.post(server.url + "/predict", json=[-1.0, 2.0]).status_code == 500

    change = difference(server, act)
    assert change['paceline_requests_total{model="log",version="1",protocol="plain",outcome="nonfinite_output"}'] == 1


def test_histogram_buckets_are_cumulative_and_end_with_the_count(server):
    httpx.post(server.url + "/predict", json=[1.0, 2.0])
    values = scrape(server)
    buckets = [value for name, value in values.items() if name.startswith("paceline_latency_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == values['paceline_latency_seconds_count{model="log",version="1"}'] > 0


def test_fault_114_metric_labels_are_bounded_whatever_clients_send(server):
    with httpx.Client(base_url=server.url) as client:
        client.post("/predict", json=[1.0, 2.0])
        names = set(scrape(server))
        for index in range(300):
            client.get(f"/no/such/path/{index}")
            client.post(f"/models/name-{index}/predict", json=[1.0, 2.0])
            client.post("/predict", json=[1.0, 2.0], headers={"x-request-id": f"id-{index}"})
    assert set(scrape(server)) == names
