"""How long things took, in few numbers: a histogram of fixed buckets. Imports nothing of ours."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bounds that fit answers of this server and of a database, in seconds."""


class Histogram:
    """Values counted by the first bound that they do not exceed. Its size is fixed when it is made."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """bounds in rising order."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """By bucket, not added up; the last one holds what exceeds every bound."""
        self.sum = 0.0

    @property
    def count(self) -> int:
        """Values so far."""
        return sum(self.counts)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
