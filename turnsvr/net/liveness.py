"""Whether the pump still takes packets from the network, asked with a packet."""

from __future__ import annotations

import asyncio
import secrets
import socket

from turnsvr.relay.api import Pump
from turnsvr.relay.sockets import socket_address
from turnsvr.stun.address import Address
from turnsvr.stun.message import Class, Message, Method

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_POLL = 0.01


async def takes_packets(pump: Pump, listener: Address, within: float = 2.0) -> bool:
    """Whether a Binding request to a UDP listener of ours is received within so many seconds.

    Receiving counts, not the answer: the limit on answers must not make a busy server look dead.
    """
    target = Address(_LOOPBACK.get(listener.host, listener.host), listener.port)
    before = pump.totals().received
    with socket.socket(target.family.socket_family, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            request = Message(Method.BINDING, Class.REQUEST, secrets.token_bytes(12)).encode()
            probe.sendto(request, socket_address(target))
        except OSError:
            return False
        for _ in range(round(within / _POLL)):
            await asyncio.sleep(_POLL)
            if pump.totals().received > before:
                return True
    return False
