"""Pairs: this server, the other, this, the other; the first pair only warms up and finds the loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import threads
from bench.cases import Case, Kind
from bench.measure import Hint, measure
from bench.servers import Server, ServerFailed, Turnsvr
from bench.statistics import Pair
from turnsvr.client.load_session import LoadError

Tick = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """A case's pairs without the first; error: why there are none or fewer than asked for."""

    case: Case
    pairs: list[Pair] = field(default_factory=list)
    error: str = ""

    @property
    def generator_limited(self) -> bool:
        """Whether in most pairs the generator could send no more before one of the servers was at its limit."""
        limited = sum(bool(p.ours.get("generator_limited") or p.theirs.get("generator_limited")) for p in self.pairs)
        return limited * 2 > len(self.pairs)


def run(
    case: Case, ours: Turnsvr, theirs: Server, *, pairs: int, seconds: float, cores: Sequence[int], tick: Tick
) -> Result:
    """That many pairs and one before them that does not count; what ends a server or a run early ends the case.

    cores: all that there are, the server's first, the load's last. tick: called with what is run next.
    """
    result = Result(case)
    try:
        if case.kind is Kind.THREADS:
            _compare_threads(result, ours, pairs, seconds, cores, tick)
        else:
            _compare(result, ours, theirs, pairs, seconds, cores, tick)
    except (ServerFailed, LoadError, OSError) as error:
        result.error = str(error)
    return result


def _compare(
    result: Result, ours: Server, theirs: Server, pairs: int, seconds: float, cores: Sequence[int], tick: Tick
) -> None:
    hints = [Hint(), Hint()]
    for number in range(pairs + 1):
        readings = []
        for server, hint in zip((ours, theirs), hints, strict=True):
            tick(f"{result.case.name} {server.name}")
            readings.append(measure(server, result.case, seconds, hint, cores=cores[:1]))
        if number:
            result.pairs.append(Pair(*readings))
        rates = [reading.get("delivered", 0.0) for reading in readings]
        hints = [Hint(rate, min(rates) / 2) for rate in rates]


def _compare_threads(
    result: Result, server: Turnsvr, pairs: int, seconds: float, cores: Sequence[int], tick: Tick
) -> None:
    """Two threads in place of ours and one in place of theirs, each thread at a quarter of what one carries.

    The same load for each, because what a packet costs depends on how many come with it; and no more, because the load
    generator needs some of a core as well.
    """
    tick(f"{result.case.name} search")
    alone = Case(result.case.name, Kind.RELAY, result.case.traffic)
    rate = measure(server, alone, seconds, Hint(), cores=cores[:1])["delivered"] / 4
    for number in range(pairs + 1):
        tick(f"{result.case.name} two")
        two = threads.measure(server, result.case, seconds, 2 * rate, cores[:2])
        tick(f"{result.case.name} one")
        one = threads.measure(server, result.case, seconds, rate, cores[:1])
        if number:
            result.pairs.append(Pair({**two, "scaling": threads.scaling(one, two)}, {**one, "scaling": 1.0}))
