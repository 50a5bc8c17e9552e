"""Packets that leave a test's socket as one UDP_SEGMENT message, so that they arrive joined."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.relay.world import Endpoint, World
from turnsvr.stun.address import Address

_SOL_UDP = 17
_UDP_SEGMENT = 103


def send_train(world: World, endpoint: Endpoint, packets: Sequence[bytes], to: Address) -> None:
    """Packets of one size, save the last, which may be shorter; counted as sent to the pump."""
    segment = struct.pack("=H", len(packets[0]))
    endpoint.socket.sendmsg([b"".join(packets)], [(_SOL_UDP, _UDP_SEGMENT, segment)], 0, to)
    world.sent += len(packets)


def numbered(count: int, size: int, last: int | None = None) -> list[bytes]:
    """Payloads that tell their place; last: size of the last one."""
    sizes = [size] * (count - 1) + [last or size]
    return [
        number.to_bytes(2, "big") + bytes((number * 7 + at) % 256 for at in range(size - 2))
        for number, size in enumerate(sizes)
    ]
