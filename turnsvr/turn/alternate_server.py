"""300 Try Alternate and ALTERNATE-SERVER on Allocate (RFC 8489 section 10, RFC 8656 section 7.2 step 11)."""

from __future__ import annotations

from turnsvr.stun import attributes as a
from turnsvr.stun.address import FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message
from turnsvr.turn.quota import is_full
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import State


def redirect(state: State, five_tuple: FiveTuple) -> None:
    """300 with ALTERNATE-SERVER of the client's family first, then one of the other (RFC 8489 section 10)."""
    redirect = state.config.redirect
    if redirect is None or not (redirect.always or is_full(state)):
        return
    family = five_tuple.client.family
    same = [address for address in redirect.to if address.family is family]
    other = [address for address in redirect.to if address.family is not family]
    if not same:
        return
    turn = state.redirected
    state.redirected += 1

    def details(response: Message) -> None:
        response.add(a.ALTERNATE_SERVER, same[turn % len(same)])
        if other:
            response.add(a.ALTERNATE_SERVER, other[turn % len(other)])
        if redirect.domain is not None:
            response.add(a.ALTERNATE_DOMAIN, redirect.domain)

    raise Reject(ErrorCode.TRY_ALTERNATE, details=details)
