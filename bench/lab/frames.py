"""UDP datagrams in Ethernet frames, made and read here without a line of the server: what the programs are held to."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Literal

from turnsvr.stun.address import Address

Check = Literal["right", "none", "partial", "wrong"]


@dataclass(frozen=True, slots=True)
class Datagram:
    """What a frame holds, but for what two servers would choose each for itself: identification and flow label."""

    source: Address
    destination: Address
    data: bytes
    to_mac: bytes = bytes(6)
    from_mac: bytes = bytes(6)
    tos: int = 0
    ttl: int = 64
    dont_fragment: bool = False

    def frame(self, check: Check = "right", *, options: bytes = b"", fragment: int = 0, least: int = 60) -> bytes:
        """options: of IPv4, or an IPv6 extension header. fragment: the IPv4 field. least: bytes of the frame."""
        body = self._udp(check)
        ip = self._ipv6(body, options) if ":" in self.source.host else self._ipv4(body, options, fragment)
        kind = b"\x86\xdd" if ":" in self.source.host else b"\x08\x00"
        return (self.to_mac + self.from_mac + kind + ip + body).ljust(least, b"\xee")

    def _udp(self, check: Check) -> bytes:
        size = 8 + len(self.data)
        pseudo = _packed(self.source) + _packed(self.destination) + struct.pack("!HH", 17, size)
        head = struct.pack("!HHHH", self.source.port, self.destination.port, size, 0)
        number = {
            "right": 0xFFFF - total(pseudo + head + self.data) or 0xFFFF,
            "none": 0,
            "partial": total(pseudo),
            "wrong": (0xFFFF - total(pseudo + head + self.data)) ^ 0x5555,
        }[check]
        return head[:6] + struct.pack("!H", number) + self.data

    def _ipv4(self, body: bytes, options: bytes, fragment: int) -> bytes:
        words = (20 + len(options)) // 4
        fragment |= 0x4000 if self.dont_fragment else 0
        size = words * 4 + len(body)
        head = struct.pack("!BBHHHBBH", 0x40 | words, self.tos, size, 0x1234, fragment, self.ttl, 17, 0)
        rest = _packed(self.source) + _packed(self.destination) + options
        return head[:10] + struct.pack("!H", 0xFFFF - total(head + rest)) + rest

    def _ipv6(self, body: bytes, options: bytes) -> bytes:
        first = 6 << 28 | self.tos << 20 | 0x54321
        next_header = 60 if options else 17
        head = struct.pack("!IHBB", first, len(options) + len(body), next_header, self.ttl)
        return head + _packed(self.source) + _packed(self.destination) + options


def read(frame: bytes) -> Datagram:
    """The datagram of a frame that is right in all its lengths and checksums, and ends where the datagram does."""
    if frame[12:14] == b"\x08\x00":
        version, tos, size, _, fragment, ttl, protocol, _ = struct.unpack("!BBHHHBBH", frame[14:26])
        assert (version, protocol, fragment & ~0x4000) == (0x45, 17, 0), frame.hex()
        assert total(frame[14:34]) == 0xFFFF, "checksum of the IPv4 header"
        source, destination = (socket.inet_ntop(socket.AF_INET, frame[at : at + 4]) for at in (26, 30))
        body, dont_fragment = frame[34 : 14 + size], bool(fragment & 0x4000)
    else:
        assert frame[12:14] == b"\x86\xdd", frame.hex()
        first, size, protocol, ttl = struct.unpack("!IHBB", frame[14:22])
        assert (first >> 28, protocol) == (6, 17), frame.hex()
        tos = first >> 20 & 0xFF
        source, destination = (socket.inet_ntop(socket.AF_INET6, frame[at : at + 16]) for at in (22, 38))
        size, body, dont_fragment = size + 40, frame[54 : 54 + size], False
    assert len(frame) == 14 + size, (len(frame), size)
    from_port, to_port, udp_size, check = struct.unpack("!HHHH", body[:8])
    assert udp_size == len(body), (udp_size, len(body))
    one, other = Address(source, from_port), Address(destination, to_port)
    assert check, "a checksum of zero"
    assert total(_packed(one) + _packed(other) + struct.pack("!HH", 17, udp_size) + body) == 0xFFFF, "UDP checksum"
    return Datagram(one, other, body[8:], frame[:6], frame[6:12], tos, ttl, dont_fragment)


def channel_data(number: int, data: bytes, trailing: bytes = b"") -> bytes:
    return struct.pack("!HH", number, len(data)) + data + trailing


def total(data: bytes) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071)."""
    data += bytes(len(data) % 2)
    number: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while number > 0xFFFF:
        number = (number & 0xFFFF) + (number >> 16)
    return number


def _packed(address: Address) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address.host else socket.AF_INET, address.host)
