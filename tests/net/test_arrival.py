"""Which byte means what, and how a socket address is named."""

from __future__ import annotations

import socket

import pytest

from turnsvr.net.arrival import Speech, judge
from turnsvr.net.sockets import address_of
from turnsvr.stun.address import Address


@pytest.mark.parametrize("byte", range(256))
def test_the_first_byte_tells_what_is_spoken(byte: int) -> None:
    expected = Speech.UNKNOWN
    if byte in (0, 1, 2, 3) or 0x40 <= byte <= 0x7F:
        expected = Speech.PLAIN
    if byte == 22:
        expected = Speech.TLS
    assert judge(bytes((byte,))) is expected


def test_the_end_is_nothing() -> None:
    assert judge(b"") is Speech.NOTHING


@pytest.mark.parametrize(
    ("sockaddr", "address"),
    [
        (("192.0.2.1", 5), Address("192.0.2.1", 5)),
        (("2001:db8::1", 5, 0, 0), Address("2001:db8::1", 5)),
        (("fe80::1", 5, 0, 1), Address(f"fe80::1%{socket.if_indextoname(1)}", 5)),
        (("fe80::1", 5, 0, 987_654), Address("fe80::1%987654", 5)),
        (("fe80::1%eth7", 5, 0, 1), Address("fe80::1%eth7", 5)),
    ],
)
def test_a_link_local_address_carries_its_zone(sockaddr: tuple[object, ...], address: Address) -> None:
    assert address_of(sockaddr) == address
