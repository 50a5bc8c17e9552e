"""One case on one running server that no rate is searched on: cycles, memory, the first answer, relaying over TCP."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from bench import process, tcprelay
from bench.cases import Case, Kind
from bench.servers import PEER_HOST, Plan, Running, Server
from bench.statistics import Reading
from turnsvr.client.load_drive import UdpSessions
from turnsvr.client.load_session import CYCLE, SETUP, TurnSession
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.message import Method

_FULL = 0.95
"""Part of a core from which on the generator is said to be at its limit."""
_WARM_UP = 1 / 3
"""Part of the seconds asked for that cycles run before they count."""
_AT_ONCE = 32
_SETTLE = 0.3
_MOST_SETTLE = 5.0
_SETTLED = 0.001
"""Part by which memory still changes in _SETTLE seconds when a server is said to have settled."""
_DISCARD = 9
_CLIENT_HOSTS = tuple(f"127.8.{third}.{fourth}" for third in range(64) for fourth in range(1, 255))
"""So that no five-tuple comes twice: coturn answers 437 to one whose allocation has just been ended."""


def measure(server: Server, case: Case, seconds: float, *, cores: Sequence[int] = (0,)) -> Reading:
    """Start the server, take the case's figures, stop it. Raises ServerFailed, LoadError or OSError.

    Metrics are named in metrics.METRICS; rates in 1/s, times in seconds, memory in bytes.
    """
    tcp = case.kind is Kind.TCP_RELAY
    with server.start(Plan(Transport.TCP if tcp else Transport.UDP, 1, cores, tcp_relay=tcp)) as running:
        match case.kind:
            case Kind.CYCLES:
                return _cycles(running, seconds)
            case Kind.MEMORY:
                return _memory(running, case.count)
            case Kind.TCP_RELAY:
                return tcprelay.measure(running, case.traffic.direction, case.traffic.flows, seconds)
            case Kind.START:
                return {"start": running.started_in}
            case _:
                raise ValueError(f"{case.kind.value} is measured by loaded.py and threads.py")


def _sessions(running: Running, steps: Sequence[Method]) -> UdpSessions:
    make = partial(TurnSession, running.server.login, Address(PEER_HOST, _DISCARD), steps)
    return UdpSessions(running.address, make, at_once=_AT_ONCE, hosts=_CLIENT_HOSTS)


def _cycles(running: Running, seconds: float) -> Reading:
    sessions = _sessions(running, CYCLE)
    sessions.repeat(seconds * _WARM_UP)
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
