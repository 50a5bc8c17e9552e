"""Rows in turn: the first round finds what each carries; later ones measure there, and at half of the slowest one's.

Every row is started anew for each round, for programs at an interface would cost the others.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import process
from bench.lab.cases import LabCase
from bench.lab.cores import Cores, Used, prepare
from bench.lab.network import CLIENT, PEER, RELAY, SERVER, Network, run, within
from bench.lab.rows import FORWARD, Ready, Row, RowAbsent, ready
from bench.lab.traffic import Counted, LabUnavailable, Sender, Traffic
from bench.servers import ServerFailed
from bench.statistics import Reading, Spread
from turnsvr.client.load_session import LoadError
from turnsvr.client.load_sweep import SweepStep, best, search
from turnsvr.client.load_values import Direction, Load, LoadCounts, quantile
from turnsvr.stun.address import Family

Tick = Callable[[str], None]

_FIRST_RATE: Final = 60_000.0
_FACTOR, _STEPS = 1.5, 9
_STEP_PART: Final = 1 / 4
"""Part of the seconds asked for that one step of a search takes."""
_WARM_UP: Final = 0.2
"""Seconds: a flow is carried by programs once its first packets have been through the pump, and all is still."""
_QUIET: Final = 0.2
"""Seconds without an arrival after which none is waited for."""
_LOOK: Final = 0.005
_ATTEMPTS: Final = 10
_DISCARD: Final = 9


@dataclass(slots=True)
class LabResult:
    """What was measured of a case: a reading for each row in each round, and why a row has none."""

    case: LabCase
    rounds: list[dict[str, Reading]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def spread(self, row: str, metric: str) -> Spread:
        return Spread.of(each.get(row, {}).get(metric, math.nan) for each in self.rounds)

    def ratio(self, row: str, other: str, metric: str) -> Spread:
        """The row's by the other's, round by round."""
        return Spread.of(
            each.get(row, {}).get(metric, math.nan) / by
            for each in self.rounds
            if (by := each.get(other, {}).get(metric, 0.0)) > 0
        )


class Rig:
    """The laboratory: three namespaces, the programs, a sender at each far end, and who has which core."""

    def __init__(self, network: Network, traffic: Traffic, senders: dict[Direction, Sender], cores: Cores) -> None:
        self.network = network
        self._traffic = traffic
        self._senders = senders
        self.cores = cores

    def run(self, row: Ready, case: LabCase, rate: float, seconds: float) -> Reading:
        """Packets for so long. Raises LabUnavailable, ServerFailed, OSError."""
        row.check()
        before, preempted, began = self._used(row), _preemptions(row), time.monotonic()
        if row.sockets:
            load = Load(case.size, rate, seconds, kernel_times=True)
            counts = row.sockets.run(load)
            counted = Counted(counts.sent, counts.latency, seconds)
        else:
            counted = self._by_kernel(row, case, rate, seconds)
        used, took = self._used(row).since(before), time.monotonic() - began
        row.check()
        return _reading(counted, rate) | {
            "used": used.process + used.kernel,
            "generator": _part(used.load, seconds),
            "preempted": float(_preemptions(row) - preempted),
            "process_cpu": _each(used.process, counted),
            "kernel_cpu": _each(used.kernel, counted),
            "cpu": _each(used.process + used.kernel, counted),
            "share": (used.process + used.kernel) / seconds,
            "others": _part(used.others, took),
            "others_at_load": _part(used.others_at_load, took),
        }

    def _by_kernel(self, row: Ready, case: LabCase, rate: float, seconds: float) -> Counted:
        pair = self.network.client_pair if case.direction is Direction.UP else self.network.peer_pair
        frame = self._traffic.plan(pair, row.frames, case.size, rate)
        arrived = self._traffic.arrived()
        sent = self._send(case.direction, frame, seconds)
        return Counted(sent, self._settled(arrived, sent), seconds)

    def _send(self, direction: Direction, frame: bytes, seconds: float) -> int:
        """How many; again when the sender had no core in all that time. Raises LabUnavailable."""
        for _ in range(_ATTEMPTS):
            self._senders[direction].send(frame, seconds)
            if sent := self._traffic.sent():
                return sent
        raise LabUnavailable("other programs leave the sender no time at all")

    def _settled(self, before: Sequence[int], sent: int) -> list[int]:
        """How many have arrived since, once all have, or for a while none does."""
        found, deadline = [0], time.monotonic()
        while True:
            now = [count - then for count, then in zip(self._traffic.arrived(), before, strict=True)]
            if sum(now) >= sent or (now == found and time.monotonic() >= deadline):
                return now
            if now != found:
                found, deadline = now, time.monotonic() + _QUIET
            time.sleep(_LOOK)

    def _used(self, row: Ready) -> Used:
        return self.cores.used(row.pid, [sender.pid for sender in self._senders.values()])


def _part(used: float, seconds: float) -> float:
    """Of a core: the kernel counts in ticks."""
    return min(1.0, max(0.0, used / seconds))


def _each(used: float, counted: Counted) -> float:
    return used / counted.delivered if counted.delivered else math.nan


def _preemptions(row: Ready) -> int:
    return process.preemptions(row.pid) if row.pid else 0


def _reading(counted: Counted, rate: float) -> dict[str, float]:
    return {
        "rate": rate,
        "sent": float(counted.sent),
        "sent_share": counted.sent / (rate * counted.seconds),
        "arrived": float(counted.delivered),
        "delivered": counted.delivered / counted.seconds,
        "loss": max(0.0, 1 - counted.delivered / counted.sent) if counted.sent else 1.0,
        "p50": quantile(counted.arrived, 0.5),
        "p99": quantile(counted.arrived, 0.99),
    }


@contextmanager
def rig(folder: Path, cores: Sequence[int]) -> Iterator[Rig]:
    """cores: the server's first, the load's last. Raises LabUnavailable."""
    with ExitStack() as stack:
        traffic = Traffic(folder)
        stack.callback(traffic.close)
        try:
            own = os.getpid()  # their threads are all of one machine's
            network = Network((f"c{own}", f"sc{own}"), (f"p{own}", f"sp{own}"))
            stack.callback(network.close)
            pairs = (network.client_pair, network.peer_pair)
            for pair in pairs:
                traffic.count_at(pair)
            placed = prepare(pairs, network.server, cores[0], cores[-1])
            for pair, host in zip(pairs, (SERVER[Family.IPV4].host, RELAY[Family.IPV4]), strict=True):
                run("ip", "-n", pair.namespace, "route", "add", "default", "via", host)
            _meet(network)
        except (OSError, subprocess.SubprocessError) as error:
            raise LabUnavailable(f"no network namespaces can be made: {error}") from None
        senders = {}
        for direction, pair in zip((Direction.UP, Direction.DOWN), pairs, strict=True):
            senders[direction] = Sender(traffic, pair, cores[-1])
            stack.callback(senders[direction].close)
        yield Rig(network, traffic, senders, placed)


def _meet(network: Network) -> None:
    """Have the server know its neighbours, as it does where somebody has allocated."""
    with within(network.server), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for each in (CLIENT, PEER):
            asking.sendto(b"", (each[Family.IPV4].host, _DISCARD))


def compare(made: Rig, result: LabResult, rows: Sequence[Row], rounds: int, seconds: float, tick: Tick) -> None:
    """So many rounds and one before them that does not count; a row that fails is left out of those that follow.

    The result has each round as soon as it is measured. Raises LabUnavailable, OSError.
    """
    carried: dict[str, float] = {}
    for number in range(rounds + 1):
        half = min((rate for name, rate in carried.items() if name != FORWARD), default=0.0) / 2
        found: dict[str, Reading] = {}
        for row in rows:
            tick(f"{result.case.name} {row.name}")
            if row.name in result.absent:
                continue
            try:
                with ready(row, made.network, result.case, made.cores.server) as flows:
                    made.run(flows, result.case, _FIRST_RATE, _WARM_UP)
                    if number:
                        found[row.name] = _both(made, flows, result.case, carried[row.name], half, seconds)
                    else:
                        carried[row.name] = _carried(made, flows, result.case, seconds)
            except (RowAbsent, ServerFailed, LoadError, OSError) as error:
                result.absent[row.name] = str(error)
                carried.pop(row.name, None)
        if number:
            result.rounds.append(found)


def _both(made: Rig, flows: Ready, case: LabCase, rate: float, half: float, seconds: float) -> Reading:
    full, quiet = (made.run(flows, case, each, seconds) for each in (rate, half))
    return {
        **full,
        "half_rate": half,
        "half_cpu": quiet["cpu"],
        "half_loss": quiet["loss"],
        "p50": quiet["p50"],
        "p99": quiet["p99"],
        "others": max(full["others"], quiet["others"]),
        "others_at_load": max(full["others_at_load"], quiet["others_at_load"]),
    }


def _carried(made: Rig, flows: Ready, case: LabCase, seconds: float) -> float:
    """The rate that arrives with at most 1 % lost. Raises LoadError when nothing arrives."""

    def step(rate: float) -> SweepStep:
        length = seconds * _STEP_PART
        reading = made.run(flows, case, rate, length)
        sent, arrived = int(reading["sent"]), int(reading["arrived"])
        lagged = max(0, int(rate * length) - sent)
        counts = LoadCounts(sent, arrived, arrived, length, 0, 0, 0, lagged, 0, 0, 0, (), reading["generator"])
        return SweepStep(rate, counts, reading["used"], length, int(reading["preempted"]))

    found = best(search(step, _FIRST_RATE, factor=_FACTOR, steps=_STEPS))
    if not found.counts.delivered:
        raise LoadError(f"none of {found.counts.sent} packets arrived")
    return found.counts.rate
