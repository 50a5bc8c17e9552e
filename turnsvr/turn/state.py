"""What every handler of a request works with.

A handler answers with a success response, with the bytes of one that was signed before, or with None where the
answer comes later, and raises Reject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from turnsvr.limits import KeyedLimiter
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, FiveTuple, family_of
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message
from turnsvr.turn.allocation import Allocation, Allocations
from turnsvr.turn.authentication import Key, Proof
from turnsvr.turn.commands import Command, EndReason, PeerRefused, ReleaseReservation
from turnsvr.turn.config import ServerConfig
from turnsvr.turn.peerconnections import PeerConnections
from turnsvr.turn.pending import PendingAllocation
from turnsvr.turn.reject import Reject
from turnsvr.turn.reservations import Reservations
from turnsvr.turn.tickets import Tickets

Answer = Message | bytes | None

_RATE_SLOTS: Final = 1 << 14
"""Slots for users, or addresses, whose rate of something is bounded, 8 bytes each."""
_RATE_SECONDS: Final = 10.0
"""What a user may have saved up, in seconds of its rate: clients of one name that all come back at once."""


def _rates() -> KeyedLimiter:
    return KeyedLimiter(0.0, _RATE_SECONDS, _RATE_SLOTS)


@dataclass(slots=True)
class State:
    """What every handler works with."""

    config: ServerConfig
    random: Callable[[int], bytes]
    allocations: Allocations
    reservations: Reservations
    emit: Callable[[Command], None]
    end: Callable[[Allocation, EndReason, float], None]
    tickets: Tickets
    draining: bool = False
    connections: PeerConnections = field(default_factory=PeerConnections)
    end_connections: Callable[[Allocation, Family], None] = lambda allocation, family: None
    """End an allocation's connections to peers of one family; PeerRelaying sets it."""
    pending: dict[int, PendingAllocation] = field(default_factory=dict)
    following: list[Command] = field(default_factory=list)
    """What is to be done right after the answer that is being made."""
    rates: KeyedLimiter = field(default_factory=_rates)
    """How often each user may allocate."""
    connect_rates: KeyedLimiter = field(default_factory=_rates)
    """How often each user may ask for a connection to a peer."""
    connect_rates_of_addresses: KeyedLimiter = field(default_factory=_rates)
    """The same for each client address."""
    next_number: int = 1
    redirected: int = 0

    def follow(self, command: Command) -> None:
        """Have this done after the success response that the handler is about to give."""
        self.following.append(command)

    def emit_following(self) -> None:
        """The success response is out: emit what is to follow it."""
        for command in self.following:
            self.emit(command)
        self.following.clear()

    def sign(self, message: Message, response: Message, proof: Proof) -> bytes:
        """The response to message, encoded."""
        return proof.sign(response, fingerprint=a.FINGERPRINT in message)


def counted_as(key: Key) -> str:
    """The name that a user is counted by, as it may be shown."""
    return key.quota_user if key.shown == key.username else key.shown


def release(state: State, token: bytes) -> None:
    """Release a reserved port."""
    state.reservations.remove(token)
    state.emit(ReleaseReservation(token))


def allocation_for(state: State, five_tuple: FiveTuple, proof: Proof) -> Allocation:
    """The allocation on the five-tuple of a request (RFC 8656 section 5); raises Reject 437 or 441.

    437 where the five-tuple has no allocation, 441 where another user made it.
    """
    allocation = state.allocations.of(five_tuple)
    if allocation is None or not allocation.relayed:
        raise Reject(ErrorCode.ALLOCATION_MISMATCH)
    if not made_by(allocation, proof):
        raise Reject(ErrorCode.WRONG_CREDENTIALS)
    return allocation


def made_by(allocation: Allocation, proof: Proof) -> bool:
    """Whether the same user of the same realm made the allocation.

    An access token names no user but the key that seals it, which may be another one when the token is renewed: any
    good token speaks for an allocation of such a token, on its five-tuple.
    """
    if allocation.named_realm != proof.claim.realm:
        return False
    if allocation.until is not None and proof.key.valid_for is not None:
        return True
    return allocation.username == proof.key.username and (allocation.until is None) == (proof.key.valid_for is None)


def check_peer(state: State, allocation: Allocation, peer: Address, port: int | None = None) -> None:
    """443 for a peer of a family that the allocation has no relayed address of, 403 for one that the policy refuses.

    port: of the peer, where it matters.
    """
    if family_of(peer.host) not in allocation.relayed:
        raise Reject(ErrorCode.PEER_ADDRESS_FAMILY_MISMATCH)
    reason = state.config.rules_of(allocation.realm).policy.refusal(peer.host, port)
    if reason is not None:
        refuse_peer(state, allocation, peer, reason)
        raise Reject(ErrorCode.FORBIDDEN)


def refuse_peer(state: State, allocation: Allocation, peer: Address, reason: str) -> None:
    """Tell of a peer that the allocation may not reach."""
    number, realm = allocation.number, allocation.realm
    state.emit(PeerRefused(number, allocation.shown, allocation.five_tuple, peer, reason, realm))


def check_room(size: int, bound: int, setting: str) -> None:
    """508 where a table would pass its bound, which this setting names."""
    if size > bound:
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY, limit=setting)


def add_software(state: State, response: Message) -> None:
    """Add SOFTWARE, unless the operator hides it."""
    if state.config.software is not None:
        response.add(a.SOFTWARE, state.config.software)
