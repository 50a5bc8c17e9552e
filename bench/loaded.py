"""Servers under load: the rate that one carries, then how late its packets are at half of what the slower one does."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

from bench import process
from bench.cases import Case, Kind
from bench.servers import PEER_HOST, Plan, Running, Server
from bench.statistics import Pair, Reading
from turnsvr.client.load_flows import Flows, binding_flows, binding_load, relay_flows
from turnsvr.client.load_session import LoadError
from turnsvr.client.load_sweep import SweepStep, best, highest, search
from turnsvr.client.load_values import Load, quantile
from turnsvr.stun.address import Transport

Offer = Callable[[float, float, bool], Load]
"""A load from its rate, its seconds and whether arrivals are timed by the kernel."""
Tick = Callable[[str], None]

_FIRST_RATE = 20_000.0
_FIRST_FACTOR, _FIRST_STEPS = 2.0, 10
_NEAR_STEPS = 6
_FACTOR, _STEPS = 1.2, 5
_OVERLOAD = 1.6
_STEP_PART = 1 / 5
"""Part of the seconds asked for that one step of a search takes."""
WINDOWS = 7
"""Runs at half load for each server; together they take the seconds asked for. Odd, so that a median is one of them."""
_FULL = 0.95
"""Part of a core from which on the server is said to be at its limit."""
_BINDING_CLIENTS = 16


@dataclass(frozen=True, slots=True)
class Loaded:
    """A running server with clients and peers that are ready to send."""

    running: Running
    flows: Flows
    offer: Offer

    def step(self, rate: float, seconds: float, exact: bool = False) -> SweepStep:
        """One run. Raises ServerFailed when the server has ended."""
        self.running.check()
        pid, load = self.running.pid, self.offer(rate, seconds, exact)
        preempted, before, began = process.preemptions(pid), process.cpu_seconds(pid), time.monotonic()
        counts = self.flows.run(load)
        self.running.check()
        took = time.monotonic() - began
        if counts.delivered < counts.sent:
            took -= load.quiet
        return SweepStep(rate, counts, process.cpu_seconds(pid) - before, took, process.preemptions(pid) - preempted)


@contextmanager
def ready(server: Server, case: Case, cores: Sequence[int]) -> Iterator[Loaded]:
    """The server started for a case that relays or binds. Raises ServerFailed, LoadError or OSError."""
    traffic, binds = case.traffic, case.kind is Kind.BINDING

    def offer(rate: float, length: float, exact: bool) -> Load:
        return (binding_load if binds else traffic.load)(rate, length, kernel_times=exact)

    with server.start(Plan(Transport.UDP if binds else traffic.transport, 1, cores)) as running:
        flows = (
            binding_flows(running.address, _BINDING_CLIENTS)
            if binds
            else relay_flows(running.address, server.login, traffic, peer_host=PEER_HOST)
        )
        with flows:
            yield Loaded(running, flows, offer)


def compare(
    servers: Sequence[Server],
    case: Case,
    seconds: float,
    near: Sequence[float],
    *,
    cores: Sequence[int],
    known: bool,
    tick: Tick = lambda name: None,
) -> Pair:
    """Both servers on one core: a search on each, then windows at half the slower one's rate in turn.

    near: rates to begin with, 0 for none; known: whether they come from this very case. What is not known yet gets a
    wide search, and no windows: it does not count. Raises ServerFailed, LoadError or OSError.
    """
    with ExitStack() as stack:
        both = [stack.enter_context(ready(server, case, cores)) for server in servers]
        for loaded in both:
            loaded.running.settle()
        readings: list[Reading] = []
        for loaded, rate in zip(both, near, strict=True):
            tick(f"{case.name} {loaded.running.server.name}")
            readings.append(carried(loaded, seconds, rate, known=known))
        if not known:
            return Pair(*readings)
        half = min(reading["delivered"] for reading in readings) / 2
        late = in_turn(both, half, seconds)
        return Pair(*({**reading, **more} for reading, more in zip(readings, late, strict=True)))


def carried(loaded: Loaded, seconds: float, near: float, *, known: bool = True) -> Reading:
    """The search for what is carried, from the rate `near`, then a run at overload; the search alone where not known.

    Raises LoadError when nothing at all arrives.
    """

    def step(rate: float) -> SweepStep:
        return loaded.step(rate, seconds * _STEP_PART)

    if near:
        steps = search(step, near, factor=_FACTOR, steps=_STEPS if known else _NEAR_STEPS)
    else:
        steps = search(step, _FIRST_RATE, factor=_FIRST_FACTOR, steps=_FIRST_STEPS)
    most = best(steps)
    if not most.counts.in_window:
        raise LoadError(f"{loaded.running.server.name} delivered none of {most.counts.sent} packets in time")
    if not known:
        return {"delivered": most.counts.rate}
    over = step(most.asked * _OVERLOAD)
    everything = [*steps, over]
    found = best(everything)
    limited = any(done.counts.generator_limited for done in everything) and found.server_share < _FULL
    return {
        "delivered": found.counts.rate,
        "overload": highest(everything) if limited else over.counts.rate,
        "share": over.server_share,
        # A server that is not full spends time on waking up, so each is taken at the load that suits it best.
        "cpu": min(done.cost for done in everything if done.counts.delivered),
        "loss": found.counts.loss,
        "generator_limited": float(limited),
        "lost_at_generator": float(sum(done.counts.overrun for done in everything)),
        "disturbed": float(sum(done.counts.disturbed for done in everything)),
        "preempted": float(sum(done.preempted for done in everything)),
    }


def in_turn(subjects: Sequence[Loaded], rate: float, seconds: float) -> list[Reading]:
    """WINDOWS runs of each at this rate, in rounds of one each: the medians of their latencies. All windows count.

    Who is first in a round is drawn: what comes at regular times, as some threads of the kernel do, could else meet the
    same one each time. idle: part of the core that a server took for itself while it had no load. Raises ServerFailed.
    """
    length = seconds / WINDOWS
    steps: list[list[SweepStep]] = [[] for _ in subjects]
    idle = [0.0 for _ in subjects]
    for _ in range(WINDOWS):
        for number in random.sample(range(len(subjects)), len(subjects)):
            loaded = subjects[number]
            others = [other for other in range(len(subjects)) if other != number]
            before = {other: process.cpu_seconds(subjects[other].running.pid) for other in others}
            steps[number].append(loaded.step(rate, length, exact=True))
            for other in others:
                idle[other] += process.cpu_seconds(subjects[other].running.pid) - before[other]
    lengths = [sum(step.seconds for step in own) for own in steps]
    return [
        {**latency(own), "idle": idle[number] / (sum(lengths) - lengths[number]) if len(subjects) > 1 else 0.0}
        for number, own in enumerate(steps)
    ]


def latency(steps: Sequence[SweepStep]) -> Reading:
    """Medians of the windows' quantiles; how many windows another program took the server's or the load's core in."""
    arrived = [step.counts.latency for step in steps if step.counts.delivered]
    delivered = sum(step.counts.delivered for step in steps)
    sent = sum(step.counts.sent for step in steps)
    return {
        **{
            name: median(quantile(histogram, part) for histogram in arrived) if arrived else float("nan")
            for name, part in (("p50", 0.5), ("p99", 0.99))
        },
        "half_cpu": sum(step.server_cpu for step in steps) / delivered if delivered else float("nan"),
        "half_loss": 1 - delivered / sent if sent else 1.0,
        "windows": float(len(steps)),
        "windows_disturbed": float(sum(step.preempted > 0 or step.counts.disturbed for step in steps)),
    }
