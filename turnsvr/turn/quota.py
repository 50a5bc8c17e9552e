"""How many allocations there may be: of a user, of a realm, of the server (RFC 8656 section 7.2 step 10)."""

from __future__ import annotations

from turnsvr.stun.errors import ErrorCode
from turnsvr.turn.authentication import Proof
from turnsvr.turn.pending import Wish
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import Desk


def check_quotas(desk: Desk, proof: Proof, wish: Wish) -> None:
    """The bounds of the server, of the realm, and of the user, for whom as many ports may be held as be allocated."""
    config, realm = desk.config, desk.config.rules_of(proof.realm)
    if is_full(desk):
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY)
    opening = [one.allocation.owner for one in desk.openings.values() if one.reserve is not None]
    if wish.reserve and len(desk.reservations) + len(opening) >= config.reservations:
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY)
    if realm.allocations and desk.allocations.count_realm(proof.realm) >= realm.allocations:
        raise Reject(ErrorCode.ALLOCATION_QUOTA_REACHED)
    most = proof.key.quota if proof.key.quota is not None else realm.allocations_per_user or None
    if most is None:
        return
    owner = (proof.realm, proof.key.quota_user)
    reserved = desk.reservations.count(owner) + opening.count(owner)
    if desk.allocations.count(owner) >= most or (wish.reserve and reserved >= most):
        raise Reject(ErrorCode.ALLOCATION_QUOTA_REACHED)


def is_full(desk: Desk) -> bool:
    """Whether there is no room for another allocation; relays that are still to be closed count."""
    abandoned = sum(opening.abandoned for opening in desk.openings.values())
    return desk.draining or len(desk.allocations) + abandoned >= desk.config.allocations
