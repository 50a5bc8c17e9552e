"""What is said about the results: metrics with their units, the table for a terminal, and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.cases import Kind
from bench.pairs import Result
from bench.statistics import Spread, ratio, spread
from turnsvr.client.load_sweep import MOST_LOSS


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
    "p50": Metric("latency p50 us, half load", 1e6, 0),
    "p99": Metric("latency p99 us, half load", 1e6, 0, goal=1.0),
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
    Kind.CYCLES: "cycles",
    Kind.MEMORY: "pss",
    Kind.START: "start",
    Kind.THREADS: "scaling",
}
_LESS_IS_BETTER = {"cpu", "pss", "start"}


class Headline(NamedTuple):
    """The one figure that a case is judged by. advantage: how many times better ours is, whatever the metric."""

    metric: str
    advantage: Spread
    by_cpu: bool
    """Whether CPU time stands in for rates because the generator was the limit."""


def headline(result: Result) -> Headline:
    metric = _HEADLINES[result.case.kind]
    by_cpu = metric == "delivered" and result.generator_limited
    if by_cpu:
        metric = "cpu"
    found = ratio(result.pairs, metric)
    if metric in _LESS_IS_BETTER and found.low > 0:
        found = Spread(1 / found.median, 1 / found.high, 1 / found.low)
    return Headline(metric, found, by_cpu)


def verdict(result: Result) -> str:
    """Whether the case's goal is met; empty without one."""
    goal = result.case.goal
    if goal is None or not result.pairs:
        return ""
    advantage = headline(result).advantage.median
    return f"goal {goal:g}: {'met' if advantage >= goal else 'missed'}"


def table(results: Sequence[Result], names: tuple[str, str]) -> str:
    """One block a case: each metric's median with least and greatest, for both servers, and the ratio."""
    return "\n".join(line for result in results for line in _block(result, names))


def _block(result: Result, names: tuple[str, str]) -> Iterator[str]:
    ours, theirs = ("2 threads", "1 thread") if result.case.kind is Kind.THREADS else names
    yield f"{result.case.name:<31}{ours:>28}{theirs:>32}{'ratio':>22}"
    for name, metric in METRICS.items():
        if any(name in pair.ours for pair in result.pairs):
            yield (
                f"  {metric.label:<29}"
                f"{_spread(spread([pair.ours for pair in result.pairs], name), metric):>28}"
                f"{_spread(spread([pair.theirs for pair in result.pairs], name), metric):>32}"
                f"{_ratio(ratio(result.pairs, name)):>22}"
                + (f"  at most {metric.goal:g}" if metric.goal is not None else "")
            )
    yield from (f"  {note}" for note in notes(result))
    yield ""


def notes(result: Result) -> list[str]:
    """What a reader must know about the case, and how it stands with its goal."""
    found = headline(result)
    said = []
    if result.error:
        said.append(f"stopped: {result.error}")
    if found.by_cpu:
        said.append(
            f"The generator was the limit, so CPU time a packet is compared: {found.advantage.median:.2f} times less."
        )
    if spread([reading for pair in result.pairs for reading in pair], "loss").high > MOST_LOSS:
        said.append("A server lost more than 1 % at every load of a pair: its rate is that of the least loss.")
    lost = sum(r.get("lost_at_generator", 0.0) for pair in result.pairs for r in pair)
    if lost:
        said.append(f"{lost:.0f} packets were lost at the generator, not by a server.")
    disturbed = sum(r.get("disturbed", 0.0) for pair in result.pairs for r in pair)
    if disturbed:
        said.append(f"Other programs had the generator's core in {disturbed:.0f} runs: measure on a quiet machine.")
    preempted = sum(r.get("preempted", 0.0) for pair in result.pairs for r in pair)
    if preempted:
        said.append(f"Other programs took a server's core {preempted:.0f} times, which costs it packets and latency.")
    if result.case.kind is Kind.THREADS:
        said.append("Scaling is derived from CPU time a packet and how evenly the threads shared the work.")
    if text := verdict(result):
        said.append(text)
    return said


def _spread(value: Spread, metric: Metric) -> str:
    if math.isnan(value.median):
        return "-"
    median, low, high = (f"{part * metric.factor:,.{metric.decimals}f}" for part in value)
    return f"{median} [{low} - {high}]"


def _ratio(value: Spread) -> str:
    return "-" if math.isnan(value.median) else f"{value.median:.2f} [{value.low:.2f} - {value.high:.2f}]"


def as_json(results: Sequence[Result], setting: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, each pair's readings included; NaN becomes null."""
    return {"setting": setting, "cases": [_case(result) for result in results]}


def _case(result: Result) -> dict[str, Any]:
    found = headline(result)
    return {
        "name": result.case.name,
        "error": result.error or None,
        "notes": notes(result),
        "headline": {"metric": found.metric, "advantage": _numbers(found.advantage), "by_cpu": found.by_cpu},
        "goal": result.case.goal,
        "metrics": {
            name: {
                "ours": _numbers(spread([pair.ours for pair in result.pairs], name)),
                "theirs": _numbers(spread([pair.theirs for pair in result.pairs], name)),
                "ratio": _numbers(ratio(result.pairs, name)),
            }
            for name in METRICS
            if any(name in pair.ours for pair in result.pairs)
        },
        "pairs": [[{k: _number(v) for k, v in reading.items()} for reading in pair] for pair in result.pairs],
    }


def _numbers(value: Spread) -> dict[str, float | None]:
    return {name: _number(part) for name, part in value._asdict().items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
