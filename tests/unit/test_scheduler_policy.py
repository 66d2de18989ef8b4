"""What the policy promises, on a virtual clock: it never waits, sheds what would be late, unlearns a wrong estimate."""

import random
from collections.abc import Callable

import pytest

from paceline.scheduling import LatencyModel, Policy, Scheduler
from support.virtual import Report, Simulation, poisson

SLO_S = 0.1


def affine(fixed_s: float, marginal_s: float) -> Callable[[int], float]:
    return lambda rows: fixed_s + marginal_s * rows


def noisy(service: Callable[[int], float], sigma: float) -> Callable[[int], float]:
    noise = random.Random(1)
    return lambda rows: service(rows) * noise.lognormvariate(0.0, sigma)


def profile_of(service: Callable[[int], float], most: int) -> list[tuple[int, float]]:
    return [(1 << power, service(1 << power)) for power in range(most.bit_length())]


def inoue_bound(rate: float, a: float, c: float) -> float:
    """Upper bound of the mean latency of batching without waiting.

    Poisson arrivals, batches of any size, service a + c*n (Inoue 2021, arXiv 1912.06322).
    """
    few = (c + a) / (2 * (1 - rate * c)) * (1 + 2 * rate * a + (1 - rate * a) / (1 + rate * c))
    many = 1.5 * a / (1 - rate * c) + (c / 2) * (rate * c + 2) / (1 - rate**2 * c**2)
    return min(few, many)


@pytest.mark.parametrize(("load", "slack"), [(0.05, 0.063), (0.17, 0.063), (0.3, 0.063), (0.6, 0.02), (0.8, 0.02)])
def test_mean_latency_is_at_the_known_bound(load: float, slack: float) -> None:
    a, c = 5e-3, 1e-3
    scheduler = Scheduler(Policy(1 << 20, max_queue_requests=1 << 20), LatencyModel())
    rate = load / c
    report = Simulation(scheduler, affine(a, c)).run(poisson(rate, until=30_000 / rate))
    bound = inoue_bound(rate, a, c)
    sampling_error = 0.03
    assert bound * (1 - slack - sampling_error) <= report.mean_latency_s <= bound * (1 + sampling_error)


def test_a_single_user_pays_nothing_for_batching() -> None:
    service = affine(5e-3, 1e-3)
    scheduler = Scheduler(Policy(32), LatencyModel(profile_of(service, 32)))
    report = Simulation(scheduler, service).run_one_user(200, think_s=1e-3)
    assert len(report.answered) == report.batches == 200
    assert all(latency == pytest.approx(service(1), rel=1e-9) for _, latency in report.answered)


def overload(factor: float, latency: LatencyModel, service: Callable[[int], float], *, until: float = 6.0) -> Report:
    scheduler = Scheduler(Policy(32, max_queue_requests=1 << 20), latency)
    rate = factor * 32 / affine(10e-3, 0.5e-3)(32)
    return Simulation(scheduler, service).run(poisson(rate, until), timeout_s=SLO_S)


@pytest.mark.parametrize("sigma", [0.0, 0.05], ids=["steady", "noisy"])
@pytest.mark.parametrize("factor", [1.2, 2.0, 5.0])
def test_overload_keeps_the_goodput_at_capacity(factor: float, sigma: float) -> None:
    service = affine(10e-3, 0.5e-3)
    capacity = 32 / service(32)
    report = overload(factor, LatencyModel(profile_of(service, 32)), noisy(service, sigma))
    assert report.goodput(SLO_S, 1.0, 5.0) >= 0.9 * capacity
    latencies = sorted(latency for _, latency in report.answered)
    assert latencies[int(0.99 * len(latencies))] <= SLO_S


class _Blind(LatencyModel):
    """Predicts nothing, so nothing is refused or dropped before its deadline."""

    def observe(self, rows: int, seconds: float) -> None:
        """Learn nothing."""


@pytest.mark.parametrize("factor", [1.2, 2.0])
def test_without_prediction_the_same_load_ruins_the_goodput(factor: float) -> None:
    service = affine(10e-3, 0.5e-3)
    report = overload(factor, _Blind(), service)
    assert report.goodput(SLO_S, 1.0, 5.0) <= 0.35 * 32 / service(32)


def test_goodput_is_back_at_once_when_the_overload_is_over() -> None:
    service = affine(10e-3, 0.5e-3)
    capacity = 32 / service(32)
    scheduler = Scheduler(Policy(32), LatencyModel(profile_of(service, 32)))
    burst = poisson(10 * capacity, until=1.0)
    after = (1.0 + instant for instant in poisson(0.5 * capacity, until=2.0, seed=1))
    report = Simulation(scheduler, service).run((*burst, *after), timeout_s=SLO_S)
    assert report.goodput(SLO_S, 1.25, 3.0) >= 0.95 * 0.5 * capacity


@pytest.mark.parametrize("load", [0.02, 0.5, 2.0])
def test_an_estimate_a_hundred_times_too_high_is_unlearned(load: float) -> None:
    service = affine(10e-3, 0.5e-3)
    capacity = 32 / service(32)
    wrong = LatencyModel(profile_of(affine(1.0, 50e-3), 32))
    report = overload(load, wrong, service, until=4.0)
    assert wrong.restarts
    assert report.goodput(SLO_S, 2.0, 4.0) >= 0.85 * min(load, 1.0) * capacity


def test_an_estimate_a_hundred_times_too_low_is_unlearned() -> None:
    service = affine(10e-3, 0.5e-3)
    wrong = LatencyModel(profile_of(affine(0.1e-3, 0.005e-3), 32))
    report = overload(2.0, wrong, service, until=5.0)
    assert report.goodput(SLO_S, 2.0, 4.0) >= 0.9 * 32 / service(32)


@pytest.mark.parametrize("instances", [2, 4])
def test_instances_multiply_the_capacity(instances: int) -> None:
    service = affine(10e-3, 0.5e-3)
    capacity = instances * 32 / service(32)
    scheduler = Scheduler(Policy(32, instances), LatencyModel(profile_of(service, 32)))
    report = Simulation(scheduler, service).run(poisson(1.5 * capacity, until=3.0), timeout_s=SLO_S)
    assert report.goodput(SLO_S, 0.5, 2.5) >= 0.9 * capacity
