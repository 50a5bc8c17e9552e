"""The header of the PROXY protocol, versions 1 and 2: bytes to the client's address and back, without sockets.

It is what a balancer writes in front of a TCP connection's first byte (HAProxy's doc/proxy-protocol.txt, 2.1 and 2.2).
Only the address is used; the TLVs of version 2 are skipped.
"""

from __future__ import annotations

import ipaddress
import re
from enum import Enum

from turnsvr.stun.address import Address, Family, family_of, pack_host, unpack_host

MAX_HEADER = 4_096
"""Bytes of a header, with its TLVs; version 1 has no more than 107 of them."""
_MAX_LINE = 107
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_WORD = b"PROXY "
_FIXED = 16
"""Bytes of version 2 in front of the addresses."""
_VERSION = 0x20
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES = {_TCP4: 4, _TCP6: 16}
"""Bytes of one IP address, by family and transport, of what can have come to a TCP listener."""
_LEAST = {family: 2 * size + 4 for family, size in _ADDRESSES.items()}
"""Bytes of both addresses with their ports."""
_WITHOUT_ADDRESS = {0x00, 0x31, 0x32}
"""Families that name no IP address: unspecified, and Unix sockets."""
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) "
    rb"(0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)


class HeaderRefusal(Enum):
    """Why a connection is refused where a header is asked for."""

    UNTRUSTED = "untrusted"
    """It comes from an address that may not write headers."""
    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    LATE = "late"
    """The header was not whole in time."""
    ENDED = "ended"
    """The connection ended before the header did."""


class BadHeader(Exception):
    """What came is no header, or none that is taken."""

    def __init__(self, refusal: HeaderRefusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class HeaderReader:
    """Reads one header from bytes that come in any pieces."""

    def __init__(self) -> None:
        self.whole = False
        self.client: Address | None = None
        """The client, once the header is whole; None where it names none (LOCAL, UNKNOWN), and the connection is the
        balancer's own."""
        self._taken = b""

    def feed(self, data: bytes) -> int:
        """How many of these bytes, which follow those taken before, belong to the header; at least one does.

        data is not empty, and the header not whole yet. Raises BadHeader.
        """
        seen = self._taken + data
        size = _size(seen)
        taken = min(size, len(seen)) - len(self._taken)
        self._taken = seen[:size]
        if len(self._taken) == size and _is_size_known(seen):
            self.client = _client(self._taken)
            self.whole = True
        return taken


def write_header(client: Address, server: Address) -> bytes:
    """Version 2 for a TCP connection of this client to this address of ours."""
    family = _TCP4 if client.family is Family.IPV4 and server.family is Family.IPV4 else _TCP6
    size = _ADDRESSES[family]
    hosts = b"".join(_widened(pack_host(each.host), size) for each in (client, server))
    ports = b"".join(each.port.to_bytes(2, "big") for each in (client, server))
    rest = hosts + ports
    return _SIGNATURE + bytes((_PROXY, family)) + len(rest).to_bytes(2, "big") + rest


def _widened(packed: bytes, size: int) -> bytes:
    """An IPv4 address as an IPv6 one where the other is one."""
    return packed if len(packed) == size else bytes(10) + b"\xff\xff" + packed


def _is_size_known(seen: bytes) -> bool:
    return len(seen) >= _FIXED if seen[:1] == _SIGNATURE[:1] else b"\n" in seen[:_MAX_LINE]


def _size(seen: bytes) -> int:
    """Bytes of the header, or as many as it has at least. Raises BadHeader as soon as it can be none."""
    if seen[:1] == _SIGNATURE[:1]:
        return _binary_size(seen)
    if not (seen.startswith(_WORD) or _WORD.startswith(seen)):
        raise BadHeader(HeaderRefusal.MALFORMED)
    end = seen.find(b"\n", 0, _MAX_LINE) + 1
    if not end and len(seen) >= _MAX_LINE:
        raise BadHeader(HeaderRefusal.TOO_LONG)
    return end or len(seen)


def _binary_size(seen: bytes) -> int:
    if not (seen.startswith(_SIGNATURE) or _SIGNATURE.startswith(seen)):
        raise BadHeader(HeaderRefusal.MALFORMED)
    if len(seen) < _FIXED:
        return _FIXED
    command, family = seen[12], seen[13]
    rest = int.from_bytes(seen[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise BadHeader(HeaderRefusal.MALFORMED)
    if command == _PROXY and family not in _WITHOUT_ADDRESS and rest < _LEAST.get(family, rest + 1):
        raise BadHeader(HeaderRefusal.MALFORMED)
    if _FIXED + rest > MAX_HEADER:
        raise BadHeader(HeaderRefusal.TOO_LONG)
    return _FIXED + rest


def _client(header: bytes) -> Address | None:
    """Of a whole header. Raises BadHeader."""
    if not header.startswith(_SIGNATURE):
        return _client_of_line(header)
    size = _ADDRESSES.get(header[13])
    if header[12] == _LOCAL or size is None:
        return None
    port = int.from_bytes(header[_FIXED + 2 * size : _FIXED + 2 * size + 2], "big")
    return Address(_plain_host(unpack_host(header[_FIXED : _FIXED + size])), port)


def _client_of_line(line: bytes) -> Address | None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadHeader(HeaderRefusal.MALFORMED)
    if match[1] is None:
        return None
    kind = ipaddress.IPv4Address if match[1] == b"4" else ipaddress.IPv6Address
    try:
        source, _ = (str(kind(each.decode())) for each in match.group(2, 3))
    except ValueError:
        raise BadHeader(HeaderRefusal.MALFORMED) from None
    ports = [int(each) for each in match.group(4, 5)]
    if max(ports) > 0xFFFF:
        raise BadHeader(HeaderRefusal.MALFORMED)
    return Address(_plain_host(unpack_host(pack_host(source))), ports[0])


def _plain_host(host: str) -> str:
    """The IPv4 address that an IPv6 socket has for a client of IPv4, so that it counts as the one that it is."""
    if family_of(host) is Family.IPV6:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return host
