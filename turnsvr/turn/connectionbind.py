"""The ConnectionBind method (RFC 6062 section 5.4): a client's connection becomes that to a peer."""

from __future__ import annotations

from turnsvr.stun import attributes as a
from turnsvr.stun.address import FiveTuple
from turnsvr.stun.errors import ErrorCode, MalformedMessage
from turnsvr.stun.message import Class, Message
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.authentication import Proof
from turnsvr.turn.commands import JoinPeer
from turnsvr.turn.peerconnections import Stage
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import State, made_by


def connection_bind(state: State, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Message:
    """RFC 6062 section 5.4. What follows the request on its connection is the peer's, as is."""
    # "If the client connection transport is not TCP or TLS": 400. A connection with an allocation would lose it: 400.
    if not five_tuple.transport.is_stream or state.allocations.of(five_tuple) is not None:
        raise Reject(ErrorCode.BAD_REQUEST)
    # "does not contain the CONNECTION-ID attribute, or if this attribute does not refer to an existing pending
    # connection": 400
    number = message.get(a.CONNECTION_ID)
    connection = state.connections.get(number) if number is not None else None
    if connection is None or connection.stage is not Stage.UNBOUND:
        raise Reject(ErrorCode.BAD_REQUEST)
    # "Otherwise, the client connection is now called a client data connection", of the user who made the allocation
    allocation = state.allocations.get(connection.allocation)
    if allocation is None or not made_by(allocation, proof):
        raise Reject(ErrorCode.WRONG_CREDENTIALS)
    state.connections.bind(connection, five_tuple)
    state.follow(JoinPeer(connection.number, allocation.number, five_tuple))
    return message.reply(Class.SUCCESS)


def allocation_of(state: State, message: Message) -> Allocation | None:
    """The allocation whose connection a ConnectionBind request names, before its client is known; None for none."""
    try:
        number = message.get(a.CONNECTION_ID)
    except MalformedMessage:
        return None
    connection = state.connections.get(number) if number is not None else None
    return state.allocations.get(connection.allocation) if connection is not None else None
