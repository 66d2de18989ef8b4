"""Is every request that a load test makes up for a model one that the model accepts, in every protocol?"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from paceline.core.errors import ConfigError
from paceline.loadtest.requests import discovery
from paceline.loadtest.target import Protocol
from support.fronts import grpc_front, http_front
from support.served import ServedModels
from support.targets import refusals

PROTOCOLS: tuple[Protocol, ...] = ("plain", "oip", "oip-binary", "tfs", "oip-grpc", "tfs-grpc")
BATCHED = ("mlp", "half_plus_two", "two", "whole", "words", "text", "flowers", "digits", "table")
OIP = r"/v2|/v2/models/[^/]+|/v2/models/[^/]+/(infer|ready)"
TFS = r"/v1/models.*"
GRPC_OIP = r"/inference\..*"
GRPC_TFS = r"/tensorflow\..*"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", BATCHED)
def test_the_model_accepts_every_request(served: ServedModels, name: str, protocol: Protocol, rows: int):
    target = discovery.find(served[name].server.url, protocol=protocol, rows=rows)
    assert (target.protocol, target.rows, target.model) == (protocol, rows, name)
    assert target.server.startswith("paceline ")
    assert len(target.bodies) == 100
    assert refusals(target) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["fixed"])
def test_a_model_without_rows_gets_whole_inputs(served: ServedModels, name: str, protocol: Protocol):
    if protocol == "plain":
        with pytest.raises(ConfigError, match="--rows 2: model 'fixed' takes one at a time"):
            discovery.find(served[name].server.url, protocol=protocol, rows=2)
    assert refusals(discovery.find(served[name].server.url, protocol=protocol)) == []


@pytest.mark.parametrize("name", ["mlp", "two", "words"])
def test_the_requests_differ_and_the_same_seed_makes_the_same(served: ServedModels, name: str):
    url = served[name].server.url
    for protocol in PROTOCOLS:
        first, again, other = (discovery.find(url, protocol=protocol, seed=seed).bodies for seed in (1, 1, 2))
        assert len(set(first)) == 100
        assert first == again != other


@dataclass
class Elsewhere:
    """What another kind of server is found by."""

    passes: str
    protocol: Protocol
    says: str


@pytest.mark.parametrize(
    "front",
    [Elsewhere(OIP, "oip", "paceline "), Elsewhere(TFS, "tfs", "TensorFlow Serving")],
    ids=["open inference", "tensorflow serving"],
)
@pytest.mark.parametrize("name", ["mlp", "two", "whole", "words", "fixed", "table"])
def test_other_servers_over_http_are_known_by_what_they_say(served: ServedModels, front: Elsewhere, name: str):
    with http_front(served[name].server, front.passes) as url:
        target = discovery.find(url, model=name)
        assert (target.protocol, target.model, target.wire) == (front.protocol, name, "http1")
        assert target.server.startswith(front.says)
        assert refusals(target) == []


@pytest.mark.parametrize(
    "front",
    [Elsewhere(GRPC_OIP, "oip-grpc", "paceline "), Elsewhere(GRPC_TFS, "tfs-grpc", "TensorFlow Serving")],
    ids=["open inference", "tensorflow serving"],
)
@pytest.mark.parametrize("name", ["mlp", "two", "words", "shortened"])
def test_servers_that_speak_grpc_alone_are_asked_over_grpc(served: ServedModels, front: Elsewhere, name: str):
    with grpc_front(served[name].server, front.passes) as url:
        target = discovery.find(url, model=name)
        assert (target.protocol, target.model, target.wire) == (front.protocol, name, "grpc")
        assert target.server.startswith(front.says)
        assert refusals(target) == []


def test_inputs_are_guessed_again_when_the_server_refuses_them(served: ServedModels):
    # Nothing says that the table has ten rows: 9 is the largest index that is tried first.
    with http_front(served["table"].server, OIP) as url:
        bodies = discovery.find(url, model="table").bodies
        indices = {json.loads(body)["inputs"][0]["data"][0] for body in bodies}
        assert indices == set(range(10))


def test_rows_of_a_file_are_sent_in_every_protocol(served: ServedModels, tmp_path):
    rows = [{"a": [0.5, float(n)], "b": [n, 2]} for n in range(5)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for protocol in PROTOCOLS:
        target = discovery.find(served["two"].server.url, protocol=protocol, rows=2, data=path)
        assert len(target.bodies) == 3  # the last one is filled up from the beginning
        assert refusals(target) == []
    plain = discovery.find(served["two"].server.url, protocol="plain", rows=2, data=path)
    assert [json.loads(body) for body in plain.bodies] == [rows[:2], rows[2:4], [rows[4], rows[0]]]


def test_arrays_of_a_file_are_sent_in_every_protocol(served: ServedModels, tmp_path):
    arrays = {"a": np.ones((4, 2)), "b": np.arange(8).reshape(4, 2)}
    np.savez(tmp_path / "rows.npz", **arrays)
    np.save(tmp_path / "rows.npy", np.ones((4, 8)))
    for protocol in PROTOCOLS:
        for name, file in (("two", "rows.npz"), ("mlp", "rows.npy")):
            target = discovery.find(served[name].server.url, protocol=protocol, rows=2, data=tmp_path / file)
            assert len(target.bodies) == 2
            assert refusals(target) == []


def test_columns_of_csv_are_the_elements_of_the_only_input(served: ServedModels, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("p,q,r,s\n1,2,3,4\n5.1,3.5,1.4,0.2\n")
    for protocol in PROTOCOLS:
        assert refusals(discovery.find(served["digits"].server.url, protocol=protocol, data=path)) == []
    plain = discovery.find(served["digits"].server.url, data=path)
    assert plain.bodies == (b"[1,2,3,4]", b"[5.1,3.5,1.4,0.2]")
