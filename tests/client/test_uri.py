from __future__ import annotations

import pytest

from turnsvr.client.uri import BadUri, Leg, parse
from turnsvr.stun.address import Transport

UDP, TCP, TLS, DTLS = Transport.UDP, Transport.TCP, Transport.TLS, Transport.DTLS


@pytest.mark.parametrize(
    ("text", "legs"),
    [
        ("turn:example.org", (Leg(UDP, 3478), Leg(TCP, 3478), Leg(TLS, 5349))),
        ("turn:example.org:3478", (Leg(UDP, 3478), Leg(TCP, 3478), Leg(TLS, 5349))),
        ("turn:example.org:4000", (Leg(UDP, 4000), Leg(TCP, 4000))),
        ("turn:example.org?transport=udp", (Leg(UDP, 3478),)),
        ("TURN:example.org?transport=TCP", (Leg(TCP, 3478),)),
        ("turns:example.org", (Leg(TLS, 5349),)),
        ("turns:example.org:443?transport=tcp", (Leg(TLS, 443),)),
        ("turns:example.org?transport=udp", (Leg(DTLS, 5349),)),
        ("turns:example.org:443?transport=udp", (Leg(DTLS, 443),)),
        ("stun:192.0.2.1", (Leg(UDP, 3478), Leg(TCP, 3478), Leg(TLS, 5349))),
        ("stuns:192.0.2.1", (Leg(TLS, 5349),)),
    ],
)
def test_a_uri_stands_for_the_legs_whose_port_is_known(text: str, legs: tuple[Leg, ...]) -> None:
    assert parse(text).legs() == legs


def test_an_ipv6_host_loses_its_brackets_and_gets_them_back() -> None:
    uri = parse("turn:[2001:db8::1]:3478?transport=udp")
    assert uri.host == "2001:db8::1"
    assert str(uri) == "turn:[2001:db8::1]:3478?transport=udp"
    assert str(parse("turns:example.org?transport=udp")) == "turns:example.org?transport=udp"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "http:example.org",
        "turn:",
        "turn://example.org",
        "turn:a:b",
        "turn:example.org:0",
        "turn:example.org:65536",
        "turn:example.org?transport=sctp",
        "stun:example.org?transport=udp",
        "turn:[1::2::3]",
        "turn:[example.org]",
        "turn:user@example.org",
        "turn:" + "a" * 600,
        "turn:example.org\n",
    ],
)
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(BadUri):
        parse(text)
