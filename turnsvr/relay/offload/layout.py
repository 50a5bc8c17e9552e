"""Keys and values of the tables, as bpf/tables.h has them. Packing only: no table, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from turnsvr.stun.address import Address, Family, pack_host

NUMBER: Final = Struct("=I")
"""The key of every table but that of flows."""
RULES: Final = Struct("=I4x")
FLOW_KEY: Final = Struct("=16s16s2s2s2s2x")
FLOW: Final = Struct("=QQQIIII16s16s2s2s2s2s4sHBBB7xQQQ")
_ORDER: Final = Struct("=QQQ")
"""The last part of a flow, which the programs write."""
SESSION: Final = Struct("=QQQQQ")
BUCKET: Final = Struct("=QQ")
TRAFFIC: Final = Struct("=QQQQQ")
HOP: Final = Struct("=II6s6s")
REASON: Final = Struct("=Q")

SIZES: Final[Mapping[str, tuple[int, int]]] = {
    "rules": (NUMBER.size, RULES.size),
    "flows": (FLOW_KEY.size, FLOW.size),
    "sessions": (NUMBER.size, SESSION.size),
    "buckets": (NUMBER.size, BUCKET.size),
    "traffic": (NUMBER.size, TRAFFIC.size),
    "hops": (NUMBER.size, HOP.size),
    "reasons": (NUMBER.size, REASON.size),
}
"""Sizes of key and value by table; the loader refuses an object that has others."""

_MAPPED: Final = bytes(10) + b"\xff\xff"
_PRICE_UNIT: Final = 1 << 16


class Reason(IntEnum):
    """Why a packet of a known flow was not carried, or that it was; the order of `enum reason`."""

    WAITS = 0
    OLD = 1
    EXPIRED = 2
    UNKNOWN_HOP = 3
    OTHER_INTERFACE = 4
    TRAIN = 5
    PARTIAL_CHECKSUM = 6
    NO_CHECKSUM = 7
    LENGTHS = 8
    TOO_LARGE = 9
    TOO_SMALL = 10
    NO_ROOM = 11
    NO_TRANSMIT = 12
    CARRIED = 13
    OVER_BANDWIDTH = 14


class Direction(IntEnum):
    FROM_CLIENT = 0
    TO_CLIENT = 1


@dataclass(frozen=True, slots=True)
class Hop:
    """A neighbour; interface 0 where it is not known."""

    interface: int = 0
    own: bytes = bytes(6)
    neighbour: bytes = bytes(6)
    returns_frames: bool = False
    """XDP: whether frames may leave by the interface that they came in by."""
    takes_frames: bool = False
    """XDP: whether frames of other interfaces may leave by this one."""

    def pack(self) -> bytes:
        return HOP.pack(self.interface, self.returns_frames | self.takes_frames << 1, self.own, self.neighbour)


@dataclass(frozen=True, slots=True)
class ChannelFlow:
    """One direction of a channel: what comes from `sender` to `receiver` leaves from `source` for `destination`."""

    direction: Direction
    channel: int
    sender: Address
    receiver: Address
    source: Address
    destination: Address

    def key(self) -> bytes:
        number = self.channel if self.direction is Direction.FROM_CLIENT else 0
        return FLOW_KEY.pack(
            _key_host(self.sender),
            _key_host(self.receiver),
            self.sender.port.to_bytes(2),
            self.receiver.port.to_bytes(2),
            number.to_bytes(2),
        )


@dataclass(frozen=True, slots=True)
class FlowState:
    """What the rules and the routes say of a flow. Times in nanoseconds of CLOCK_BOOTTIME."""

    number: int
    slot: int
    channel_until: int
    permission_until: int
    came_by: int
    leaves_by: int
    generation: int
    mtu: int
    ttl: int
    label: int = 0
    held_at: int = 0
    """When its last packet went to the pump; 0: it need not wait for a silence."""


def pack_flow(flow: ChannelFlow, state: FlowState) -> bytes:
    is_up = flow.direction is Direction.FROM_CLIENT
    family = flow.destination.family
    return FLOW.pack(
        state.channel_until,
        state.permission_until,
        state.number,
        state.slot,
        state.came_by,
        state.leaves_by,
        state.generation,
        pack_host(flow.source.host).ljust(16, b"\0"),
        pack_host(flow.destination.host).ljust(16, b"\0"),
        flow.source.port.to_bytes(2),
        flow.destination.port.to_bytes(2),
        bytes(2) if is_up else flow.channel.to_bytes(2),
        _change(flow, is_up).to_bytes(2),
        (state.label & 0xFFFFF).to_bytes(4),
        min(state.mtu, 0xFFFF),
        state.ttl,
        4 if family is Family.IPV4 else 6,
        flow.direction,
        state.held_at,
        state.held_at,
        0,
    )


def with_order_of(old: bytes, new: bytes) -> bytes:
    """A flow's new value that goes on where the old one is: held back by what went to the pump, or not."""
    return new[: FLOW.size - _ORDER.size] + old[FLOW.size - _ORDER.size :]


def pack_session(until: int, number: int, bandwidth: float, debts: tuple[int, int] = (0, 0)) -> bytes:
    """bandwidth: bytes a second in each direction, 0 for no limit."""
    price = max(1, round(1e9 * _PRICE_UNIT / bandwidth)) if bandwidth else 0
    return SESSION.pack(until, number, min(price, (1 << 46) - 1), *debts)


def _key_host(address: Address) -> bytes:
    packed = pack_host(address.host)
    return packed if len(packed) == 16 else _MAPPED + packed


def _change(flow: ChannelFlow, is_up: bool) -> int:
    """What is constant of the new checksum less what is of the old one, as a sum of 16-bit words."""
    new = _ends(flow.source, flow.destination) + (0 if is_up else flow.channel)
    old = _ends(flow.sender, flow.receiver) + (flow.channel if is_up else 0)
    change = _fold(new) + 0xFFFF - _fold(old)
    return _fold(change)


def _ends(one: Address, other: Address) -> int:
    packed = pack_host(one.host) + pack_host(other.host)
    words = sum(int.from_bytes(packed[at : at + 2]) for at in range(0, len(packed), 2))
    return words + one.port + other.port


def _fold(number: int) -> int:
    while number > 0xFFFF:
        number = (number & 0xFFFF) + (number >> 16)
    return number
