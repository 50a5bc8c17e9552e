"""Headers of the PROXY protocol: what they say, in any pieces, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.net.proxyheader import MAX_HEADER, BadHeader, HeaderReader, HeaderRefusal, write_header
from turnsvr.stun.address import Address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes((192, 0, 2, 1, 198, 51, 100, 2)) + b"\x30\x39\x01\xbb"
V6 = bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02") + b"\x30\x39\x01\xbb"


def binary(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + len(rest).to_bytes(2, "big") + rest


GOOD: dict[str, tuple[bytes, Address | None]] = {
    "1, IPv4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", Address("192.0.2.1", 12345)),
    "1, IPv6": (b"PROXY TCP6 2001:DB8:0::1 2001:db8::2 12345 443\r\n", Address("2001:db8::1", 12345)),
    "1, IPv4 in IPv6": (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1 2\r\n", Address("192.0.2.1", 1)),
    "1, the longest": (
        b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n",
        Address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    "1, unknown": (b"PROXY UNKNOWN\r\n", None),
    "1, unknown with more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "2, IPv4": (binary(0x21, 0x11, V4), Address("192.0.2.1", 12345)),
    "2, IPv6": (binary(0x21, 0x21, V6), Address("2001:db8::1", 12345)),
    "2, IPv4 in IPv6": (
        binary(0x21, 0x21, bytes(10) + b"\xff\xff\xc0\x00\x02\x01" + bytes(16) + b"\x00\x01\x00\x02"),
        Address("192.0.2.1", 1),
    ),
    "2, with TLVs": (binary(0x21, 0x11, V4 + b"\x04\x00\x03abc" + b"\xea\x00\x00"), Address("192.0.2.1", 12345)),
    "2, with TLVs that are none": (binary(0x21, 0x11, V4 + b"\x04\xff\xff"), Address("192.0.2.1", 12345)),
    "2, the longest": (binary(0x21, 0x11, V4.ljust(MAX_HEADER - 16, b"\n")), Address("192.0.2.1", 12345)),
    "2, the balancer's own": (binary(0x20, 0x00, b""), None),
    "2, the balancer's own, with addresses": (binary(0x20, 0x11, V4), None),
    "2, unspecified": (binary(0x21, 0x00, b"anything"), None),
    "2, a Unix socket": (binary(0x21, 0x31, bytes(216)), None),
}
BAD: dict[str, tuple[bytes, HeaderRefusal]] = {
    "STUN": (b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), HeaderRefusal.MALFORMED),
    "a ClientHello": (b"\x16\x03\x01\x02\x00", HeaderRefusal.MALFORMED),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", HeaderRefusal.MALFORMED),
    "HTTP that begins alike": (b"PROPFIND / HTTP/1.1\r\n", HeaderRefusal.MALFORMED),
    "an empty line": (b"\r\n\r\nGET /", HeaderRefusal.MALFORMED),
    "small letters": (b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", HeaderRefusal.MALFORMED),
    "1, UDP": (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", HeaderRefusal.MALFORMED),
    "1, the other family": (b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", HeaderRefusal.MALFORMED),
    "1, the other family's": (b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", HeaderRefusal.MALFORMED),
    "1, two spaces": (b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", HeaderRefusal.MALFORMED),
    "1, a port that is none": (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", HeaderRefusal.MALFORMED),
    "1, a port with a zero in front": (b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", HeaderRefusal.MALFORMED),
    "1, an address in octal": (b"PROXY TCP4 0300.0.2.1 192.0.2.2 1 2\r\n", HeaderRefusal.MALFORMED),
    "1, a zone": (b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", HeaderRefusal.MALFORMED),
    "1, more behind": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", HeaderRefusal.MALFORMED),
    "1, less": (b"PROXY TCP4 192.0.2.1\r\n", HeaderRefusal.MALFORMED),
    "1, without CR": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", HeaderRefusal.MALFORMED),
    "1, without an end": (b"PROXY UNKNOWN " + b"x" * 200, HeaderRefusal.TOO_LONG),
    "1, one byte too long": (b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n", HeaderRefusal.TOO_LONG),
    "2, version 1": (binary(0x11, 0x11, V4), HeaderRefusal.MALFORMED),
    "2, version 3": (binary(0x31, 0x11, V4), HeaderRefusal.MALFORMED),
    "2, another command": (binary(0x22, 0x11, V4), HeaderRefusal.MALFORMED),
    "2, datagrams": (binary(0x21, 0x12, V4), HeaderRefusal.MALFORMED),
    "2, a family without transport": (binary(0x21, 0x10, V4), HeaderRefusal.MALFORMED),
    "2, another family": (binary(0x21, 0x41, V4), HeaderRefusal.MALFORMED),
    "2, too short for IPv4": (binary(0x21, 0x11, V4[:-1]), HeaderRefusal.MALFORMED),
    "2, too short for IPv6": (binary(0x21, 0x21, V6[:-1]), HeaderRefusal.MALFORMED),
    "2, one byte too long": (binary(0x21, 0x11, V4.ljust(MAX_HEADER - 15, b"\n")), HeaderRefusal.TOO_LONG),
    "2, as long as can be written": (binary(0x20, 0x00, b"")[:14] + b"\xff\xff", HeaderRefusal.TOO_LONG),
}


def read(data: bytes, sizes: list[int]) -> tuple[Address | None, bytes]:
    """The client, and what is left; pieces of these sizes at first, then single bytes."""
    reader, at = HeaderReader(), 0
    pieces = iter(sizes)
    while not reader.whole:
        assert at < len(data), "it asks for more than there is"
        taken = reader.feed(data[at : at + next(pieces, 1)])
        assert taken > 0
        at += taken
    return reader.client, data[at:]


@pytest.mark.parametrize(("header", "client"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("behind", [b"", b"\x00\x01\x00\x00", b"\r\n", b"\n"], ids=["nothing", "STUN", "CRLF", "LF"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_header_is_read_and_nothing_behind_it(
    header: bytes, client: Address | None, behind: bytes, size: int
) -> None:
    assert read(header + behind, [size] * 10_000) == (client, behind)


@pytest.mark.parametrize(("header", "why"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("size", [1, 100_000])
def test_what_is_no_header(header: bytes, why: HeaderRefusal, size: int) -> None:
    with pytest.raises(BadHeader) as caught:
        read(header, [size] * 10_000)
    assert caught.value.refusal is why


@given(st.sampled_from(list(GOOD.values())), st.binary(max_size=20), st.lists(st.integers(1, 60), max_size=40))
def test_in_any_pieces(good: tuple[bytes, Address | None], behind: bytes, sizes: list[int]) -> None:
    header, client = good
    assert read(header + behind, sizes) == (client, behind)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: (SIGNATURE + data)[:300]))
def test_any_bytes_are_bounded(data: bytes) -> None:
    """No reader takes more than the bound, whatever comes."""
    reader, at = HeaderReader(), 0
    try:
        while at < len(data) and not reader.whole:
            at += reader.feed(data[at:])
    except BadHeader:
        pass
    assert at <= MAX_HEADER


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (Address("192.0.2.1", 12345), Address("198.51.100.2", 443)),
        (Address("2001:db8::1", 12345), Address("2001:db8::2", 443)),
        (Address("192.0.2.1", 12345), Address("2001:db8::2", 443)),
        (Address("2001:db8::1", 12345), Address("198.51.100.2", 443)),
        (Address("fe80::1%lo", 1), Address("fe80::2%lo", 443)),
    ],
)
def test_what_is_written_reads_the_same(client: Address, server: Address) -> None:
    assert read(write_header(client, server), [1000]) == (client._replace(host=client.host.partition("%")[0]), b"")


def test_what_is_written_is_the_standards() -> None:
    assert write_header(Address("192.0.2.1", 12345), Address("198.51.100.2", 443)) == GOOD["2, IPv4"][0]
    assert write_header(Address("2001:db8::1", 12345), Address("2001:db8::2", 443)) == GOOD["2, IPv6"][0]
