"""How many allocations there may be: of a user, of a realm, of the server (RFC 8656 section 7.2 step 10)."""

from __future__ import annotations

from turnsvr.stun.errors import ErrorCode
from turnsvr.turn.authentication import Proof
from turnsvr.turn.pending import AllocateRequest
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import State


def check_quotas(state: State, proof: Proof, request: AllocateRequest) -> None:
    """The bounds of the server, of the realm, and of the user, for whom as many ports may be held as be allocated."""
    config, realm = state.config, state.config.rules_of(proof.realm)
    if is_full(state):
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY)
    pending = [one.allocation.owner for one in state.pending.values() if one.reserve is not None]
    if request.reserve and len(state.reservations) + len(pending) >= config.reservations:
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY)
    if realm.allocations and state.allocations.count_realm(proof.realm) >= realm.allocations:
        raise Reject(ErrorCode.ALLOCATION_QUOTA_REACHED)
    most = proof.key.quota if proof.key.quota is not None else realm.allocations_per_user or None
    if most is None:
        return
    owner = (proof.realm, proof.key.quota_user)
    reserved = state.reservations.count(owner) + pending.count(owner)
    if state.allocations.count(owner) >= most or (request.reserve and reserved >= most):
        raise Reject(ErrorCode.ALLOCATION_QUOTA_REACHED)


def is_full(state: State) -> bool:
    """Whether there is no room for another allocation; relays that are still to be closed count."""
    abandoned = sum(pending.abandoned for pending in state.pending.values())
    return state.draining or len(state.allocations) + abandoned >= state.config.allocations
