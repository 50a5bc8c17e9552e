"""One case on one running server: from a load that is offered to the figures that are compared."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from bench import process
from bench.cases import Case, Kind
from bench.servers import PEER_HOST, Plan, Running, Server
from bench.statistics import Reading
from turnsvr.client.load_drive import Sessions
from turnsvr.client.load_flows import Flows, binding_flows, binding_load, relay_flows
from turnsvr.client.load_session import CYCLE, SETUP, LoadError, TurnSession
from turnsvr.client.load_sweep import Step, best, highest, search
from turnsvr.client.load_values import Load
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.message import Method

Offer = Callable[[float, float, bool], Load]
"""A load from its rate, its seconds and whether arrivals are timed by the kernel."""

_FIRST_RATE = 20_000.0
_FIRST_FACTOR, _FIRST_STEPS = 2.0, 10
_FACTOR, _STEPS = 1.2, 5
_OVERLOAD = 1.6
_STEP_PART = 1 / 3
"""Part of the seconds asked for that one step of a search takes."""
_FULL = 0.95
"""Part of a core from which on the server is said to be at its limit."""
_BINDING_CLIENTS = 16
_AT_ONCE = 32
_SETTLE = 0.3
_MOST_SETTLE = 5.0
_SETTLED = 0.001
"""Part by which memory still changes in _SETTLE seconds when a server is said to have settled."""
_DISCARD = 9
_CLIENT_HOSTS = tuple(f"127.8.{third}.{fourth}" for third in range(64) for fourth in range(1, 255))
"""So that no five-tuple comes twice: coturn answers 437 to one whose allocation has just been ended."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What earlier pairs found: the rate this server carries, and half of what the slower one does (0: unknown)."""

    rate: float = 0.0
    half: float = 0.0


def measure(server: Server, case: Case, seconds: float, hint: Hint, *, cores: Sequence[int] = (0,)) -> Reading:
    """Start the server, take the case's figures, stop it. Raises ServerFailed, LoadError or OSError.

    Metrics are named in report.METRICS; rates in 1/s, times in seconds, memory in bytes.
    """
    transport = case.traffic.transport if case.kind is Kind.RELAY else Transport.UDP
    with server.start(Plan(transport, 1, cores)) as running:
        match case.kind:
            case Kind.RELAY:
                return _relay(running, case, seconds, hint)
            case Kind.BINDING:
                return _binding(running, seconds, hint)
            case Kind.CYCLES:
                return _cycles(running, seconds)
            case Kind.MEMORY:
                return _memory(running, case.count)
            case Kind.START:
                return {"start": running.started_in}
            case Kind.THREADS:
                raise ValueError("threads are compared by threads.measure()")


def _relay(running: Running, case: Case, seconds: float, hint: Hint) -> Reading:
    traffic = case.traffic
    with relay_flows(running.address, running.server.login, traffic, peer_host=PEER_HOST) as flows:
        return loaded(
            running, flows, lambda rate, length, exact: traffic.load(rate, length, kernel_times=exact), seconds, hint
        )


def _binding(running: Running, seconds: float, hint: Hint) -> Reading:
    with binding_flows(running.address, _BINDING_CLIENTS) as flows:
        return loaded(running, flows, lambda rate, length, exact: binding_load(rate, length), seconds, hint)


def loaded(running: Running, flows: Flows, offer: Offer, seconds: float, hint: Hint) -> Reading:
    """The search for what is carried, a run at overload, and one at half the slower server's rate.

    Raises LoadError when nothing at all arrives.
    """

    def step(rate: float, length: float = seconds * _STEP_PART, exact: bool = False) -> Step:
        running.check()
        load = offer(rate, length, exact)
        preempted, before, began = process.preemptions(running.pid), process.cpu_seconds(running.pid), time.monotonic()
        tally = flows.run(load)
        running.check()
        took = time.monotonic() - began
        if tally.delivered < tally.sent:
            took -= load.quiet
        spent = process.cpu_seconds(running.pid) - before
        return Step(rate, tally, spent, took, process.preemptions(running.pid) - preempted)

    if hint.rate:
        steps = search(step, hint.rate, factor=_FACTOR, steps=_STEPS)
    else:
        steps = search(step, _FIRST_RATE, factor=_FIRST_FACTOR, steps=_FIRST_STEPS)
    most = best(steps)
    if not most.tally.delivered:
        raise LoadError(f"{running.server.name} delivered none of {most.tally.sent} packets")
    over = step(most.asked * _OVERLOAD)
    everything = [*steps, over]
    found = best(everything)
    limited = any(done.tally.generator_limited for done in everything) and found.server_share < _FULL
    figures = {
        "delivered": found.tally.rate,
        "overload": highest(everything) if limited else over.tally.rate,
        "share": over.server_share,
        # A server that is not full spends time on waking up, so each is taken at the load that suits it best.
        "cpu": min(done.cost for done in everything if done.tally.delivered),
        "loss": found.tally.loss,
        "generator_limited": float(limited),
        "lost_at_generator": float(sum(done.tally.overrun for done in everything)),
        "disturbed": float(sum(done.tally.disturbed for done in everything)),
        "preempted": float(sum(done.preempted for done in everything)),
    }
    if hint.half:
        half = step(hint.half, seconds, True)
        figures |= {"p50": half.tally.quantile(0.5), "p99": half.tally.quantile(0.99), "half_cpu": half.cost}
    return figures


def _sessions(running: Running, steps: Sequence[Method]) -> Sessions:
    make = partial(TurnSession, running.server.login, Address(PEER_HOST, _DISCARD), steps)
    return Sessions(running.address, make, at_once=_AT_ONCE, hosts=_CLIENT_HOSTS)


def _cycles(running: Running, seconds: float) -> Reading:
    sessions = _sessions(running, CYCLE)
    sessions.repeat(seconds * _STEP_PART)
    before, own_before, began = process.cpu_seconds(running.pid), time.process_time(), time.monotonic()
    done = sessions.repeat(seconds)
    took = time.monotonic() - began
    cpu, own = process.cpu_seconds(running.pid) - before, time.process_time() - own_before
    running.check()
    return {
        "cycles": done / took,
        "cycle_cpu": cpu / done if done else math.nan,
        "generator_limited": float(own >= _FULL * took > cpu),
    }


def _settled_memory(running: Running) -> process.Memory:
    """Memory once it stands still: a server may answer before it has loaded all that it needs."""
    deadline = time.monotonic() + _MOST_SETTLE
    now = process.memory(running.pid)
    while time.monotonic() < deadline:
        time.sleep(_SETTLE)
        running.check()
        last, now = now, process.memory(running.pid)
        if abs(now.rss - last.rss) <= _SETTLED * now.rss:
            break
    return now


def _memory(running: Running, count: int) -> Reading:
    """Growth for each of so many allocations that stand idle with a permission and a channel."""
    before = _settled_memory(running)
    with ExitStack() as stack:
        for _, sock in _sessions(running, SETUP).open(count):
            stack.callback(sock.close)
        after = _settled_memory(running)
    return {"pss": (after.pss - before.pss) / count, "rss": (after.rss - before.rss) / count, "base": float(before.pss)}
