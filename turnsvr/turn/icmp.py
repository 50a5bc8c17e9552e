"""ICMP errors from peers, told to clients with the ICMP attribute (RFC 8656 section 11.5)."""

from __future__ import annotations

from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address
from turnsvr.stun.icmp import ICMP_TYPES
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.commands import Send
from turnsvr.turn.state import State


def peer_error(
    state: State, allocation: int, peer: Address, icmp_type: int, icmp_code: int, data: bytes, now: float
) -> None:
    """An ICMP error came back for a packet to this peer: type and code of its family, 4 bytes of error data.

    With icmp_indications the client is told if a permission covers the peer and the type is one it can use
    (RFC 8656 section 11.5).
    """
    if not state.config.icmp_indications:
        return
    # "compares this address with the IP address associated with each permission": none is silence
    found = state.allocations.get(allocation)
    if found is None or not found.may_reach(peer.host, now):
        return
    # "either 3 or 11 for an ICMPv4 packet or either 1, 2, or 3 for an ICMPv6 packet"
    if icmp_type not in ICMP_TYPES[peer.family]:
        return
    indication = Message(Method.DATA, Class.INDICATION, state.random(12))
    indication.add(a.XOR_PEER_ADDRESS, peer).add(a.ICMP, a.Icmp(icmp_type, icmp_code, data))
    state.emit(Send(found.five_tuple, indication.encode()))
