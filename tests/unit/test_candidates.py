"""Which candidates are tried, which are combined, and which is served?"""

from typing import Any

import pytest

from paceline.config.processor import processor
from paceline.core.errors import ConfigError
from paceline.optimize.candidate import Candidate, Change
from paceline.optimize.result import Judgement, Speed, Tried
from paceline.optimize.search import pareto, space
from paceline.optimize.studying import run_off
from paceline.runtimes.options import RuntimeOptions

FUSED = Candidate(name="fused", title="fused", changes=(Change(call="graph:fused"),))
PRUNED = Candidate(name="pruned", title="pruned", changes=(Change(call="prune:structured", arguments={"ratio": 0.5}),))
INT8 = Candidate(name="int8", title="int8", changes=(Change(call="quantize:dynamic"),))
STATIC = Candidate(name="static", title="static", changes=(Change(call="quantize:static"),))
OPENVINO = Candidate(name="openvino", title="OpenVINO", options=RuntimeOptions(runtime="openvino"))
BRANCHES = Candidate(name="branches", title="branches", options=RuntimeOptions(inter_op_threads=2), threads=2)
SAME, OTHER = "same answers", "paired bootstrap"


def tried(candidate: Candidate, ratio: float, difference: float = 0.0, *, passed: bool = True, **more: Any) -> Tried:
    judgement = Judgement(
        metric="accuracy", labelled=True, old=0.9, new=0.9 + difference, difference=difference, low=difference,
        high=difference, allowed=0.01, method=more.pop("method", OTHER), rows=100, accepted=passed, reason="",
    )  # fmt: skip
    speed = Speed(
        batch=1, threads=1, median_s=1 / ratio, p99_s=1.0, rows_per_s=ratio, ratio=ratio, ratio_low=ratio,
        ratio_high=ratio, runs=100,
    )  # fmt: skip
    status = more.pop("status", "accepted" if passed and ratio > 1.05 else "rejected")
    return Tried(candidate=candidate, status=status, judgement=judgement, speeds=[speed] if passed else [])


def baseline() -> Tried:
    found = tried(space.original(title="ONNX"), 1.0, status="baseline")
    found.judgement = None
    return found


def names(candidates: list[Candidate]) -> list[str]:
    return [each.name for each in candidates]


def test_a_change_and_a_runtime_make_a_pair():
    joined = space.join(INT8, OPENVINO)
    assert joined is not None
    assert (joined.name, joined.changes, joined.options) == ("int8.openvino", INT8.changes, OPENVINO.options)
    assert joined.after == "int8"


def test_changes_are_joined_in_the_order_in_which_they_are_made():
    joined = space.join(PRUNED, INT8)
    assert joined is not None
    assert joined.changes == (*PRUNED.changes, *INT8.changes)
    assert space.join(INT8, PRUNED) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [(INT8, INT8), (INT8, STATIC), (OPENVINO, BRANCHES), (OPENVINO, INT8), (PRUNED, PRUNED)],
    ids=lambda each: each.name,
)
def test_what_does_not_add_up_is_no_pair(first: Candidate, second: Candidate):
    assert space.join(first, second) is None


def test_a_pair_is_not_joined_with_a_part_of_itself():
    pair = space.join(PRUNED, INT8)
    assert pair is not None
    assert space.join(PRUNED, pair) is None
    assert space.join(pair, INT8) is None


@pytest.mark.parametrize("unchanged", [space.opened(), space.converted(title="Keras")], ids=lambda each: each.name)
def test_what_changes_nothing_is_no_part_of_a_pair(unchanged: Candidate):
    assert unchanged.changes == ()
    assert space.join(unchanged, INT8) is None
    assert space.join(INT8, unchanged) is None


def test_only_what_passed_the_gate_is_combined_the_most_promising_first():
    found = space.combined(
        [tried(FUSED, 1.2), tried(PRUNED, 2.0), tried(INT8, 3.0), tried(OPENVINO, 1.1, passed=False)], 1
    )
    assert names(found) == ["pruned.int8", "fused.int8", "fused.pruned"]


def test_a_slow_change_gets_one_more_chance_with_another_runtime_and_no_other():
    found = space.combined([tried(PRUNED, 1.5), tried(INT8, 0.8), tried(OPENVINO, 1.2)], 1)
    assert names(found) == ["pruned.openvino", "int8.openvino"]


def test_pairs_are_refined_once_they_were_tried():
    pair = space.join(PRUNED, INT8)
    assert pair is not None
    known = [tried(PRUNED, 1.5), tried(INT8, 1.5), tried(OPENVINO, 1.2), tried(pair, 2.0)]
    assert "pruned.int8.openvino" in names(space.combined(known, 1))


def test_a_pair_is_tried_in_one_order():
    pairs = [space.join(PRUNED, OPENVINO), space.join(INT8, OPENVINO), space.join(PRUNED, INT8)]
    known = [tried(each, 1.5) for each in (PRUNED, INT8, OPENVINO, *filter(None, pairs))]
    assert names(space.combined(known, 1)) == ["pruned.int8.openvino"]


def test_combinations_are_bounded():
    ways = [Candidate(name=f"way{n}", title="", options=RuntimeOptions(inter_op_threads=n)) for n in range(2, 22)]
    assert len(space.combined([tried(INT8, 2.0), *(tried(each, 1.1) for each in ways)], 1)) == 6


def test_candidates_are_chosen_by_name_by_pattern_and_joined():
    known = [INT8, STATIC, OPENVINO]
    assert names(space.chosen(known, ["int8", "open*"], [])) == ["int8", "openvino"]
    assert names(space.chosen(known, [], ["s*"])) == ["int8", "openvino"]
    assert names(space.chosen(known, ["static.openvino"], [])) == ["static.openvino"]


def test_a_pair_is_wanted_when_all_its_parts_are_and_not_when_one_is_skipped():
    assert space.wanted("int8.openvino", ["int8", "openvino"], [])
    assert not space.wanted("int8.openvino", ["int8"], [])
    assert not space.wanted("int8.openvino", [], ["openvino"])


def test_a_name_that_fits_none_is_an_error_with_those_that_there_are():
    with pytest.raises(ConfigError, match="no candidate is called 'int4'") as caught:
        space.chosen([INT8, OPENVINO], ["int4"], [])
    assert caught.value.hint == "there are int8, openvino"


@pytest.mark.parametrize("name", ["int8*", "pruned-25.int8-dynamic", "pruned*.int8*", "onnx", "fused", "*"])
def test_a_name_that_some_model_has_passes_before_a_model_is_loaded(name: str):
    space.check_names([name], processor())


@pytest.mark.parametrize("name", ["int4", "int8-dynamc", "pruned-25.int4", "int4*"])
def test_a_name_that_no_model_has_is_refused_before_a_model_is_loaded(name: str):
    with pytest.raises(ConfigError, match="no candidate is called"):
        space.check_names([name], processor())


def test_there_is_nothing_wrong_with_skipping_what_this_model_has_not():
    assert names(space.chosen([INT8, OPENVINO], [], ["pruned*"])) == ["int8", "openvino"]


def test_cheap_candidates_are_tried_before_dear_ones():
    assert space.cost(OPENVINO) < space.cost(INT8) < space.cost(STATIC) < space.cost(PRUNED)


def test_the_fastest_is_chosen():
    assert pareto.best([baseline(), tried(INT8, 2.0), tried(PRUNED, 1.5)], 1).candidate is INT8


def test_of_nearly_equal_ones_the_one_that_answers_as_before_is_chosen():
    assert pareto.best([baseline(), tried(INT8, 2.0), tried(FUSED, 1.95, method=SAME)], 1).candidate is FUSED


def test_of_nearly_equal_ones_that_answer_otherwise_the_better_is_chosen():
    assert pareto.best([baseline(), tried(INT8, 2.0, -0.009), tried(STATIC, 1.99, -0.006)], 1).candidate is STATIC
    assert pareto.best([baseline(), tried(INT8, 2.0, -0.009), tried(STATIC, 1.8, -0.006)], 1).candidate is INT8


def test_where_nothing_was_accepted_the_original_is_chosen():
    first = baseline()
    assert pareto.best([first, tried(INT8, 9.0, passed=False), tried(PRUNED, 1.01)], 1) is first


def test_the_front_holds_what_nothing_beats_in_both():
    first = baseline()
    fast, middle, beaten = tried(INT8, 3.0, -0.005), tried(PRUNED, 2.0, -0.002), tried(FUSED, 1.5, -0.004)
    assert pareto.front([first, fast, middle, beaten], 1) == [fast, middle, first]


def test_the_run_off_is_between_those_that_may_be_the_fastest():
    clear, near, quick, slow = tried(INT8, 3.0), tried(STATIC, 2.9), tried(FUSED, 2.0), tried(PRUNED, 1.5)
    near.speeds[0].ratio_high = 3.1
    quick.speeds[0].median_s = clear.speeds[0].median_s  # timed while the machine was busy with the original
    assert run_off.best([slow, quick, near, clear, baseline()]) == [clear, near, quick]
    assert run_off.best([baseline()]) == []
