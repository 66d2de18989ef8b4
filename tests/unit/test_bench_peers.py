"""The report on other servers: which are compared, and what the tables say about who is faster."""

from pathlib import Path

import pytest
from benchmarks.bench import Run
from benchmarks.peers import writing
from benchmarks.peers.catalogue import SETUPS, chosen
from benchmarks.peers.model import Model, Tensor
from benchmarks.peers.paceline import OURS
from benchmarks.peers.peer import Setup
from benchmarks.peers.results import GIVEN_UP_AFTER, Case, Results
from benchmarks.peers.rounds import Plan, cases
from benchmarks.peers.wires import Sample

TENSOR = Tensor("x", "FP32", (2,))
MODEL = Model("mlp", "Tiny", "m.onnx", "row", [[1, 2]], [[1]], Path("m.onnx"), None, [TENSOR], TENSOR)
IN_R = Model("r", "In R", "m.R", "columns", [{"a": 1}], [1.0], Path("m.R"), language="r")
FACTS = {"cpu": "a processor", "usable_cores": 2, "load_average_at_start": [0.1]}


def results(rates: dict[str, float], p99_ms: dict[str, float]) -> tuple[Plan, Results]:
    setups = [SETUPS[name] for name in rates]
    found = Results(cases=[Case(setup, MODEL, "json") for setup in setups])
    for case in found.cases:
        name = case.setup.name
        found.add(case, {8: Sample(rates[name], 1.0, p99_ms[name], 0.0, 0.5)})
    return Plan(setups, ["mlp"], [8], 1, 1.0), found


def table(plan: Plan, found: Results) -> list[str]:
    text = writing.markdown(Run(False, False, Path("build")), plan, found, FACTS)
    return [line for line in text.splitlines() if line.startswith("| ")]


def named(setups: list[Setup]) -> list[str]:
    return [setup.name for setup in setups]


def test_a_slower_server_is_not_bold():
    plan, found = results({"paceline": 6000, "flask-one": 2000}, {"paceline": 1.0, "flask-one": 3.0})
    assert table(plan, found)[1:] == [
        "| Paceline | 6 000/s, 1 ms |",
        "| Flask + gunicorn, 1 worker | 2 000/s, 3 ms, ours is 3.0x |",
    ]


def test_a_faster_server_is_bold():
    plan, found = results({"paceline": 1000, "mosec": 2000}, {"paceline": 2.0, "mosec": 1.0})
    assert table(plan, found)[-1] == "| mosec | **2 000/s**, **1 ms**, **ours is 0.50x** |"


def test_a_shorter_tail_alone_is_bold():
    plan, found = results({"paceline": 3000, "mosec": 1000}, {"paceline": 2.0, "mosec": 1.0})
    assert table(plan, found)[-1] == "| mosec | 1 000/s, **1 ms**, ours is 3.0x |"


def test_a_ratio_below_one_never_reads_as_one():
    assert writing.times(0.998) == "0.99x"
    assert writing.times(1.04) == "1.0x"
    assert writing.times(12.4) == "12x"


def test_what_failed_stands_in_the_table_with_its_reason():
    plan, found = results({"paceline": 3000}, {"paceline": 2.0})
    ray = SETUPS["ray"]
    plan = Plan([OURS, ray], ["mlp"], [8], 1, 1.0)
    found.fail("ray", "pip install ray failed:\nsomething\nNo matching distribution")
    text = writing.markdown(Run(False, False, Path("build")), plan, found, FACTS)
    assert "| Ray Serve | failed |" in text
    assert "- Ray Serve: pip install ray failed: ... No matching distribution" in text


def test_a_case_is_given_up_when_it_keeps_failing():
    _, found = results({"paceline": 3000, "mosec": 1.0}, {"paceline": 2.0, "mosec": 1.0})
    for _ in range(GIVEN_UP_AFTER):
        assert len(found.alive) == 2
        found.fail(found.cases[1].name, "did not become ready")
    assert found.alive == found.cases[:1]


def test_we_are_asked_as_the_others_are():
    asked = {(case.setup.name, case.wire) for case in cases([OURS, SETUPS["triton"]], [MODEL])}
    assert asked == {(name, wire) for name in ("paceline", "triton") for wire in ("oip", "binary", "grpc")}


def test_a_model_in_r_is_served_by_what_runs_r():
    asked = cases([OURS, SETUPS["fastapi-one"], SETUPS["plumber"]], [IN_R])
    assert [(case.setup.name, case.wire) for case in asked] == [("paceline", "json"), ("plumber", "json")]


def test_the_chart_has_every_server_once():
    plan, found = results({"paceline": 1000, "mosec": 2000}, {"paceline": 2.0, "mosec": 1.0})
    drawn = writing.chart(plan, found)
    assert [row[0] for row in drawn.table.rows] == ["Tiny", "Tiny"]
    assert "ours is 0.50x" in drawn.svg()


def test_a_peer_stands_for_its_usual_setups_and_we_are_always_there():
    assert named(chosen(["fastapi"])) == ["paceline", "fastapi-one", "fastapi-all"]
    assert named(chosen(["mosec"])) == ["paceline", "mosec"]
    assert named(chosen(["mosec-10ms"])) == ["paceline", "mosec-10ms"]
    assert {setup.peer for setup in chosen([])} == {setup.peer for setup in SETUPS.values()}


def test_an_unknown_peer_is_told_with_those_that_there_are():
    with pytest.raises(KeyError, match="unknown peer 'tornado'; there are bentoml, fastapi, "):
        chosen(["tornado"])
