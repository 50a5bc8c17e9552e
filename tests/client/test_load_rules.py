"""The arithmetic of load: histograms, and the search for what a server carries."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.client.load_sweep import SweepStep, best, highest, search
from turnsvr.client.load_values import HISTOGRAM_SIZE, TICK, LoadCounts, bucket_of, bucket_ticks, quantile


def counts(
    sent: int, delivered: int, *, lagged: int = 0, blocked: int = 0, busy: float = 1.0, seconds: float = 1.0
) -> LoadCounts:
    return LoadCounts(sent, delivered, delivered, seconds, 0, 0, 0, lagged, blocked, 0, 0, (), busy)


class Machine:
    """A server that delivers up to `capacity` a second, and a generator that sends up to `generator`."""

    def __init__(self, capacity: float, generator: float = math.inf) -> None:
        self.capacity = capacity
        self.generator = generator
        self.asked: list[float] = []
        self.disturb = 0
        self.starve = 0

    def __call__(self, rate: float) -> SweepStep:
        self.asked.append(rate)
        if self.disturb:
            self.disturb -= 1
            return SweepStep(rate, counts(int(rate / 2), int(rate / 2), lagged=int(rate / 2), busy=0.5), 0.1, 1)
        sent = min(rate, self.generator)
        if self.starve:
            self.starve -= 1
            return SweepStep(rate, counts(int(sent), int(sent / 2), lagged=int(rate - sent)), 0.3, 1)
        delivered = min(sent, self.capacity)
        share = min(1.0, sent / self.capacity)
        return SweepStep(rate, counts(int(sent), int(delivered), lagged=int(rate - sent)), share, 1)


@given(st.integers(0, 2**32 - 1))
def test_a_bucket_is_right_within_three_percent(ticks: int) -> None:
    bucket = bucket_of(ticks)
    assert 0 <= bucket < HISTOGRAM_SIZE
    assert bucket_ticks(bucket) == pytest.approx(ticks, rel=0.0324, abs=0.5)


@given(st.lists(st.integers(0, 2**31), min_size=1), st.floats(0.01, 1))
def test_quantiles_are_those_of_the_list(values: list[int], part: float) -> None:
    histogram = [0] * HISTOGRAM_SIZE
    for value in values:
        histogram[bucket_of(value)] += 1
    exact = sorted(values)[min(len(values) - 1, max(0, math.ceil(part * len(values) - 1e-9) - 1))]
    assert quantile(histogram, part) == pytest.approx(exact * TICK, rel=0.0324, abs=TICK)


def test_no_arrival_has_no_latency_and_is_a_loss() -> None:
    nothing = counts(0, 0)
    assert math.isnan(nothing.quantile(0.5))
    assert nothing.loss == 1


@given(st.floats(2_000, 3_000_000), st.floats(1_000, 1_000_000))
def test_the_search_finds_what_a_server_carries(capacity: float, start: float) -> None:
    steps = search(Machine(capacity), start, factor=2, steps=24)
    assert best(steps).counts.rate == pytest.approx(capacity, rel=0.06)
    assert best(steps).carried


def test_the_search_ends_where_the_generator_does() -> None:
    machine = Machine(1e6, generator=300_000)
    steps = search(machine, 10_000, factor=2, steps=24)
    assert steps[-1].counts.generator_limited
    assert best(steps).counts.rate == 300_000
    assert len(steps) < 10


def test_a_disturbed_run_is_done_again() -> None:
    machine = Machine(100_000)
    machine.disturb = 2
    steps = search(machine, 50_000, factor=2, steps=20)
    assert machine.asked[:3] == [50_000, 50_000, 50_000]
    assert best(steps).counts.rate == pytest.approx(100_000, rel=0.06)


def test_a_machine_that_is_never_quiet_is_measured_all_the_same() -> None:
    machine = Machine(100_000)
    machine.disturb = 1_000
    steps = search(machine, 10_000, factor=2, steps=9)
    assert [step.asked for step in steps[::3]] == [10_000, 20_000, 80_000]


@pytest.mark.parametrize("starved", [1, 2])
def test_a_loss_while_the_server_had_no_core_is_doubted_twice(starved: int) -> None:
    machine = Machine(100_000)
    machine.starve = starved
    steps = search(machine, 50_000, factor=2, steps=20)
    assert machine.asked[: starved + 2] == [50_000] * (starved + 1) + [100_000]
    assert best(steps).counts.rate == pytest.approx(100_000, rel=0.06)


def test_a_loss_that_stays_is_believed() -> None:
    machine = Machine(100_000)
    machine.starve = 1_000
    steps = search(machine, 50_000, factor=2, steps=6)
    assert [step.asked for step in steps] == [50_000] * 3 + [25_000] * 3
    assert all(step.doubtful for step in steps)
    assert not SweepStep(1, counts(100, 50), 1, 1).doubtful
    assert SweepStep(1, counts(100, 50), 1, 1, preempted=1).doubtful


def test_a_connection_that_waits_ends_the_growth_and_still_counts() -> None:
    def connection(rate: float) -> SweepStep:
        taken = min(rate, 80_000)
        return SweepStep(rate, counts(int(taken), int(taken), blocked=int(rate - taken)), 1, 1)

    steps = search(connection, 10_000, factor=2, steps=20)
    assert best(steps).counts.rate == 80_000
    assert highest(steps) == 80_000
    assert max(step.asked for step in steps) <= 160_000 * 2**3


def test_where_all_is_lossy_the_least_loss_is_best() -> None:
    steps = [SweepStep(rate, counts(int(rate), int(rate * kept))) for rate, kept in ((100, 0.5), (50, 0.9), (200, 0.4))]
    assert best(steps).asked == 50
