"""What is measured, how it is shown, and which figure a case is judged by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.cases import Kind
from bench.pairs import Result
from bench.statistics import Spread, ratio


@dataclass(frozen=True, slots=True)
class Metric:
    """How a figure is shown: its label, the factor from seconds, bytes or 1/s, and decimals; goal: greatest ratio."""

    label: str
    factor: float = 1.0
    decimals: int = 0
    goal: float | None = None


METRICS = {
    "delivered": Metric("delivered /s, loss < 1 %"),
    "overload": Metric("delivered /s at overload"),
    "share": Metric("server's % of its core then", 100, 0),
    "cpu": Metric("server CPU us a packet, best", 1e6, 2),
    "half_cpu": Metric("the same at half load", 1e6, 2),
    "loss": Metric("loss %", 100, 2),
    "p50": Metric("latency p50 us, half load", 1e6, 1),
    "p99": Metric("latency p99 us, half load", 1e6, 1, goal=1.0),
    "bytes": Metric("delivered MB /s", 1e-6),
    "byte_cpu": Metric("server CPU s a GB", 1e9, 3),
    "cycles": Metric("cycles /s"),
    "cycle_cpu": Metric("server CPU us a cycle", 1e6, 0),
    "pss": Metric("PSS bytes an allocation", goal=1.0),
    "rss": Metric("RSS bytes an allocation"),
    "base": Metric("PSS KiB when idle", 1 / 1024),
    "start": Metric("ms to the first answer", 1e3, 0),
    "scaling": Metric("two threads by one", 1, 2),
    "balance": Metric("threads' worth of work", 1, 2),
}

_HEADLINES = {
    Kind.RELAY: "delivered",
    Kind.BINDING: "delivered",
    Kind.TCP_RELAY: "bytes",
    Kind.CYCLES: "cycles",
    Kind.MEMORY: "pss",
    Kind.START: "start",
    Kind.THREADS: "scaling",
}
_BY_CPU = {"delivered": "cpu", "bytes": "byte_cpu"}
"""What stands in for a rate where the generator was the limit."""
_LESS_IS_BETTER = {"cpu", "byte_cpu", "pss", "start"}


class Headline(NamedTuple):
    """The one figure that a case is judged by. advantage: how many times better ours is, for every metric."""

    metric: str
    advantage: Spread
    by_cpu: bool
    """Whether CPU time stands in for rates because the generator was the limit."""


class Goal(NamedTuple):
    """One goal of a case and how it stands: a median of ratios, and the bound that it has to keep."""

    name: str
    found: float
    bound: float
    at_most: bool

    @property
    def met(self) -> bool:
        """NaN, for what was not measured, meets none."""
        return self.found <= self.bound if self.at_most else self.found >= self.bound

    def as_json(self) -> dict[str, Any]:
        """NaN becomes null."""
        return {**self._asdict(), "found": self.found if math.isfinite(self.found) else None, "met": self.met}

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        decimals = 4 if 0 < abs(self.found - self.bound) < 0.005 else 2
        return f"{self.name} {self.found:.{decimals}f} ({sign} {self.bound:g}) {'met' if self.met else 'MISSED'}"


def headline(result: Result) -> Headline:
    metric = _HEADLINES[result.case.kind]
    by_cpu = metric in _BY_CPU and result.generator_limited
    if by_cpu:
        metric = _BY_CPU[metric]
    found = ratio(result.pairs, metric)
    if metric in _LESS_IS_BETTER and found.low > 0:
        found = Spread(1 / found.median, 1 / found.high, 1 / found.low)
    return Headline(metric, found, by_cpu)


def goals(result: Result) -> list[Goal]:
    """The case's goals: its own for the headline, and those of the metrics that were measured; none without pairs."""
    return list(_goals(result)) if result.pairs else []


def _goals(result: Result) -> Iterator[Goal]:
    if result.case.goal is not None:
        found = headline(result)
        yield Goal("CPU ratio" if found.by_cpu else "ratio", found.advantage.median, result.case.goal, at_most=False)
    for name, metric in METRICS.items():
        if metric.goal is not None and any(name in pair.ours for pair in result.pairs):
            yield Goal(name, ratio(result.pairs, name).median, metric.goal, at_most=True)
