from __future__ import annotations

from turnsvr.config.ranges import ListenAddress
from turnsvr.config.settings import Settings
from turnsvr.credentials import ice


def listeners(*texts: str) -> list[ListenAddress]:
    return [concrete for text in texts for concrete in ListenAddress.parse(text).expand()]


def test_the_default_listeners() -> None:
    assert ice.ice_servers("turn.example.org", Settings().listeners(), "u", "p") == {
        "iceServers": [
            {"urls": ["stun:turn.example.org:3478"]},
            {
                "urls": ["turn:turn.example.org:3478?transport=udp", "turn:turn.example.org:3478?transport=tcp"],
                "username": "u",
                "credential": "p",
            },
        ]
    }


def test_tls_is_turns_and_comes_last() -> None:
    assert ice.turn_urls("h", listeners("tls://*:443", "tcp://*", "udp://*:80")) == [
        "turn:h:80?transport=udp",
        "turn:h:3478?transport=tcp",
        "turns:h:443?transport=tcp",
    ]


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert ice.stun_urls("2001:db8::1", listeners("udp://*")) == ["stun:[2001:db8::1]:3478"]
    assert ice.stun_urls("[2001:db8::1]", listeners("udp://*")) == ["stun:[2001:db8::1]:3478"]


def test_without_udp_there_is_no_stun_url() -> None:
    servers = ice.ice_servers("h", listeners("tls://*"), "u", "p")["iceServers"]
    assert [server["urls"] for server in servers] == [["turns:h:5349?transport=tcp"]]
