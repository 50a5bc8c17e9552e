"""Medians, their spread, and ratios of pairs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Median of some values, and the least and greatest of them; NaN three times for none."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """NaN values do not count."""
        kept = [value for value in values if not math.isnan(value)]
        return cls(statistics.median(kept), min(kept), max(kept)) if kept else cls(math.nan, math.nan, math.nan)


Reading = Mapping[str, float]
"""What one run of one server gave: metric and value."""


class Pair(NamedTuple):
    """One run of each server, one after the other."""

    ours: Reading
    theirs: Reading


def spread(readings: Iterable[Reading], metric: str) -> Spread:
    return Spread.of(reading.get(metric, math.nan) for reading in readings)


def ratio(pairs: Sequence[Pair], metric: str) -> Spread:
    """Ours by theirs, pair by pair, so that what disturbed both does not count."""
    return Spread.of(
        pair.ours.get(metric, math.nan) / theirs for pair in pairs if (theirs := pair.theirs.get(metric, 0.0)) > 0
    )
