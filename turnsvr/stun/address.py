"""Transport addresses as values: what a socket calls (host, port) and the wire calls an address attribute."""

from __future__ import annotations

import socket
from enum import Enum, IntEnum
from typing import Final, NamedTuple

from turnsvr.stun.errors import MalformedMessage


class Family(IntEnum):
    """Address family as STUN numbers it (RFC 8489 section 14.1)."""

    IPV4 = 0x01
    IPV6 = 0x02

    @property
    def socket_family(self) -> socket.AddressFamily:
        return socket.AF_INET if self is Family.IPV4 else socket.AF_INET6


class Transport(Enum):
    """What carries a client's messages to the server."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"
    DTLS = "dtls"

    # Five-tuples are dictionary keys for every packet that reaches Python; Enum's own hash is slow.
    __hash__ = object.__hash__

    @property
    def is_stream(self) -> bool:
        return self is Transport.TCP or self is Transport.TLS

    @property
    def is_encrypted(self) -> bool:
        return self is Transport.TLS or self is Transport.DTLS

    @property
    def is_proven(self) -> bool:
        """Whether a client whose message came receives at its address, so that this is not forged."""
        return self is not Transport.UDP


class Address(NamedTuple):
    """A transport address: host in the canonical text of inet_ntop, port 0..65535.

    A link-local IPv6 host may carry its zone ("fe80::1%eth0"); the zone never goes on the wire.
    """

    host: str
    port: int

    @property
    def family(self) -> Family:
        return family_of(self.host)

    @property
    def packed(self) -> bytes:
        """The IP address as 4 or 16 bytes in network order."""
        return pack_host(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class FiveTuple(NamedTuple):
    """Who a client is: its address, the server's, the transport between them (RFC 8656 section 2), and the connection.

    Two connections may have the same addresses, one after the other; an association of DTLS is one as well. connection
    tells them apart: a number, 1 to 2**32 - 1, that no other one has had lately; 0 over UDP, which has none. What waits
    for a client, or goes between threads, names it by this value: nothing that is late for one connection is taken for
    the next one's.
    """

    transport: Transport
    client: Address
    server: Address
    connection: int = 0

    def __str__(self) -> str:
        return f"{self.transport.value} {self.client} -> {self.server}"


def family_of(host: str) -> Family:
    """The family of an IP address as text."""
    return Family.IPV6 if ":" in host else Family.IPV4


def pack_host(host: str) -> bytes:
    """IP address text to 4 or 16 bytes; raises OSError when it is no IP address."""
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return socket.inet_pton(socket.AF_INET, host)


def unpack_host(packed: bytes) -> str:
    """4 or 16 bytes to canonical IP address text."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def pack_address(address: Address) -> bytes:
    """MAPPED-ADDRESS value: a zero byte, family, port, address (RFC 8489 section 14.1)."""
    packed = pack_host(address.host)
    return _FAMILIES[len(packed)] + address.port.to_bytes(2, "big") + packed


def unpack_address(value: bytes) -> Address:
    """The address in a MAPPED-ADDRESS value; raises MalformedMessage."""
    _check_address(value)
    return Address(unpack_host(value[4:]), value[2] << 8 | value[3])


def pack_xor_address(address: Address, mask: bytes) -> bytes:
    """XOR-MAPPED-ADDRESS value; mask is magic cookie and transaction id, 16 bytes (RFC 8489 section 14.2)."""
    packed = pack_host(address.host)
    port = address.port ^ (mask[0] << 8 | mask[1])
    return _FAMILIES[len(packed)] + port.to_bytes(2, "big") + _xor(packed, mask)


def unpack_xor_address(value: bytes, mask: bytes) -> Address:
    """The address in a XOR-MAPPED-ADDRESS value; raises MalformedMessage."""
    _check_address(value)
    port = (value[2] ^ mask[0]) << 8 | value[3] ^ mask[1]
    return Address(unpack_host(_xor(value[4:], mask)), port)


def _xor(packed: bytes, mask: bytes) -> bytes:
    return bytes([packed[at] ^ mask[at] for at in range(len(packed))])


_FAMILIES: Final = {4: bytes((0, Family.IPV4)), 16: bytes((0, Family.IPV6))}
"""A zero byte and the family, by the size of an IP address."""
_ADDRESS_SIZES: Final = {0x01: 8, 0x02: 20}


def _check_address(value: bytes) -> None:
    if len(value) < 4 or _ADDRESS_SIZES.get(value[1]) != len(value):
        raise MalformedMessage(f"address attribute of {len(value)} bytes with family {value[1:2].hex() or 'none'}")
