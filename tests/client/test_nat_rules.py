"""The decision tables of NAT discovery: every verdict, and every way to know too little."""

from __future__ import annotations

import pytest

from turnsvr.client.nat_rules import (
    ANY_BEHAVIOUR,
    Behaviour,
    Classic,
    Seen,
    classic,
    filtering,
    mapping,
    rto,
    silence_counts,
)
from turnsvr.stun.address import Address

EI, AD, APD = Behaviour

PRIMARY = Address("192.0.2.1", 3478)
OTHER_HOST = Address("192.0.2.2", 3478)
OTHER_BOTH = Address("192.0.2.2", 3479)
OTHER_PORT = Address("192.0.2.1", 3479)
ELSEWHERE = Address("198.51.100.9", 19302)

FIRST, SECOND, THIRD = (Address("203.0.113.7", port) for port in (1001, 1002, 1003))


@pytest.mark.parametrize(
    ("seen", "possible"),
    [
        # RFC 5780 section 4.3
        ([(PRIMARY, FIRST), (OTHER_HOST, FIRST)], {EI}),
        ([(PRIMARY, FIRST), (OTHER_HOST, SECOND), (OTHER_BOTH, SECOND)], {AD}),
        ([(PRIMARY, FIRST), (OTHER_HOST, SECOND), (OTHER_BOTH, THIRD)], {APD}),
        # test III unanswered, or two servers
        ([(PRIMARY, FIRST), (OTHER_HOST, SECOND)], {AD, APD}),
        ([(PRIMARY, FIRST), (ELSEWHERE, SECOND)], {AD, APD}),
        ([(PRIMARY, FIRST), (ELSEWHERE, FIRST)], {EI}),
        # one address, two ports
        ([(PRIMARY, FIRST), (OTHER_PORT, FIRST)], {EI, AD}),
        ([(PRIMARY, FIRST), (OTHER_PORT, SECOND)], {APD}),
        # nothing to compare
        ([(PRIMARY, FIRST)], {EI, AD, APD}),
        ([], {EI, AD, APD}),
        # the same destination twice says nothing, even when the answer changed
        ([(PRIMARY, FIRST), (PRIMARY, SECOND)], {EI, AD, APD}),
        # a whole series of four
        ([(PRIMARY, FIRST), (OTHER_HOST, SECOND), (OTHER_BOTH, SECOND), (OTHER_PORT, FIRST)], {AD}),
        # another host of a pool is another mapping
        ([(PRIMARY, FIRST), (OTHER_HOST, Address("203.0.113.8", 1001))], {AD, APD}),
        # what fits no rule
        ([(PRIMARY, FIRST), (OTHER_HOST, SECOND), (OTHER_BOTH, FIRST)], set()),
        ([(PRIMARY, FIRST), (OTHER_HOST, FIRST), (OTHER_BOTH, SECOND)], set()),
    ],
)
def test_mapping(seen: list[tuple[Address, Address]], possible: set[Behaviour]) -> None:
    assert mapping(Seen(*each) for each in seen) == possible
    assert mapping(Seen(*each) for each in reversed(seen)) == possible


@pytest.mark.parametrize(
    ("both_changed", "port_changed", "possible"),
    [
        # RFC 5780 section 4.4
        (True, None, {EI}),
        (True, True, {EI}),
        (True, False, {EI}),
        (False, True, {AD}),
        (False, False, {APD}),
        # one address, or a test that could not be made
        (False, None, {AD, APD}),
        (None, True, {EI, AD}),
        (None, False, {APD}),
        (None, None, {EI, AD, APD}),
    ],
)
def test_filtering(both_changed: bool | None, port_changed: bool | None, possible: set[Behaviour]) -> None:
    assert filtering(both_changed, port_changed) == possible


@pytest.mark.parametrize(
    ("natted", "mappings", "filterings", "names"),
    [
        (False, {EI}, {EI}, {Classic.OPEN_INTERNET}),
        (False, {EI}, {AD}, {Classic.SYMMETRIC_FIREWALL}),
        (False, {EI}, {APD}, {Classic.SYMMETRIC_FIREWALL}),
        (False, {EI}, {AD, APD}, {Classic.SYMMETRIC_FIREWALL}),
        (True, {EI}, {EI}, {Classic.FULL_CONE}),
        (True, {EI}, {AD}, {Classic.RESTRICTED_CONE}),
        (True, {EI}, {APD}, {Classic.PORT_RESTRICTED_CONE}),
        (True, {EI}, {AD, APD}, {Classic.RESTRICTED_CONE, Classic.PORT_RESTRICTED_CONE}),
        (True, {AD}, {EI}, {Classic.SYMMETRIC}),
        (True, {APD}, {APD}, {Classic.SYMMETRIC}),
        (True, {AD, APD}, ANY_BEHAVIOUR, {Classic.SYMMETRIC}),
        (None, {EI}, {EI}, {Classic.OPEN_INTERNET, Classic.FULL_CONE}),
        (True, set(), {EI}, set()),
    ],
)
def test_classic(
    natted: bool | None, mappings: set[Behaviour], filterings: set[Behaviour], names: set[Classic]
) -> None:
    assert classic(natted, frozenset(mappings), frozenset(filterings)) == names


@pytest.mark.parametrize(
    ("sent", "answered", "transmissions", "counts"),
    [
        (10, 10, 1, True),  # nothing is lost
        (20, 10, 7, True),  # half is lost: 1 in 128
        (20, 10, 6, False),  # 1 in 64
        (30, 10, 7, False),  # two thirds: 1 in 17
        (30, 10, 14, True),
        (7, 0, 7, False),  # nothing ever came
        (9, 10, 1, True),  # an answer came twice
    ],
)
def test_silence_counts_only_where_loss_does_not_explain_it(
    sent: int, answered: int, transmissions: int, counts: bool
) -> None:
    assert silence_counts(sent, answered, transmissions) is counts


def test_the_retransmission_timeout_follows_the_round_trips() -> None:
    """RFC 6298 section 2: R, R/2 and RTO = SRTT + 4 RTTVAR after the first, smoothed from then on."""
    assert rto([], 0.1, 0.5) == 0.5
    assert rto([0.1], 0.01, 0.5) == pytest.approx(0.3)
    assert rto([0.1, 0.1], 0.01, 0.5) == pytest.approx(0.1 + 4 * 0.0375)
    assert rto([0.001], 0.1, 0.5) == 0.1
    assert rto([2.0], 0.1, 0.5) == 0.5
