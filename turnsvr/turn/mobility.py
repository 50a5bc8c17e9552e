"""Mobility (RFC 8016): an allocation goes with its client to another five-tuple, over any transport.

With a ticket, which is good once, a Refresh from another five-tuple announces it; the allocation is then found from
both. Data still go to the old one, until the client has sent some from the new one or has closed the old connection. An
allocation whose connection is closed otherwise waits for its client until it expires.
"""

from __future__ import annotations

from turnsvr.stun import attributes as a
from turnsvr.stun.address import FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.authentication import Proof
from turnsvr.turn.commands import AllocationMoved, ExpectClient, MoveRelay
from turnsvr.turn.config import ServerConfig
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import State, made_by
from turnsvr.turn.tickets import MAX_SERIAL, Ticket


def wanted(message: Message, config: ServerConfig) -> bool:
    """Whether an Allocate request asks for a ticket; raises Reject 400 or 405 (section 3.1.2)."""
    ticket = message.get(a.MOBILITY_TICKET)
    if ticket is None:
        return False
    # "If the MOBILITY-TICKET attribute is included" and mobility "is forbidden by local policy": 405
    if not config.mobility:
        raise Reject(ErrorCode.MOBILITY_FORBIDDEN)
    # "and has non-zero length, then the server MUST generate an error response with an error code of 400"
    if ticket:
        raise Reject(ErrorCode.BAD_REQUEST)
    return True


def add_ticket(state: State, allocation: Allocation, response: Message) -> None:
    """Give the client the ticket that is good from now on."""
    response.add(a.MOBILITY_TICKET, state.tickets.seal(Ticket(allocation.number, allocation.tickets)))


def allocation_of(state: State, message: Message) -> Allocation | None:
    """The live allocation that a Refresh names by a ticket of it, perhaps a spent one; None without such a ticket."""
    sealed = message.get(a.MOBILITY_TICKET)
    ticket = state.tickets.open(sealed) if sealed and state.config.mobility else None
    found = state.allocations.get(ticket.allocation) if ticket is not None else None
    return found if found is not None and found.relayed else None


def find(state: State, message: Message, five_tuple: FiveTuple, proof: Proof) -> Allocation:
    """The allocation that a Refresh with a ticket asks to move here; raises Reject (section 3.2.2)."""
    if not state.config.mobility:
        raise Reject(ErrorCode.MOBILITY_FORBIDDEN)
    ticket = state.tickets.open(message.get(a.MOBILITY_TICKET) or b"")
    # "If the ticket is invalid, then the server MUST reject the request with a 400 (Bad Request) error."
    if ticket is None:
        raise Reject(ErrorCode.BAD_REQUEST)
    # "does not identify an existing allocation": 437
    allocation = allocation_of(state, message)
    if allocation is None or not allocation.tickets:
        raise Reject(ErrorCode.ALLOCATION_MISMATCH)
    # "identify that it is the same user that had previously created the TURN allocation", else 441
    if not _is_owner(allocation, proof):
        raise Reject(ErrorCode.WRONG_CREDENTIALS)
    # A spent ticket is invalid. "same as the stored 5-tuple allocation": 400, and so if another one is here.
    other = state.allocations.of(five_tuple)
    if ticket.serial != allocation.tickets or five_tuple == allocation.five_tuple or other not in (None, allocation):
        raise Reject(ErrorCode.BAD_REQUEST)
    if allocation.tickets == MAX_SERIAL:
        raise Reject(ErrorCode.MOBILITY_FORBIDDEN)
    return allocation


def _is_owner(allocation: Allocation, proof: Proof) -> bool:
    """Whether it is the client that made the allocation. An access token names no user: it has to be the same one."""
    if allocation.until is not None and proof.key.md5_key != allocation.key.md5_key:
        return False
    return made_by(allocation, proof)


def announce(state: State, allocation: Allocation, five_tuple: FiveTuple, now: float) -> None:
    """Serve the allocation's client from this five-tuple, too; at once and alone where its connection is gone."""
    allocation.tickets += 1
    forget_announced(state, allocation)
    state.allocations.announce(allocation, five_tuple)
    if allocation.is_left:
        arrive(state, allocation, now)
    else:
        state.emit(ExpectClient(five_tuple))


def arrive(state: State, allocation: Allocation, now: float) -> None:
    """Serve the client from the five-tuple that was announced, and from there alone."""
    left, announced = allocation.five_tuple, allocation.announced
    assert announced is not None
    state.allocations.move(allocation)
    state.emit(MoveRelay(allocation.number, announced))
    state.emit(AllocationMoved(allocation.number, allocation.shown, left, announced, allocation.realm))


def data_came(state: State, five_tuple: FiveTuple, now: float) -> None:
    """ "until it receives a Send Indication or ChannelData message from the client on the new 5-tuple"."""
    allocation = state.allocations.of(five_tuple)
    if allocation is not None and allocation.announced == five_tuple:
        arrive(state, allocation, now)


def connection_closed(state: State, allocation: Allocation, five_tuple: FiveTuple, now: float) -> bool:
    """Whether the allocation outlives the end of this connection of its client's."""
    if five_tuple == allocation.announced:
        forget_announced(state, allocation)
        return True
    # "or a message from the client to close the old connection"
    if allocation.announced is not None:
        arrive(state, allocation, now)
        return True
    allocation.is_left = bool(allocation.tickets) and state.config.mobility
    return allocation.is_left


def forget_announced(state: State, allocation: Allocation) -> None:
    """The client is not expected any more where it was, if it was."""
    if allocation.announced is not None:
        state.emit(ExpectClient(allocation.announced, expected=False))
        state.allocations.announce(allocation, None)
