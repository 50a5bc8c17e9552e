"""Addresses as text, as values, and on the wire."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.stun.address import (
    Address,
    Family,
    FiveTuple,
    Transport,
    pack_address,
    pack_host,
    pack_xor_address,
    unpack_address,
    unpack_host,
    unpack_xor_address,
)
from turnsvr.stun.errors import MalformedMessage

packed_hosts = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
ports = st.integers(0, 0xFFFF)
masks = st.binary(min_size=16, max_size=16)


@given(packed_hosts, ports, masks)
def test_round_trips(packed: bytes, port: int, mask: bytes) -> None:
    address = Address(unpack_host(packed), port)
    assert pack_host(address.host) == address.packed == packed
    assert ipaddress.ip_address(address.host).packed == packed
    assert unpack_address(pack_address(address)) == address
    assert unpack_xor_address(pack_xor_address(address, mask), mask) == address


@given(st.binary(max_size=24), masks)
def test_any_value_is_an_address_or_malformed(value: bytes, mask: bytes) -> None:
    for unpack in (unpack_address, lambda value: unpack_xor_address(value, mask)):
        try:
            address = unpack(value)
        except MalformedMessage:
            continue
        assert len(value) == {Family.IPV4: 8, Family.IPV6: 20}[address.family]


def test_text() -> None:
    client, server = Address("192.0.2.1", 5), Address("2001:db8::1", 3478)
    assert (str(client), str(server)) == ("192.0.2.1:5", "[2001:db8::1]:3478")
    assert str(FiveTuple(Transport.TLS, client, server)) == "tls 192.0.2.1:5 -> [2001:db8::1]:3478"


def test_families() -> None:
    assert Address("192.0.2.1", 5).family is Family.IPV4
    assert Address("::ffff:192.0.2.1", 5).family is Family.IPV6
    assert Family.IPV4.socket_family is socket.AF_INET
    assert Family.IPV6.socket_family is socket.AF_INET6


def test_a_zone_never_goes_on_the_wire() -> None:
    zoned, plain = Address("fe80::1%eth0", 5), Address("fe80::1", 5)
    assert zoned.family is Family.IPV6
    assert zoned.packed == plain.packed
    assert pack_address(zoned) == pack_address(plain)


@pytest.mark.parametrize("host", ["", "localhost", "1.2.3", "1.2.3.4.5", "::g", "192.0.2.1%eth0", "1.2.3.256"])
def test_what_is_no_address(host: str) -> None:
    with pytest.raises(OSError, match="illegal IP address"):
        pack_host(host)


def test_transports() -> None:
    assert [transport for transport in Transport if not transport.is_stream] == [Transport.UDP, Transport.DTLS]
    assert [transport for transport in Transport if transport.is_encrypted] == [Transport.TLS, Transport.DTLS]
    assert [transport for transport in Transport if not transport.is_proven] == [Transport.UDP]
    assert {Transport("udp"): 1}[Transport.UDP] == 1
