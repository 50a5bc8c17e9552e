"""What is said about the results: a line a case, the table for a terminal, and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.cases import Kind
from bench.metrics import METRICS, Metric, goals, headline
from bench.pairs import Result
from bench.statistics import Spread, ratio, spread
from turnsvr.client.load_sweep import MOST_LOSS

_FAR = 0.005
"""Part of the core from which on what an idle server takes is worth a word."""


def row(result: Result) -> str:
    """The case in one line: how many times better ours is, and how it stands with its goals."""
    advantage = headline(result).advantage
    said = [f"{result.case.name:<31}", "-" if math.isnan(advantage.median) else f"{_ratio(advantage):<21}"]
    said += [f"stopped: {result.error}"] if result.error else []
    said.append(", ".join(map(str, goals(result))))
    return "  ".join(said).rstrip()


def summary(results: Sequence[Result]) -> str:
    """How many goals are met, and the names of those that are not or were not measured."""
    found = [(result.case.name, goal) for result in results for goal in goals(result)]
    missed = [f"{name} {goal}" for name, goal in found if not goal.met]
    stopped = [result.case.name for result in results if result.error]
    lines = [
        f"{len(results)} case{'s' * (len(results) != 1)}: {len(found) - len(missed)} goals met, {len(missed)} missed"
    ]
    lines += [f"  {text}" for text in missed]
    lines += [f"not measured to the end: {', '.join(stopped)}"] if stopped else []
    return "\n".join(lines)


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
    lost = _total(result, "lost_at_generator")
    if lost:
        said.append(f"{lost:.0f} packets were lost at the generator, not by a server.")
    disturbed = _total(result, "disturbed")
    if disturbed:
        said.append(f"Other programs had the generator's core in {disturbed:.0f} runs: measure on a quiet machine.")
    windows, spoilt = (_total(result, name) for name in ("windows", "windows_disturbed"))
    if spoilt:
        said.append(
            f"Other programs had one of the cores in {spoilt:.0f} of {windows:.0f} windows of latency; all count."
        )
    if spread([reading for pair in result.pairs for reading in pair], "half_loss").high > MOST_LOSS:
        said.append("A server lost more than 1 % at half load, and a packet that is lost has no latency.")
    preempted = _total(result, "preempted")
    if preempted:
        said.append(f"Other programs took a server's core {preempted:.0f} times, which costs it packets and latency.")
    if result.case.kind is Kind.THREADS:
        said.append("Scaling is derived from CPU time a packet and how evenly the threads shared the work.")
    idle = spread([reading for pair in result.pairs for reading in pair], "idle").high
    if idle > _FAR:
        said.append(f"A server took {idle:.1%} of the core while the other one was under load.")
    said += [f"goal: {goal}" for goal in goals(result)]
    return said


def _total(result: Result, name: str) -> float:
    return sum(reading.get(name, 0.0) for pair in result.pairs for reading in pair)


def _spread(value: Spread, metric: Metric) -> str:
    if math.isnan(value.median):
        return "-"
    median, low, high = (f"{part * metric.factor:,.{metric.decimals}f}" for part in value)
    return f"{median} [{low} - {high}]"


def _ratio(value: Spread) -> str:
    return "-" if math.isnan(value.median) else f"{value.median:.2f} [{value.low:.2f} - {value.high:.2f}]"


def as_json(results: Sequence[Result], setting: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, each pair's readings included; NaN becomes null."""
    return {"setting": dict(setting), "cases": [_case(result) for result in results]}


def _case(result: Result) -> dict[str, Any]:
    found = headline(result)
    return {
        "name": result.case.name,
        "error": result.error or None,
        "notes": notes(result),
        "headline": {"metric": found.metric, "advantage": numbers(found.advantage), "by_cpu": found.by_cpu},
        "goal": result.case.goal,
        "goals": [goal.as_json() for goal in goals(result)],
        "metrics": {
            name: {
                "ours": numbers(spread([pair.ours for pair in result.pairs], name)),
                "theirs": numbers(spread([pair.theirs for pair in result.pairs], name)),
                "ratio": numbers(ratio(result.pairs, name)),
            }
            for name in METRICS
            if any(name in pair.ours for pair in result.pairs)
        },
        "pairs": [[{k: _number(v) for k, v in reading.items()} for reading in pair] for pair in result.pairs],
    }


def numbers(value: Spread) -> dict[str, float | None]:
    return {name: _number(part) for name, part in value._asdict().items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
