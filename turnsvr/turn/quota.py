"""How many allocations a user, a realm and the server may have, and how often (RFC 8656 section 7.2 step 10)."""

from __future__ import annotations

from turnsvr.stun.errors import ErrorCode
from turnsvr.turn.authentication import Proof
from turnsvr.turn.pending import AllocateRequest
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import State


def check_quotas(state: State, proof: Proof, request: AllocateRequest) -> None:
    """Check the bounds of server, realm and user, who may reserve as many ports as it may hold allocations.

    Each refusal names the bound, for the log.
    """
    config, realm = state.config, state.config.rules_of(proof.realm)
    if is_full(state):
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY, limit="draining" if state.draining else "limits.allocations")
    reserving = [one.allocation.owner for one in state.pending.values() if one.reserve is not None]
    if request.reserve and len(state.reservations) + len(reserving) >= config.reservations:
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY, limit="reserved ports of the server")
    if realm.allocations and state.allocations.count_realm(proof.realm) >= realm.allocations:
        raise Reject(ErrorCode.ALLOCATION_QUOTA_REACHED, limit=f"realms.{proof.realm}.limits.allocations")
    most = _most(state, proof)
    if most is None:
        return
    owner = (proof.realm, proof.key.quota_user)
    reserved = state.reservations.count(owner) + reserving.count(owner)
    if state.allocations.count(owner) >= most or (request.reserve and reserved >= most):
        own = proof.key.quota is not None
        limit = "the quota in the user's credentials" if own else "limits.allocations_per_user"
        raise Reject(ErrorCode.ALLOCATION_QUOTA_REACHED, limit=limit)


def check_rate(state: State, proof: Proof, now: float) -> None:
    """Check how often the user allocates; to be called last, for it counts.

    A user that may hold so many allocations may also make so many at once: all clients of a name come back together.
    """
    if not state.rates.allow((proof.realm, proof.key.quota_user), now, _most(state, proof) or 0):
        raise Reject(ErrorCode.ALLOCATION_QUOTA_REACHED, limit="limits.allocation_rate_per_user")


def _most(state: State, proof: Proof) -> int | None:
    """How many allocations a user may hold; None for any number."""
    if proof.key.quota is not None:
        return proof.key.quota
    return state.config.rules_of(proof.realm).allocations_per_user or None


def is_full(state: State) -> bool:
    """Whether there is no room for another allocation; relays that are still to be closed count."""
    abandoned = sum(pending.abandoned for pending in state.pending.values())
    return state.draining or state.allocations.everywhere + abandoned >= state.config.allocations
