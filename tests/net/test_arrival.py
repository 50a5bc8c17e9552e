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
    if byte in (0, 1, 2, 3):
        expected = Speech.STUN
    if byte == 22:
        expected = Speech.TLS
    if byte in b"CDGHOPT":
        expected = Speech.HTTP
    assert judge(bytes((byte,))) is expected


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n"])
def test_http_is_known_by_any_of_its_beginnings(request_line: bytes) -> None:
    assert {judge(request_line[:size]) for size in range(1, len(request_line))} == {Speech.HTTP}


@pytest.mark.parametrize("first", [b"M-SEARCH * HTTP/1.1\r\n", b"MKCALENDAR /a HTTP/1.1"])
def test_other_methods_are_known_by_their_line(first: bytes) -> None:
    assert judge(first) is Speech.HTTP


@pytest.mark.parametrize(
    "first", [b"HELO a\r\n", b"GETTING / HTTP", b"get / HTTP/1.1", b"PROXY TCP4", b"TR\0", b"SSH-2.0-"]
)
def test_what_only_looks_like_http(first: bytes) -> None:
    assert judge(first) is Speech.UNKNOWN


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
