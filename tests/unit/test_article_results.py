"""The article's experiment: what the measured response times are taken to say."""

import math
import random

import pytest
from benchmarks.article.load import Measured
from benchmarks.article.results import Results, standard_error

MODEL_S = 0.3


def measured(set_up: str, users: int, mean_s: float, count: int = 200, spread_s: float = 0.01) -> Measured:
    source = random.Random(f"{set_up}{users}")
    return Measured(set_up, users, [mean_s + source.uniform(-spread_s, spread_s) for _ in range(count)], [], 0.1)


def results(*waves: Measured) -> Results:
    found = Results("device", "a call of 300 ms")
    found.add_calls({1: [MODEL_S] * 5})
    found.add(waves)
    return found


def verdicts(found: Results) -> dict[str, bool | None]:
    return {check.what: check.ok for check in found.checks()}


def test_the_standard_error_of_independent_values_is_the_usual_one():
    source = random.Random(1)
    errors = [standard_error([source.gauss(0, 1) for _ in range(400)]) for _ in range(200)]
    assert sum(errors) / len(errors) == pytest.approx(1 / math.sqrt(400), rel=0.1)


def test_the_standard_error_sees_that_values_depend_on_each_other():
    source = random.Random(1)
    value, values = 0.0, []
    for _ in range(2000):
        value = 0.95 * value + source.gauss(0, 1)
        values.append(value)
    naive = math.sqrt(sum(each**2 for each in values) / len(values) / len(values))
    assert standard_error(values) > 3 * naive


def test_of_three_requests_nothing_is_said():
    assert math.isnan(standard_error([1.0, 2.0, 3.0]))
    found = results(measured("a", 1, 0.9, count=3), measured("e", 1, 0.3, count=3))
    assert verdicts(found)["(a) / (e) at 1 user"] is None


def test_a_longer_one_of_ours_is_a_miss_and_a_difference_within_the_noise_a_tie():
    waves = [measured("a", 5, 0.4), measured("b", 5, 0.3), measured("c", 5, 0.3502), measured("e", 5, 0.35)]
    checks = {check.what: check for check in results(*waves).checks()}
    assert checks["(a) / (e) at 5 users"].ok
    assert checks["(b) / (e) at 5 users"].ok is False
    assert checks["(c) / (e) at 5 users"].ok
    assert "tie" in checks["(c) / (e) at 5 users"].measured


def test_one_user_may_wait_five_per_cent_longer_than_the_model_takes():
    def verdict(mean_s: float) -> bool | None:
        return next(iter(verdicts(results(measured("e", 1, mean_s))).values()))

    assert verdict(0.314)
    assert verdict(0.317) is False


def test_at_twenty_users_one_worker_has_to_be_six_times_longer():
    def verdict(mean_s: float) -> bool | None:
        waves = [measured("a", 20, mean_s), measured("a", 5, 0.4), measured("e", 5, 0.3), measured("e", 20, 0.5)]
        found = [check for check in results(*waves).checks() if check.target == ">= 6"]
        assert len(found) == 1
        return found[0].ok

    assert verdict(3.1)
    assert verdict(2.9) is False


def test_rounds_are_pooled_and_failures_counted_apart():
    found = results(measured("e", 5, 0.3, 10), Measured("e", 5, [0.5] * 10, ["ConnectionError: refused"], 0.2))
    row = found.series["e", 5].as_row()
    assert (row["requests"], row["failures"]) == (20, 1)
    assert row["mean_ms"] == pytest.approx(400, abs=10)


def test_a_device_that_waits_and_a_machine_that_does_not_is_a_disturbed_run():
    busy = Measured("e", 5, [0.3] * 10, [], 0.9)
    assert results(busy).disturbed
    assert not results(measured("e", 5, 0.3)).disturbed
    network = Results("network", "a network", waits=False)
    network.add([busy])
    assert not network.disturbed
