"""Is a result good enough? Rules, the comparison with a baseline, and the documents themselves."""

import msgspec
import pytest

from paceline.core.errors import ConfigError
from paceline.loadtest.reporting.gate import METRICS, compare, differences, parse
from paceline.loadtest.result import SCHEMA_VERSION, Capacity, Result, read
from support.results import SLO, result, step_result

TEST = result([step_result(1), step_result(8, failing=0.02), step_result(16)])


def changed(step=0, **numbers):
    """The test with other numbers in one of its steps, and in that one's latency."""
    old = TEST.steps[step]
    known = old.latency.__struct_fields__
    latency = msgspec.structs.replace(old.latency, **{name: value for name, value in numbers.items() if name in known})
    others = {name: value for name, value in numbers.items() if name not in known}
    new = msgspec.structs.replace(old, latency=latency, **others)
    return msgspec.structs.replace(TEST, steps=[*TEST.steps[:step], new, *TEST.steps[step + 1 :]])


def verdicts(now, baseline, *rules):
    return [gate.ok for gate in compare(now, baseline, [parse(rule) for rule in rules])]


@pytest.mark.parametrize(
    ("text", "metric", "how", "bound", "rises"),
    [
        ("p99+10%", "p99", "share", 0.1, True),
        ("p99.9+2ms", "p99.9", "difference", 2.0, True),
        (" p50 > 1s ", "p50", "absolute", 1000.0, True),
        ("mean+20us", "mean", "difference", 0.02, True),
        ("rate-5%", "rate", "share", 0.05, False),
        ("goodput-100/s", "goodput", "difference", 100.0, False),
        ("capacity<1k/s", "capacity", "absolute", 1000.0, False),
        ("errors>1%", "errors", "absolute", 0.01, True),
        ("errors+0.5%", "errors", "difference", 0.005, True),
    ],
)
def test_rules(text, metric, how, bound, rises):
    rule = parse(text)
    assert (rule.text, rule.metric, rule.how, rule.rises) == (text.strip(), metric, how, rises)
    assert rule.bound == pytest.approx(bound)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "expected a rule such as", None),
        ("p99", "expected a rule such as", None),
        ("p98+10%", "expected one of p50, p90,", "did you mean 'p99'?"),
        ("latency>5ms", "got 'latency'", None),
        ("p99-10%", "would be an improvement", "did you mean p99+10%?"),
        ("p99<50ms", "would be an improvement", "did you mean p99>50ms?"),
        ("rate+5%", "would be an improvement", "did you mean rate-5%?"),
        ("p99+ten%", "expected a share such as 1%, got 'ten%'", None),
        ("p99>50%", "expected a time such as 60s", None),
        ("rate<5ms", "expected a rate such as 200/s", None),
        ("p99>50", "expected a time with its unit, such as 50ms, got '50'", None),
        ("p99+10", "expected a time with its unit, such as 10ms, got '10'", None),
        ("errors>3", "expected a share such as 1%, got '3'", None),
    ],
)
def test_what_is_no_rule(text, message, hint):
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert message in str(raised.value)
    assert raised.value.hint in (hint, None) if hint is None else raised.value.hint == hint


def test_a_result_is_as_good_as_itself():
    rules = [*(f"{metric}+0%" for metric in ("p50", "p90", "p95", "p99", "max", "mean", "errors")), "rate-0%"]
    assert verdicts(TEST, TEST, *rules) == [True] * len(rules) * 3


@pytest.mark.parametrize(("factor", "ok"), [(1.09, True), (1.11, False), (0.5, True)])
def test_a_share_of_the_baseline(factor, ok):
    was = TEST.steps[0].latency.p99_ms
    assert verdicts(changed(p99_ms=was * factor), TEST, "p99+10%") == [ok, True, True]


@pytest.mark.parametrize(("more_ms", "ok"), [(1.9, True), (2.1, False)])
def test_a_difference_from_the_baseline(more_ms, ok):
    was = TEST.steps[2].latency.p50_ms
    assert verdicts(changed(2, p50_ms=was + more_ms), TEST, "p50+2ms") == [True, True, ok]


@pytest.mark.parametrize(("factor", "ok"), [(0.96, True), (0.94, False), (2.0, True)])
def test_rates_fail_when_they_fall(factor, ok):
    assert verdicts(changed(rate=TEST.steps[0].rate * factor), TEST, "rate-5%") == [ok, True, True]


def test_errors_count_as_a_share_of_the_requests():
    requests = TEST.steps[0].requests
    now = changed(errors={"timeout": round(requests * 0.03)})
    assert verdicts(now, TEST, "errors>1%") == [False, False, True], "the second step fails by itself"
    assert verdicts(now, TEST, "errors+2%") == [False, True, True]
    assert verdicts(now, TEST, "errors+4%") == [True, True, True]


def test_what_needs_no_baseline():
    now = changed(p99_ms=60.0)
    assert verdicts(now, None, "p99>50ms") == [False, True, True]
    assert verdicts(now, None, "rate<0.001/s") == [True] * 3
    with pytest.raises(ConfigError, match="compares with a baseline") as raised:
        compare(now, None, [parse("p99+10%")])
    assert raised.value.hint == "give one: --baseline old.json"


def test_a_gate_says_both_numbers_their_bound_and_how_many_requests_each_has():
    was = TEST.steps[0].latency.p99_ms
    gate = compare(changed(p99_ms=was * 2), TEST, [parse("p99+10%")])[0]
    assert (gate.rule, gate.label, gate.before, gate.now) == ("p99+10%", "1 user", was, was * 2)
    assert "(+100.0%); at most" in gate.why
    assert gate.why.endswith(f"; {TEST.steps[0].requests} requests, {TEST.steps[0].requests} in the baseline")


@pytest.mark.parametrize(
    ("metric", "count", "ok"),
    [("p99.9", 999, False), ("p99.9", 1000, True), ("p99", 99, False), ("p50", 9, False), ("max", 1, True)],
)
@pytest.mark.parametrize("few", ["now", "before"])
def test_a_percentile_of_too_few_requests_is_not_compared(metric, count, ok, few):
    small = changed(count=count)
    now, before = (small, TEST) if few == "now" else (TEST, small)
    gate = compare(now, before, [parse(f"{metric}+10%")])[0]
    assert gate.ok is ok
    if not ok:
        assert f"{count} answers, and {metric} needs" in gate.why
        assert ("the baseline: " in gate.why) is (few == "before")


def test_steps_are_compared_by_their_labels():
    fewer = msgspec.structs.replace(TEST, steps=TEST.steps[1:])
    gates = compare(TEST, fewer, [parse("p99+10%")])
    assert [gate.label for gate in gates] == ["8 users", "16 users"]
    assert differences(TEST, fewer) == ["only the new result has 1 user: not compared"]
    assert differences(fewer, TEST) == ["only the baseline has 1 user: not compared"]


def test_nothing_in_common_fails():
    other = result([step_result(100.0)])
    (gate,) = compare(TEST, other, [parse("p99+10%")])
    assert not gate.ok
    assert gate.why == "no step has the same load as one of the baseline"
    (gate,) = compare(result([]), None, [parse("p99>1ms")])
    assert (gate.ok, gate.why) == (False, "there is no step")


def test_a_step_that_answered_nothing_fails():
    empty = result([step_result(8, failing=1.0)])
    for rule in ("p99>50ms", "max>50ms"):
        (gate,) = compare(empty, None, [parse(rule)])
        assert not gate.ok
        assert gate.why.startswith("not compared: ")


def test_goodput_needs_an_slo():
    gates = compare(TEST, None, [parse("goodput<1/s")])
    assert {gate.why for gate in gates} == {"not compared: goodput needs an SLO (--slo p99=50ms)"}
    with_slo = result([step_result(8, slo=SLO)], slo=SLO)
    assert verdicts(with_slo, None, "goodput<1/s", "goodput<1M/s") == [True, False]


def test_a_rule_on_the_capacity_applies_once():
    def found(rate):
        return msgspec.structs.replace(TEST, capacity=Capacity(rate=rate, missed_at=rate * 1.04, why=""))

    assert verdicts(found(960.0), found(1000.0), "capacity-5%") == [True]
    assert verdicts(found(940.0), found(1000.0), "capacity-5%") == [False]
    assert verdicts(found(940.0), None, "capacity<900/s") == [True]
    (gate,) = compare(found(940.0), TEST, [parse("capacity-5%")])
    assert (gate.ok, gate.why) == (False, "not compared: the baseline has no capacity (--find-capacity)")
    (gate,) = compare(TEST, None, [parse("capacity<9/s")])
    assert (gate.ok, gate.why) == (False, "not compared: this result has no capacity (--find-capacity)")


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_a_rule_of_both_kinds(metric):
    now = msgspec.structs.replace(
        result([step_result(200.0, slo=SLO)], slo=SLO), capacity=Capacity(rate=1.0, missed_at=2.0, why="")
    )
    sign, amount = ("-", "5%") if metric in ("rate", "goodput", "capacity") else ("+", "5%")
    assert verdicts(now, now, f"{metric}{sign}{amount}") == [True]


# -- what else is different ---------------------------------------------------------------------------------------


def test_another_target_or_machine_is_told():
    now = msgspec.structs.replace(
        TEST,
        protocol="plain",
        url="http://elsewhere:8080/predict",
        machine={**TEST.machine, "cores": 64},
        slo=SLO,
        model="",
    )
    told = differences(now, TEST)
    assert "protocol: oip in the baseline, plain now" in told
    assert "host: 127.0.0.1 in the baseline, elsewhere now" in told
    assert "machine, cores: 2 in the baseline, 64 now" in told
    assert "SLO: none in the baseline, p99 <= 50 ms now" in told
    assert "model: digits in the baseline, none now" in told
    assert len(told) == 6, "and the path"


def test_another_port_is_no_difference():
    assert differences(msgspec.structs.replace(TEST, url=TEST.url.replace("8080", "41234")), TEST) == []


# -- documents ------------------------------------------------------------------------------------------------------


def test_a_result_survives_its_file(tmp_path):
    path = tmp_path / "old.json"
    path.write_bytes(msgspec.json.encode(TEST))
    assert read(path) == TEST


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no result of a load test"),
        ("{}", "is no result of a load test"),
        ("[1]", "is no result of a load test"),
        ('{"schema_version": 1}', "is no result of a load test"),
        ('{"schema_version": 2, "all": "new"}', f"schema_version: expected {SCHEMA_VERSION}, got 2"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, text, message):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_result_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read(tmp_path / "old.json")


def test_the_document_has_a_schema():
    schema = msgspec.json.schema(Result)
    assert schema["$defs"]["StepResult"]["required"]
