"""What is compared: every case with the ratio that it should reach."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from turnsvr.client.load_flows import OfferedTraffic
from turnsvr.client.load_values import Direction, Shape, Wrap
from turnsvr.stun.address import Transport

VOICE = 160
VIDEO = 1000
"""Bytes of payload."""


class Kind(Enum):
    """How a case is measured."""

    RELAY = "relay"
    BINDING = "binding"
    CYCLES = "cycles"
    MEMORY = "memory"
    START = "start"
    THREADS = "threads"
    TCP_RELAY = "relay over TCP"


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison. count: idle allocations of a memory case; goal: least ratio of delivered packets or cycles."""

    name: str
    kind: Kind = Kind.RELAY
    traffic: OfferedTraffic = field(default_factory=OfferedTraffic)
    count: int = 0
    goal: float | None = None


QUICK = (
    "up/16/singles/1000",
    "down/16/singles/1000",
    "up/1/trains/1000",
    "binding",
    "cycles",
    "memory/1000",
    "start",
)
"""A few cases that say where things stand, in under a minute with --quick."""


def all_cases() -> tuple[Case, ...]:
    return (
        *_channels(),
        *_indications(),
        *_connections(),
        *_tcp_relay(),
        Case("binding", Kind.BINDING, goal=1.5),
        Case("cycles", Kind.CYCLES, goal=1.5),
        Case("memory/1000", Kind.MEMORY, count=1_000),
        Case("memory/10000", Kind.MEMORY, count=10_000),
        Case("start", Kind.START),
        Case("threads", Kind.THREADS, OfferedTraffic(flows=64, size=VIDEO), goal=1.7),
    )


def select(pattern: str, cases: Sequence[Case]) -> tuple[Case, ...]:
    """The cases whose name has a match of the regular expression. Raises re.error."""
    wanted = re.compile(pattern)
    return tuple(case for case in cases if wanted.search(case.name))


def _channels() -> Iterator[Case]:
    for direction in Direction:
        for flows in (1, 16, 256):
            for shape in Shape:
                for size in (VOICE, VIDEO):
                    yield Case(
                        f"{direction.value}/{flows}/{shape.value}/{size}",
                        traffic=OfferedTraffic(direction, flows, shape, size),
                        goal=_goal(flows, shape),
                    )


def _goal(flows: int, shape: Shape) -> float:
    if shape is Shape.TRAINS:
        return 8.0
    return 2.0 if flows == 1 or shape is Shape.BURSTS else 1.2


def _indications() -> Iterator[Case]:
    for direction in Direction:
        for size in (VOICE, VIDEO):
            traffic = OfferedTraffic(direction, 16, Shape.SINGLES, size, Wrap.INDICATION)
            yield Case(f"indication/{direction.value}/16/singles/{size}", traffic=traffic, goal=1.2)


def _connections() -> Iterator[Case]:
    for transport, goal in ((Transport.TCP, 1.2), (Transport.TLS, 0.6), (Transport.DTLS, 1.2)):
        for direction in Direction:
            for size in (VOICE, VIDEO):
                traffic = OfferedTraffic(direction, 16, Shape.SINGLES, size, transport=transport)
                yield Case(f"{transport.value}/{direction.value}/16/singles/{size}", traffic=traffic, goal=goal)


def _tcp_relay() -> Iterator[Case]:
    for direction in Direction:
        traffic = OfferedTraffic(direction, 16, transport=Transport.TCP)
        yield Case(f"tcprelay/{direction.value}/16", Kind.TCP_RELAY, traffic, goal=1.2)
