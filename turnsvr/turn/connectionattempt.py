"""Peers that connect to a relayed transport address, and the ConnectionAttempt indication (RFC 6062 section 5.3)."""

from __future__ import annotations

from typing import Final

from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.commands import RequestRefused, Send
from turnsvr.turn.connect import disconnect, may_come_from
from turnsvr.turn.lifetimes import UNBOUND_LIFETIME
from turnsvr.turn.peerbounds import UNBOUND, full, has_its_share
from turnsvr.turn.peerconnections import PeerConnection, Stage
from turnsvr.turn.state import State, counted_as

_TRANSACTION_ID_SIZE: Final = 12


def arrived(state: State, number: int, peer: Address, inside: bool, now: float) -> int | None:
    """The CONNECTION-ID of a peer's connection that was accepted, None where it is to be closed at once.

    number: of the allocation; inside: whether the peer is a relayed transport address of this server.
    """
    allocation = state.allocations.get(number)
    # "If no permission for this peer has been installed for this allocation, the server MUST close the connection"
    if allocation is None or not allocation.tcp or not may_come_from(state, allocation, peer, inside, now):
        return None
    former = state.connections.to(number, peer)
    if former is not None and former.stage is Stage.CONNECTING:
        return None
    if former is not None:
        disconnect(state, former)  # two cannot be at the same addresses: that one is gone
    limit = full(state, allocation, Stage.UNBOUND)
    if limit is None and has_its_share(state, allocation, peer.host):
        limit = UNBOUND
    if limit is not None:
        _tell(state, allocation, limit)
        return None
    connection_id = state.connections.new_number(state.random)
    connection = PeerConnection(connection_id, allocation, peer, Stage.UNBOUND, inside=inside)
    state.connections.add(connection, now + UNBOUND_LIFETIME)
    # "The indication MUST include an XOR-PEER-ADDRESS attribute ... as well as a CONNECTION-ID attribute"
    indication = Message(Method.CONNECTION_ATTEMPT, Class.INDICATION, state.random(_TRANSACTION_ID_SIZE))
    indication.add(a.XOR_PEER_ADDRESS, peer).add(a.CONNECTION_ID, connection.number)
    state.emit(Send(allocation.five_tuple, indication.encode()))
    return connection.number


def _tell(state: State, allocation: Allocation, limit: str) -> None:
    """Tell of a bound that a user has met by its peers. There is no request: the code is that of a Connect."""
    code = ErrorCode.INSUFFICIENT_CAPACITY
    event = RequestRefused(
        allocation.five_tuple, Method.CONNECTION_ATTEMPT, counted_as(allocation.key), code, limit, allocation.realm
    )
    state.emit(event)
