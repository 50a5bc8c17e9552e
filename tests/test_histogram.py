"""Histograms: which bucket a value is counted in, and what they add up to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turnsvr.histogram import SECONDS, Histogram


def test_a_value_belongs_to_the_first_bound_that_it_does_not_exceed() -> None:
    histogram = Histogram([1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 100.0):
        histogram.add(value)
    assert histogram.counts == [2, 2, 2]
    assert (histogram.count, histogram.sum) == (6, 107.5)


@given(st.lists(st.floats(0, 1e6)))
def test_every_value_is_counted_once(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.count == len(values)
    at_most = [sum(histogram.counts[: at + 1]) for at in range(len(SECONDS))]
    assert at_most == [sum(value <= bound for value in values) for bound in SECONDS]
