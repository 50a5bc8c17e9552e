"""What a load run is told and what it answers: values, and the arithmetic on them. Nothing here touches a socket."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

TAG_SIZE = 12
"""Bytes of every payload that tell one packet from another: run, flow, sequence number, time stamp."""

TICK = 1e-7
"""Seconds of one step of the time stamp; it wraps after seven minutes."""

_STEPS = 32
_STEP_BITS = 5
HISTOGRAM_SIZE = 28 * _STEPS + _STEPS

WARM_UP = 0.2
"""Part of a run, from its start, in which arrivals do not count for the rate."""

_MUCH = 0.05
_WHOLE_CORE = 0.85


class Direction(Enum):
    """Who sends: the TURN client to its peer, or the peer to the client."""

    UP = "up"
    DOWN = "down"


class Shape(Enum):
    """How packets of one flow follow each other: alone, eight in one go, or sixteen as one UDP_SEGMENT train."""

    SINGLES = "singles"
    BURSTS = "bursts"
    TRAINS = "trains"

    @property
    def packets(self) -> int:
        return {"singles": 1, "bursts": 8, "trains": 16}[self.value]


class Wrap(Enum):
    """What carries data between client and server."""

    CHANNEL = "channel"
    INDICATION = "indication"


class Framing(IntEnum):
    """How a receiver finds the tag in what arrives."""

    RAW = 0
    CLIENT = 1
    BINDING = 2


@dataclass(frozen=True, slots=True)
class Sender:
    """One flow's way out. prefix goes before each payload; `to` is host and port of an unconnected UDP socket.

    stream: whether descriptor is a TCP connection; tls: the address of its SSL object, 0 without.
    """

    descriptor: int
    prefix: bytes = b""
    to: tuple[str, int] | None = None
    stream: bool = False
    tls: int = 0


@dataclass(frozen=True, slots=True)
class Receiver:
    """One socket at which packets of any flow may arrive."""

    descriptor: int
    arrival: Framing = Framing.RAW
    stream: bool = False
    tls: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """One run. rate: packets per second over all flows, infinity for as fast as it goes; seconds of sending.

    size: bytes of payload, at least TAG_SIZE; settle: most seconds to wait for stragglers, quiet: seconds without an
    arrival after which none is waited for. kernel_times takes arrival from the kernel's time stamp and sends each
    datagram by a call of its own with a stamp of its own, so that the generator's own delay does not count.
    """

    size: int
    rate: float
    seconds: float
    burst: int = 1
    segments: bool = False
    settle: float = 1.0
    quiet: float = 0.06
    kernel_times: bool = False
    run: int = 0


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """What was counted. Delivered are distinct packets of this run that arrived whole; sending proves nothing.

    in_window: those that arrived between warm-up and the end of sending, window seconds long. lagged: packets that
    the generator was too slow to send; blocked: those that a full connection did not take; refused: errors of
    sockets ("connection refused"); overrun: what the receiving sockets had no room for. latency counts packets in
    the buckets of bucket_of(). busy: the part of the time that the generator had a core, 0..1.
    """

    sent: int
    delivered: int
    in_window: int
    window: float
    duplicates: int
    reordered: int
    foreign: int
    lagged: int
    blocked: int
    refused: int
    overrun: int
    latency: Sequence[int]
    busy: float = 1.0

    @property
    def rate(self) -> float:
        """Delivered packets per second."""
        return self.in_window / self.window if self.window else 0.0

    @property
    def loss(self) -> float:
        """Part of the packets sent that never arrived, 0..1; 1 when none was sent."""
        return max(0.0, 1 - self.delivered / self.sent) if self.sent else 1.0

    @property
    def generator_limited(self) -> bool:
        """Whether much of what should have been sent was not, because the generator is no faster."""
        return self._fell_behind and self.busy >= _WHOLE_CORE

    @property
    def disturbed(self) -> bool:
        """Whether much of what should have been sent was not, because other programs had the generator's core."""
        return self._fell_behind and self.busy < _WHOLE_CORE

    @property
    def _fell_behind(self) -> bool:
        return self.lagged > _MUCH * (self.sent + self.lagged + self.blocked)

    def quantile(self, part: float) -> float:
        """Latency in seconds that this part of the packets stayed within; NaN when none arrived."""
        return quantile(self.latency, part)


def bucket_of(ticks: int) -> int:
    """Histogram bucket of a latency: exact below 64 ticks, then 32 to each power of two (3 %)."""
    shift = max(0, ticks.bit_length() - _STEP_BITS - 1)
    return min(shift * _STEPS + (ticks >> shift), HISTOGRAM_SIZE - 1)


def bucket_ticks(bucket: int) -> float:
    """The middle of a bucket."""
    if bucket < 2 * _STEPS:
        return float(bucket)
    shift = bucket // _STEPS - 1
    return (bucket - shift * _STEPS + 0.5) * (1 << shift)


def quantile(histogram: Sequence[int], part: float) -> float:
    """Seconds below which this part of the counted latencies lies; NaN for an empty histogram."""
    left = part * sum(histogram)
    if not left:
        return math.nan
    for bucket, count in enumerate(histogram):
        left -= count
        if left <= 0:
            return bucket_ticks(bucket) * TICK
    return bucket_ticks(len(histogram) - 1) * TICK
