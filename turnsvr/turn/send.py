"""The Send method (RFC 8656 section 11.2), and what all data of clients must pass on its way to a peer.

Only data that the pump's table does not cover comes here.
"""

from __future__ import annotations

from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.stun.message import Message
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.commands import SendToPeer
from turnsvr.turn.state import State


def send_indication(state: State, message: Message, five_tuple: FiveTuple, now: float) -> None:
    """RFC 8656 section 11.2: anything wrong with it is met with silence."""
    # "If one of these attributes is missing or invalid, then the message is discarded."
    allocation = state.allocations.of(five_tuple)
    peer, payload = message.get(a.XOR_PEER_ADDRESS), message.get(a.DATA)
    if allocation is None or allocation.tcp or peer is None or payload is None or peer.port == 0:
        return
    if message.unknown_required() or message.is_classic:
        return
    relay(state, allocation, peer, payload, a.DONT_FRAGMENT in message, now)


def relay(state: State, allocation: Allocation, peer: Address, payload: bytes, dont_fragment: bool, now: float) -> None:
    """Relay data of a client to a peer that it may reach now."""
    # "If no such permission exists, the message is discarded."
    if now >= allocation.expires.get(peer.family, 0.0) or not allocation.may_reach(peer.host, now):
        return
    # "if a value is not allowed, the server silently discards the Send indication"
    if state.config.rules_of(allocation.realm).policy.refusal(peer.host):
        return
    state.emit(SendToPeer(allocation.number, peer, payload, dont_fragment))
