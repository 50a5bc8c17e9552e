"""Whether a new connection is about what another process of this server serves, since its client could not move along.

A client's first message on a connection may name something that it has made on another one: a connection to a peer
(RFC 6062 section 5.4), or an allocation by a mobility ticket (RFC 8016). Whoever has that is to judge the message, and
to have the connection.
"""

from __future__ import annotations

from turnsvr.stun import attributes as a
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import HEADER_SIZE, Class, Message, Method
from turnsvr.turn.state import State


def is_about_another(state: State, data: bytes) -> bool:
    """Whether the first of what has come so far is a request that names what is not here but may be elsewhere."""
    try:
        message = Message.parse(data[: HEADER_SIZE + int.from_bytes(data[2:4], "big")])
        if message.message_class is not Class.REQUEST:
            return False
        if message.method == Method.CONNECTION_BIND:
            number = message.get(a.CONNECTION_ID)
            return number is not None and state.connections.get(number) is None
        if message.method == Method.REFRESH:
            sealed = message.get(a.MOBILITY_TICKET)
            ticket = state.tickets.open(sealed) if sealed else None
            return ticket is not None and state.allocations.is_elsewhere(ticket.allocation)
    except MalformedMessage:
        pass
    return False
