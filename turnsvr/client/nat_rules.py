"""What measurements say about a NAT: RFC 5780's decisions as pure functions over what was seen.

Where the measurements leave several possibilities the answer is the set of them. An empty set says that they
contradict every kind of NAT the RFC knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from itertools import combinations, product
from typing import NamedTuple

from turnsvr.stun.address import Address


class Behaviour(Enum):
    """How a NAT maps, or filters (RFC 4787 sections 4.1 and 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Classic(Enum):
    """The names of RFC 3489 section 5, as most people know them."""

    OPEN_INTERNET = "Open Internet"
    FULL_CONE = "Full Cone"
    RESTRICTED_CONE = "Restricted Cone"
    PORT_RESTRICTED_CONE = "Port-Restricted Cone"
    SYMMETRIC = "Symmetric"
    SYMMETRIC_FIREWALL = "Symmetric UDP Firewall"
    BLOCKED = "Blocked"


ANY_BEHAVIOUR = frozenset(Behaviour)

_EI, _AD, _APD = Behaviour
_TRUSTED_SILENCE = 0.01
"""Highest chance, as a fraction, that loss alone kept an answer away, for silence still to count as filtering."""


class Seen(NamedTuple):
    """Where one socket sent to, and the mapped address that came back."""

    destination: Address
    mapped: Address


def mapping(seen: Iterable[Seen]) -> frozenset[Behaviour]:
    """What the mapping can be, from what one socket saw at different destinations (RFC 5780 section 4.3).

    The RFC's tests I to III are one such series; two servers, or two ports of one address, are others.
    """
    possible = ANY_BEHAVIOUR
    for one, other in combinations(dict.fromkeys(seen), 2):
        if one.destination == other.destination:
            continue
        same_host = one.destination.host == other.destination.host
        if one.mapped == other.mapped:
            possible &= {_EI, _AD} if same_host else {_EI}
        else:
            possible &= {_APD} if same_host else {_AD, _APD}
    return possible


def filtering(both_changed: bool | None, port_changed: bool | None) -> frozenset[Behaviour]:
    """What the filtering can be (RFC 5780 section 4.4).

    both_changed: whether an answer from another address and port arrived (test II); port_changed: from another
    port of the same address (test III). None where the test could not be made.
    """
    if both_changed:
        return frozenset({_EI})
    possible = ANY_BEHAVIOUR if both_changed is None else frozenset({_AD, _APD})
    if port_changed is not None:
        possible &= {_EI, _AD} if port_changed else {_APD}
    return possible


def classic(
    natted: bool | None, mappings: frozenset[Behaviour], filterings: frozenset[Behaviour]
) -> frozenset[Classic]:
    """The classic names that fit; natted is whether mapped and local address differ, None when that is unknown."""
    cases = (True, False) if natted is None else (natted,)
    return frozenset(_name(*case) for case in product(cases, mappings, filterings))


def _name(natted: bool, mapped: Behaviour, filtered: Behaviour) -> Classic:
    if not natted:
        return Classic.OPEN_INTERNET if filtered is _EI else Classic.SYMMETRIC_FIREWALL
    if mapped is not _EI:
        return Classic.SYMMETRIC
    return _CONES[filtered]


_CONES = {
    _EI: Classic.FULL_CONE,
    _AD: Classic.RESTRICTED_CONE,
    _APD: Classic.PORT_RESTRICTED_CONE,
}


def silence_counts(sent: int, answered: int, transmissions: int) -> bool:
    """Whether no answer to a request sent so often can be put down to filtering.

    sent and answered: transmissions of requests that nothing filters, and their answers. It cannot when the loss
    they show would keep every one of the answers away with more than 1 % probability.
    """
    if answered == 0:
        return False
    loss = max(0.0, 1 - answered / sent)
    return bool(loss**transmissions <= _TRUSTED_SILENCE)


def rto(round_trips: Iterable[float], least: float, most: float) -> float:
    """Retransmission timeout after these round-trip times, in seconds (RFC 6298 section 2, without its one second)."""
    smoothed = variation = None
    for sample in round_trips:
        if smoothed is None or variation is None:
            smoothed, variation = sample, sample / 2
        else:
            variation = 0.75 * variation + 0.25 * abs(smoothed - sample)
            smoothed = 0.875 * smoothed + 0.125 * sample
    if smoothed is None or variation is None:
        return most
    return min(most, max(least, smoothed + 4 * variation))
