"""Pairs: this server, the other, this, the other; the first pair only warms up and finds the loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from bench import loaded, threads
from bench.cases import Case, Kind
from bench.measure import measure
from bench.servers import Server, ServerFailed, Turnsvr
from bench.statistics import Pair, spread
from turnsvr.client.load_session import LoadError

Tick = Callable[[str], None]
Rates = tuple[float, float]
"""Packets a second that each of the two servers carries; 0 where it is not known."""

_UNDER_LOAD = (Kind.RELAY, Kind.BINDING)


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

    @property
    def rates(self) -> Rates:
        """Medians of what was delivered."""
        if not any("delivered" in reading for pair in self.pairs for reading in pair):
            return (0.0, 0.0)
        ours, theirs = (spread([pair[side] for pair in self.pairs], "delivered").median for side in (0, 1))
        return (ours, theirs)


def ticks(case: Case, pairs: int) -> int:
    """How often run() calls tick."""
    return 2 * (pairs + 1) + (case.kind is Kind.THREADS)


def sibling(case: Case, results: Sequence[Result]) -> Rates:
    """Rates of the case among the results that is most like this one; zeros without one that is measured alike."""
    known = [result for result in results if result.case.kind is case.kind and all(result.rates)]
    if not known or case.kind not in _UNDER_LOAD:
        return (0.0, 0.0)
    return max(known, key=lambda result: _likeness(case, result.case)).rates


def _likeness(one: Case, other: Case) -> int:
    return sum(getattr(one.traffic, f.name) == getattr(other.traffic, f.name) for f in fields(one.traffic))


def run(
    result: Result,
    ours: Turnsvr,
    theirs: Server,
    *,
    pairs: int,
    seconds: float,
    cores: Sequence[int],
    near: Rates = (0.0, 0.0),
    tick: Tick,
) -> None:
    """That many pairs and one before them that does not count; what ends a server or a run early ends the case.

    cores: all that there are, the server's first, the load's last. near: rates to begin the search with. tick: called
    with what is run next. The result has each pair as soon as it is measured, and its error until it has all.
    """
    try:
        if result.case.kind is Kind.THREADS:
            _compare_threads(result, ours, pairs, seconds, cores, tick)
        elif result.case.kind in _UNDER_LOAD:
            _compare_loaded(result, (ours, theirs), pairs, seconds, cores, near, tick)
        else:
            _compare(result, ours, theirs, pairs, seconds, cores, tick)
    except (ServerFailed, LoadError, OSError) as error:
        result.error = str(error)
    else:
        result.error = ""


def _compare_loaded(
    result: Result,
    servers: Sequence[Server],
    pairs: int,
    seconds: float,
    cores: Sequence[int],
    near: Rates,
    tick: Tick,
) -> None:
    for number in range(pairs + 1):
        pair = loaded.compare(servers, result.case, seconds, near, cores=cores[:1], known=number > 0, tick=tick)
        if number:
            result.pairs.append(pair)
        near = (pair.ours["delivered"], pair.theirs["delivered"])


def _compare(
    result: Result, ours: Server, theirs: Server, pairs: int, seconds: float, cores: Sequence[int], tick: Tick
) -> None:
    for number in range(pairs + 1):
        readings = []
        for server in (ours, theirs):
            tick(f"{result.case.name} {server.name}")
            readings.append(measure(server, result.case, seconds, cores=cores[:1]))
        if number:
            result.pairs.append(Pair(*readings))


def _compare_threads(
    result: Result, server: Turnsvr, pairs: int, seconds: float, cores: Sequence[int], tick: Tick
) -> None:
    """Two threads in place of ours and one in place of theirs, each thread at a quarter of what one carries.

    The same load for each, because what a packet costs depends on how many come with it; and no more, because the load
    generator needs some of a core as well.
    """
    tick(f"{result.case.name} search")
    alone = Case(result.case.name, Kind.RELAY, result.case.traffic)
    with loaded.ready(server, alone, cores[:1]) as one_thread:
        rate = loaded.carried(one_thread, seconds, 0.0, known=False)["delivered"] / 4
    for number in range(pairs + 1):
        tick(f"{result.case.name} two")
        two = threads.measure(server, result.case, seconds, 2 * rate, cores[:2])
        tick(f"{result.case.name} one")
        one = threads.measure(server, result.case, seconds, rate, cores[:1])
        if number:
            result.pairs.append(Pair({**two, "scaling": threads.scaling(one, two)}, {**one, "scaling": 1.0}))
