"""What a ClientHello asks for, however it is cut into records and segments."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.net.clienthello import MAX_HELLO, ClientHello, read_hello


def hello(name: str | None = None, protocols: list[str] | None = None) -> bytes:
    """OpenSSL's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(whole: bytes, size: int) -> bytes:
    """The same message in records of this size."""
    body = whole[5:]
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


def made(*extensions: tuple[int, bytes], session: bytes = b"") -> bytes:
    """One by hand, with these extensions."""
    written = b"".join(kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for kind, value in extensions)
    body = b"\x03\x03" + bytes(32) + bytes((len(session),)) + session + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(written).to_bytes(2, "big") + written
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def server_name(name: bytes, kind: int = 0) -> tuple[int, bytes]:
    entry = bytes((kind,)) + len(name).to_bytes(2, "big") + name
    return 0, len(entry).to_bytes(2, "big") + entry


GREASE = (0x2A2A, b"")
ENCRYPTED = (0xFE0D, bytes(200))
SHOP = ClientHello("shop.example.org", (b"h2", b"http/1.1"))


def test_openssls() -> None:
    assert read_hello(hello("shop.example.org", ["h2", "http/1.1"])) == SHOP
    assert read_hello(hello("shop.example.org")) == ClientHello("shop.example.org")
    assert read_hello(hello()) == ClientHello()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 50, 200])
def test_a_message_in_many_records(size: int) -> None:
    assert read_hello(in_records(hello("shop.example.org", ["h2", "http/1.1"]), size)) == SHOP


@pytest.mark.parametrize("size", [3, 10_000])
def test_in_segments_more_is_asked_for_until_it_is_whole(size: int) -> None:
    whole = in_records(hello("shop.example.org", ["h2", "http/1.1"]), size)
    assert {read_hello(whole[:at]) for at in range(len(whole))} == {None}
    assert read_hello(whole + b"and more") == SHOP


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (made(GREASE, ENCRYPTED, server_name(b"Shop.Example.ORG."), GREASE), "shop.example.org"),
        (made(server_name(b"outer.example"), ENCRYPTED), "outer.example"),
        (made(), ""),
        (made(server_name(b"x", kind=7)), ""),
        (made(server_name("\xe4.example".encode())), "\ufffd\ufffd.example"),
        (made((0, b"\x00\xff\x00")), ""),
        (made((0, b"")), ""),
        (made(server_name(b"a.example"), session=bytes(32)), "a.example"),
    ],
    ids=["GREASE and ECH", "the outer name", "no extension", "another kind", "no ASCII", "cut", "empty", "a session"],
)
def test_names(data: bytes, name: str) -> None:
    assert read_hello(data) == ClientHello(name)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00",
        b"\x16\x03\x01\x00\x00",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        b"\x16\x03\x01\x00\x08\x01\x00\x00\x04abcd",
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(MAX_HELLO),
        b"\x16\x03\x01\xff\xff" + b"\x01" + bytes(MAX_HELLO),
    ],
    ids=["a server's", "an empty record", "an alert", "HTTP", "an empty one", "a short one", "16 MiB", "a long record"],
)
def test_what_asks_for_nothing(data: bytes) -> None:
    assert read_hello(data[:MAX_HELLO]) == ClientHello()


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda data: b"\x16\x03\x01\x01\x00\x01\x00\x00" + data))
def test_any_bytes(data: bytes) -> None:
    for at in range(0, len(data), 7):
        read_hello(data[:at])
    read_hello(data)
