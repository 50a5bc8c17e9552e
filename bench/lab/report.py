"""What the laboratory found: rows beside each other, the goals, and whether the machine was quiet enough to say so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.lab.measure import LabResult
from bench.lab.rows import COTURN, FORWARD, OTHER, PUMP, TC, XDP, Row
from bench.metrics import Goal
from bench.report import numbers
from bench.statistics import Spread

MOST_OTHERS: Final = 0.05
"""Part of a core that other programs may take before a figure does not hold."""
_MOST_SPREAD: Final = 1.3
"""The greatest by the least CPU time a packet, the same."""
_MOST_LOSS: Final = 0.02
_LEAST_SENT: Final = 0.95


class Shown(NamedTuple):
    """A column: heading, width, factor and decimals."""

    label: str
    width: int
    factor: float = 1.0
    decimals: int = 0


_COLUMNS: Final = {
    "delivered": Shown("delivered /s", 36),
    "share": Shown("core %", 8, 100),
    "cpu": Shown("CPU us a packet", 24, 1e6, 2),
    "kernel_cpu": Shown("kernel", 8, 1e6, 2),
    "process_cpu": Shown("process", 9, 1e6, 2),
    "p50": Shown("p50 us", 11, 1e6, 1),
    "p99": Shown("p99 us", 11, 1e6, 1),
}
_WITH_SPREAD: Final = ("delivered", "cpu")
_METRICS: Final = (*_COLUMNS, "loss", "half_rate", "half_cpu", "half_loss", "others", "others_at_load")


def reference(result: LabResult) -> str:
    """The coturn that goals are held to: the one that was asked for where it was measured, else Debian's."""
    return OTHER if not math.isnan(result.spread(OTHER, "cpu").median) else COTURN


def goals(result: LabResult) -> list[Goal]:
    """Those of the kernel's packets; NaN, which is missed, where a row is absent. None without a round."""
    coturn = reference(result)

    def less(row: str, other: str, least: float) -> Goal:
        return Goal(f"CPU, {other} / {row}", result.ratio(other, row, "cpu").median, least, at_most=False)

    late = Goal(f"p99, {XDP} / {coturn}", result.ratio(XDP, coturn, "p99").median, 0.5, at_most=True)
    return (
        [
            less(XDP, PUMP, 8),
            less(XDP, coturn, 20),
            less(TC, PUMP, 2),
            less(TC, coturn, 5),
            less(XDP, FORWARD, 3),
            late,
        ]
        if result.rounds and not result.case.by_sockets
        else []
    )


def doubts(result: LabResult) -> list[str]:
    """Why the figures do not hold; nothing where they do."""
    if not result.rounds:
        return []
    found = []
    names = sorted({name for each in result.rounds for name in each})
    took = {name: max((_at(result, row, name).high for row in names), default=0.0) for name in _OTHERS}
    if max(took.values()) > MOST_OTHERS:
        said = ", ".join(f"{share:.0%} of the {_OTHERS[name]} core" for name, share in took.items())
        found.append(f"other programs took up to {said}")
    for row in names:
        cpu = result.spread(row, "cpu")
        if cpu.high > _MOST_SPREAD * cpu.low:
            found.append(f"{row}: CPU time a packet differs by {cpu.high / cpu.low:.1f} from round to round")
        if _at(result, row, "loss").median > _MOST_LOSS:
            found.append(f"{row}: {_at(result, row, 'loss').median:.0%} lost at the rate that it had carried")
        if _at(result, row, "sent_share").median < _LEAST_SENT:
            found.append(f"{row}: only {_at(result, row, 'sent_share').median:.0%} of what was asked for was sent")
    return found


_OTHERS: Final = {"others": "server's", "others_at_load": "load's"}


def _at(result: LabResult, row: str, metric: str) -> Spread:
    return result.spread(row, metric)


def table(result: LabResult, rows: Sequence[Row]) -> str:
    return "\n".join(_lines(result, rows))


def _lines(result: LabResult, rows: Sequence[Row]) -> Iterator[str]:
    coturn, wide = reference(result), max(len(row.label) for row in rows)
    heads = "".join(f"{shown.label:>{shown.width}}" for shown in _COLUMNS.values())
    yield f"{result.case.name:<{wide}}{heads}{f'{coturn} /':>15}{'pump /':>8}"
    for row in rows:
        if row.name in result.absent:
            yield f"{row.label:<{wide}}  absent: {result.absent[row.name]}"
            continue
        cells = "".join(f"{_cell(result, row.name, name):>{shown.width}}" for name, shown in _COLUMNS.items())
        by = "".join(f"{_number(result.ratio(other, row.name, 'cpu').median, 2):>10}" for other in (coturn, PUMP))
        yield f"{row.label:<{wide}}{cells}{by}"
    yield from (f"  does not hold: {doubt}" for doubt in doubts(result))
    yield from (f"  goal: {goal}" for goal in goals(result))
    if result.error:
        yield f"  stopped: {result.error}"


def _cell(result: LabResult, row: str, name: str) -> str:
    shown, value = _COLUMNS[name], result.spread(row, name)
    median, low, high = (_number(each * shown.factor, shown.decimals) for each in value)
    return f"{median} [{low} - {high}]" if name in _WITH_SPREAD and median != "-" else median


def _number(value: float, decimals: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{decimals}f}"


def summary(results: Sequence[LabResult]) -> str:
    """How many goals are met, which are missed, and which of them were not decided on a quiet machine."""
    found = [(result, goal) for result in results for goal in goals(result)]
    missed = [(result, goal) for result, goal in found if not goal.met]
    lines = [f"{len(found) - len(missed)} goals met, {len(missed)} missed"]
    lines += [
        f"  {result.case.name} {goal}" + (" (does not hold)" if doubts(result) else "") for result, goal in missed
    ]
    stopped = [result.case.name for result in results if result.error]
    lines += [f"not measured to the end: {', '.join(stopped)}"] if stopped else []
    doubted = [result.case.name for result in results if doubts(result)]
    if doubted:
        lines.append(f"figures that do not hold, measure again on a quiet machine: {', '.join(doubted)}")
    return "\n".join(lines)


def as_json(results: Sequence[LabResult], rows: Sequence[Row], setting: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, each round's readings included; NaN becomes null."""
    return {"setting": dict(setting), "cases": [_case(result, rows) for result in results]}


def _case(result: LabResult, rows: Sequence[Row]) -> dict[str, Any]:
    coturn = reference(result)
    return {
        "name": result.case.name,
        "error": result.error or None,
        "absent": result.absent,
        "notes": doubts(result),
        "holds": not doubts(result),
        "reference": coturn,
        "goals": [goal.as_json() for goal in goals(result)],
        "rows": {
            row.name: {
                "label": row.label,
                "metrics": {name: numbers(result.spread(row.name, name)) for name in _METRICS},
                "cpu_less_than": {name: numbers(result.ratio(name, row.name, "cpu")) for name in (coturn, PUMP)},
            }
            for row in rows
            if row.name not in result.absent
        },
        "rounds": [
            {
                row: {name: value if math.isfinite(value) else None for name, value in reading.items()}
                for row, reading in each.items()
            }
            for each in result.rounds
        ],
    }
