"""Traced messages as a capture that Wireshark and tcpdump read: pcapng, with IP, UDP and TCP headers made up for them.

What came over TLS or DTLS stands there as it was inside, from or to port 3478, where programs look for STUN. A TCP
connection has no handshake in it; its sequence numbers count from 1.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, BinaryIO, Final

_RAW_IP: Final = 101
"""LINKTYPE_RAW: packets begin with their IP header."""
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_COMMENT, _APPLICATION, _NAME = 1, 4, 2
_STUN_PORT: Final = 3478
_HOPS: Final = 64
_TCP, _UDP = 6, 17
_PUSH_ACK: Final = 0x18
_WINDOW: Final = 65_535
_MOST: Final = 65_535

_Endpoint = tuple[bytes, int]


class Capture:
    """Writes what it is given at once, so that a pipe sees it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sent: dict[tuple[_Endpoint, _Endpoint], int] = {}
        """Bytes of each direction of a TCP connection so far."""
        head = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        note = "What would prove who a client is has been made zeros; TLS and DTLS are shown as they were inside."
        self._write(_SECTION, head + _options((_APPLICATION, "turnsvr trace"), (_COMMENT, note)))
        self._write(_INTERFACE, struct.pack("<HHI", _RAW_IP, 0, 0) + _options((_NAME, "turnsvr")))

    def add(self, event: Mapping[str, Any]) -> None:
        """An event of a trace, its bytes as bytes."""
        data = event["bytes"]
        if event["what"] == "packet":
            near, far = _endpoint(event["relayed"]), _endpoint(event["peer"])
            ends = (near, far) if event["from_client"] else (far, near)
            self._add(event["at"], _UDP, *ends, data, event["size"], f"session {event['session']}, with a peer")
            return
        client, server = _endpoint(event["client"]), _endpoint(event["server"])
        note = f"over {event['transport'].upper()}"
        if event["transport"] in ("tls", "dtls"):
            note += f", server port {server[1]}"
            server = server[0], _STUN_PORT
        if event["session"] is not None:
            note += f", session {event['session']}"
        ends = (client, server) if event["from_client"] else (server, client)
        protocol = _TCP if event["transport"] in ("tcp", "tls") else _UDP
        self._add(event["at"], protocol, *ends, data, len(data), note)

    def _add(
        self, at: float, protocol: int, source: _Endpoint, target: _Endpoint, data: bytes, size: int, note: str
    ) -> None:
        """size: of the whole, of which data is the beginning."""
        if len(source[0]) != len(target[0]):
            return
        if protocol == _TCP:
            sent = self._sent.get((source, target), 0)
            got = self._sent.get((target, source), 0)
            self._sent[source, target] = sent + size
            numbers = sent + 1 & 0xFFFFFFFF, got + 1 & 0xFFFFFFFF
            segment = struct.pack("!HHIIBBHHH", source[1], target[1], *numbers, 0x50, _PUSH_ACK, _WINDOW, 0, 0)
            at_checksum = 16
        else:
            segment = struct.pack("!HHHH", source[1], target[1], min(8 + size, _MOST), 0)
            at_checksum = 6
        length = len(segment) + size
        if size == len(data):
            checksum = _checksum(_pseudo(source[0], target[0], length, protocol) + segment + data) or 0xFFFF
            segment = segment[:at_checksum] + checksum.to_bytes(2, "big") + segment[at_checksum + 2 :]
        header = _ip(source[0], target[0], length, protocol)
        captured = header + segment + data
        moment = int(at * 1_000_000)
        fixed = struct.pack("<IIIII", 0, moment >> 32, moment & 0xFFFFFFFF, len(captured), len(header) + length)
        self._write(_PACKET, fixed + _padded(captured) + _options((_COMMENT, note)))

    def _write(self, kind: int, body: bytes) -> None:
        size = len(body) + 12
        self._file.write(struct.pack("<II", kind, size) + body + struct.pack("<I", size))
        self._file.flush()


def _ip(source: bytes, target: bytes, length: int, protocol: int) -> bytes:
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, min(length, _MOST), protocol, _HOPS) + source + target
    whole = min(20 + length, _MOST)
    header = struct.pack("!BBHHHBBH", 0x45, 0, whole, 0, 0, _HOPS, protocol, 0) + source + target
    return header[:10] + _checksum(header).to_bytes(2, "big") + header[12:]


def _pseudo(source: bytes, target: bytes, length: int, protocol: int) -> bytes:
    """What the checksum of UDP and TCP covers besides the segment."""
    if len(source) == 16:
        return source + target + struct.pack("!II", length, protocol)
    return source + target + struct.pack("!HH", protocol, length & 0xFFFF)


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _options(*options: tuple[int, str]) -> bytes:
    parts = [struct.pack("<HH", number, len(text.encode())) + _padded(text.encode()) for number, text in options]
    return b"".join(parts) + bytes(4)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _endpoint(text: str) -> _Endpoint:
    """Of `192.0.2.1:3478` or `[2001:db8::1]:3478`, with a zone perhaps."""
    host, _, port = text.rpartition(":")
    return ip_address(host.strip("[]").partition("%")[0]).packed, int(port)
