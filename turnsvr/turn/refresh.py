"""The Refresh method (RFC 8656 section 8.2), and how an allocation or one family of it ends."""

from __future__ import annotations

from turnsvr.stun import attributes as a
from turnsvr.stun.address import Family, FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Class, Message
from turnsvr.turn import mobility
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.authentication import Proof
from turnsvr.turn.commands import AllocationRefreshed, CloseRelay, EndReason, ExtendRelay
from turnsvr.turn.lifetimes import most_lifetime, read_lifetime
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import Answer, State, add_software, allocation_for


def refresh(state: State, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Answer:
    """RFC 8656 section 8.2, and RFC 8016 section 3.2.2 where there is a ticket."""
    # A retransmission of the request that ended the allocation, or moved it.
    finished = state.allocations.finished(five_tuple, message.transaction_id, now)
    if finished is not None:
        return finished
    moves = a.MOBILITY_TICKET in message
    allocation = mobility.find(state, message, five_tuple, proof) if moves else allocation_for(state, five_tuple, proof)
    families = _refreshed_families(allocation, message)
    # "If the 'desired lifetime' is zero, then the request succeeds and the allocation is deleted."
    if message.get(a.LIFETIME) == 0:
        return _delete(state, allocation, families, message, five_tuple, proof, now)
    # "the request succeeds and the allocation's time-to-expiry is set to the 'desired lifetime'"
    renewed = proof.claim.token is not None
    left = proof.key.valid_for if renewed else allocation.time_left(now)
    lifetime = read_lifetime(message, most_lifetime(state.config, left))
    if renewed:
        allocation.use_key(proof.key, now)
    for family in families:
        state.allocations.extend(allocation, family, now + lifetime)
    state.emit(ExtendRelay(allocation.number, max(allocation.expires.values())))
    state.emit(AllocationRefreshed(allocation.number, lifetime))
    response = message.reply(Class.SUCCESS).add(a.LIFETIME, lifetime)
    if not moves:
        add_software(state, response)
        return response
    mobility.announce(state, allocation, five_tuple, now)
    mobility.add_ticket(state, allocation, response)
    add_software(state, response)
    # "a server must retain the old STUN MOBILITY-TICKET ... to recognize a retransmission" (RFC 8016 section 3.2.2)
    data = state.sign(message, response, proof)
    state.allocations.finish(five_tuple, message.transaction_id, data, now)
    return data


def _refreshed_families(allocation: Allocation, message: Message) -> list[Family]:
    """REQUESTED-ADDRESS-FAMILY that "does not match the address family of the allocation": 443; without it, all."""
    requested = message.get(a.REQUESTED_ADDRESS_FAMILY)
    if requested is None:
        return list(allocation.relayed)
    family = next((family for family in allocation.relayed if family == requested), None)
    if family is None:
        raise Reject(ErrorCode.PEER_ADDRESS_FAMILY_MISMATCH)
    return [family]


def _delete(
    state: State,
    allocation: Allocation,
    families: list[Family],
    message: Message,
    five_tuple: FiveTuple,
    proof: Proof,
    now: float,
) -> bytes:
    """End these families, and keep the answer for retransmissions, which find nothing to end."""
    response = message.reply(Class.SUCCESS).add(a.LIFETIME, 0)
    add_software(state, response)
    if len(families) < len(allocation.relayed):
        close_family(state, allocation, families[0])
    else:
        state.end(allocation, EndReason.REFRESHED_TO_ZERO, now)
    data = state.sign(message, response, proof)
    state.allocations.finish(five_tuple, message.transaction_id, data, now)
    return data


def expire_family(state: State, allocation: Allocation, family: Family, now: float) -> None:
    """The relay of one family is past its deadline; the last one takes the allocation along."""
    if len(allocation.relayed) > 1:
        close_family(state, allocation, family)
    else:
        state.end(allocation, EndReason.EXPIRED, now)


def close_family(state: State, allocation: Allocation, family: Family) -> None:
    """Close the relay of one family, with its permissions and channels; another one stays."""
    state.allocations.drop_family(allocation, family)
    state.end_connections(allocation, family)
    state.emit(CloseRelay(allocation.number, family))
