"""Addresses and ranges: what is read, what is written, what is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.config.ranges import (
    AddressRange,
    ListenAddress,
    ListenTransport,
    PeerRange,
    PortRange,
    ServerAddress,
    parse_host,
    parse_unicast_host,
)
from turnsvr.config.units import BadValue

IP_ADDRESSES = st.ip_addresses()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("udp://0.0.0.0:3478", ListenAddress("udp", "0.0.0.0", 3478)),
        ("tcp://[::]:3478", ListenAddress("tcp", "::", 3478)),
        ("tls://192.0.2.1", ListenAddress("tls", "192.0.2.1", 5349)),
        ("tcp://192.0.2.1", ListenAddress("tcp", "192.0.2.1", 3478)),
        ("UDP://*", ListenAddress("udp", "*", 3478)),
        ("udp://127.0.0.1:0", ListenAddress("udp", "127.0.0.1", 0)),
        ("udp://[2001:DB8:0::1]:65535", ListenAddress("udp", "2001:db8::1", 65535)),
        ("udp://[fe80::1%eth0]:3478", ListenAddress("udp", "fe80::1%eth0", 3478)),
    ],
)
def test_listen_addresses(text: str, expected: ListenAddress) -> None:
    assert ListenAddress.parse(text) == expected
    assert ListenAddress.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.0.0.0:3478",
        "udp:0.0.0.0",
        "udp://",
        "udp://::1",
        "udp://[::1",
        "udp://1.2.3",
        "udp://localhost:3478",
        "udp://1.2.3.4:65536",
        "udp://1.2.3.4:",
        "http://1.2.3.4",
        "udp://1.2.3.4/x",
        "udp://1.2.3.4:٣",
        None,
        3478,
    ],
)
def test_no_listen_addresses(text: object) -> None:
    with pytest.raises(BadValue) as caught:
        ListenAddress.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_star_is_both_families(transport: ListenTransport) -> None:
    expanded = ListenAddress(transport, "*", 5000).expand()
    assert {address.host for address in expanded} == {"0.0.0.0", "::"}
    assert all(address.optional and address.port == 5000 and address.transport == transport for address in expanded)


def test_a_concrete_address_is_itself_and_not_optional() -> None:
    address = ListenAddress.parse("udp://127.0.0.1")
    assert address.expand() == (address,)
    assert not address.optional


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("203.0.113.7", "203.0.113.7", 3478),
        ("203.0.113.7:80", "203.0.113.7", 80),
        ("[2001:db8::7]", "2001:db8::7", 3478),
        ("[2001:db8::7]:80", "2001:db8::7", 80),
    ],
)
def test_endpoints(text: str, host: str, port: int) -> None:
    endpoint = ServerAddress.parse(text)
    assert endpoint == ServerAddress(host, port)
    assert ServerAddress.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize("text", ["", "host:80", "2001:db8::7", "1.2.3.4:0", "1.2.3.4:70000", "[1.2.3.4", None])
def test_no_endpoints(text: object) -> None:
    with pytest.raises(BadValue):
        ServerAddress.parse(text)


def test_port_ranges() -> None:
    assert PortRange.parse("49152-65535") == PortRange(49_152, 65_535)
    assert PortRange.parse("5000 - 5001") == PortRange(5000, 5001)
    assert PortRange.parse("5000") == PortRange(5000, 5000)
    assert len(PortRange(5000, 5001)) == 2
    assert str(PortRange(1, 2)) == "1-2"


@pytest.mark.parametrize("text", ["", "a-b", "0-10", "10-70000", "20-10", "1-2-3", "-5", "999999", None, 5000])
def test_no_port_ranges(text: object) -> None:
    with pytest.raises(BadValue):
        PortRange.parse(text)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("10.1.0.0/16", "10.1.0.0", "10.1.255.255"),
        ("10.1.0.5-10.1.0.9", "10.1.0.5", "10.1.0.9"),
        ("10.1.0.5 - 10.1.0.9", "10.1.0.5", "10.1.0.9"),
        ("10.1.0.5", "10.1.0.5", "10.1.0.5"),
        ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
        ("2001:db8::/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::5-2001:db8::1:0", "2001:db8::5", "2001:db8::1:0"),
        ("::1", "::1", "::1"),
    ],
)
def test_address_ranges(text: str, first: str, last: str) -> None:
    found = AddressRange.parse(text)
    assert (found.first, found.last) == (ipaddress.ip_address(first), ipaddress.ip_address(last))
    assert found.first in found
    assert found.last in found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.9-10.0.0.1",
        "10.0.0.1-::1",
        "1.2.3",
        "010.0.0.1",
        "a-b",
        "-",
        "10.0.0.1-",
        "fe80::1%eth0",
        "fe80::%eth0/64",
        None,
        1,
    ],
)
def test_no_address_ranges(text: object) -> None:
    with pytest.raises(BadValue) as caught:
        AddressRange.parse(text)
    assert caught.value.hint


def test_host_bits_get_the_right_network_as_hint() -> None:
    with pytest.raises(BadValue) as caught:
        AddressRange.parse("10.1.2.3/16")
    assert caught.value.hint == "write 10.1.0.0/16 or 10.1.2.3"


def test_ranges_compare_as_numbers_within_one_family() -> None:
    found = AddressRange.parse("2001:db8::ff-2001:db8::1:0")
    assert ipaddress.ip_address("2001:db8::100") in found
    assert ipaddress.ip_address("2001:db8::1") not in found
    assert ipaddress.ip_address("0.0.0.1") not in AddressRange.parse("::/0")
    assert not AddressRange.parse("::/0").overlaps(AddressRange.parse("0.0.0.0/0"))


@given(IP_ADDRESSES, IP_ADDRESSES)
def test_ranges_read_back(one: ipaddress.IPv4Address | ipaddress.IPv6Address, other: ipaddress.IPv4Address) -> None:
    if one.version != other.version:
        return
    first, last = sorted((one, other), key=int)
    if getattr(first, "scope_id", None) or getattr(last, "scope_id", None):
        return
    found = AddressRange(first, last)
    assert AddressRange.parse(str(found)) == found


@given(st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_networks_are_written_as_networks(prefix: int, bits: int) -> None:
    network = ipaddress.ip_network((bits, prefix), strict=False)
    expected = str(network.network_address) if prefix == 32 else str(network)
    assert str(AddressRange.parse(str(network))) == expected


def test_unicast_hosts() -> None:
    assert parse_unicast_host(" 203.0.113.7 ") == "203.0.113.7"
    for text in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "x"):
        with pytest.raises(BadValue):
            parse_unicast_host(text)


@given(st.one_of(st.text(), st.from_regex(r"(udp|tls)?(://)?[\[0-9a-f:.*%/\]-]{0,20}")))
def test_any_text_is_an_address_or_a_bad_value(text: str) -> None:
    parsers: list[Callable[[object], object]] = [
        ListenAddress.parse,
        ServerAddress.parse,
        PortRange.parse,
        AddressRange.parse,
        parse_host,
    ]
    for parse in parsers:
        try:
            value = parse(text)
        except BadValue:
            continue
        assert parse(str(value)) == value


@pytest.mark.parametrize(
    ("text", "addresses", "ports", "single"),
    [
        ("10.0.0.5:10000-20000", "10.0.0.5", "10000-20000", True),
        ("10.0.0.5:9", "10.0.0.5", "9-9", True),
        ("[fd00::5]:9-10", "fd00::5", "9-10", True),
        ("[10.0.0.5]:9", "10.0.0.5", "9-9", True),
        ("[fd00::5]", "fd00::5", None, True),
        ("fd00::5", "fd00::5", None, True),
        ("10.0.0.5/32", "10.0.0.5", None, True),
        ("10.0.0.5-10.0.0.5", "10.0.0.5", None, True),
        (" 10.0.0.0/24 ", "10.0.0.0/24", None, False),
        ("fd00::/16", "fd00::/16", None, False),
    ],
)
def test_what_peers_may_be_named_by(text: str, addresses: str, ports: str | None, single: bool) -> None:
    found = PeerRange.parse(text)
    assert (str(found.addresses), found.is_single) == (addresses, single)
    assert (None if found.ports is None else str(found.ports)) == ports
    assert PeerRange.parse(str(found)) == found


NO_PEERS = ["10.0.0.5:", "10.0.0.5:0", "10.0.0.5:9-1", "[fd00::5]:", "[fd00::5", "host:9", "10.0.0.5:x", ":9", ""]


@pytest.mark.parametrize("text", NO_PEERS)
def test_what_names_no_peers(text: str) -> None:
    with pytest.raises(BadValue):
        PeerRange.parse(text)
