"""ICMP errors from peers, told to clients with the ICMP attribute (RFC 8656 section 11.5)."""

from __future__ import annotations

from typing import Final

from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.commands import Send
from turnsvr.turn.state import State

_ICMP_TYPES: Final = {Family.IPV4: frozenset({3, 11}), Family.IPV6: frozenset({1, 2, 3})}
"""What a client is told of: unreachable, too big, time exceeded (RFC 8656 section 11.5)."""


def peer_error(
    state: State, allocation: int, peer: Address, icmp_type: int, icmp_code: int, data: bytes, now: float
) -> None:
    """An ICMP error came back for a packet to this peer: type and code of its family, 4 bytes of error data.

    With icmp_indications the client is told if a permission covers the peer and the type is one it can use
    (RFC 8656 section 11.5).
    """
    if not state.config.icmp_indications:
        return
    found = state.allocations.get(allocation)
    if found is None or not found.may_reach(peer.host, now) or icmp_type not in _ICMP_TYPES[peer.family]:
        return
    indication = Message(Method.DATA, Class.INDICATION, state.random(12))
    indication.add(a.XOR_PEER_ADDRESS, peer).add(a.ICMP, a.Icmp(icmp_type, icmp_code, data))
    state.emit(Send(found.five_tuple, indication.encode()))
