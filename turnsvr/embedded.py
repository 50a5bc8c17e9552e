"""IPv4 addresses inside IPv6 addresses: where a packet for the one may end up at the other. Imports nothing of ours."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

_WORD: Final = 0xFFFFFFFF

_LOW_32_PREFIXES: Final = {
    0,  # compatible, ::/96
    0xFFFF,  # mapped, ::ffff:0:0/96
    0xFFFF << 16,  # translated, ::ffff:0:0:0/96, RFC 2765
    0x0064FF9B << 64,  # NAT64, 64:ff9b::/96, RFC 6052
}
_LOCAL_NAT64: Final = 0x0064FF9B0001
"""64:ff9b:1::/48 (RFC 8215), in which a network chooses its prefix."""
_ISATAP: Final = {0x00005EFE, 0x02005EFE}
"""What an interface identifier begins with (RFC 5214 section 6.1)."""


def embedded(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for, by any of the known forms.

    A prefix of NAT64 that a network chose elsewhere cannot be told from any other.
    """
    if isinstance(address, ipaddress.IPv6Address):
        for number in _numbers(int(address)):
            yield ipaddress.IPv4Address(number)


def _numbers(value: int) -> Iterator[int]:
    low = value & _WORD
    if value >> 32 in _LOW_32_PREFIXES and value > 1:  # :: and ::1 are no forms of anything
        yield low
    if value >> 112 == 0x2002:  # 6to4, RFC 3056
        yield value >> 80 & _WORD
    if value >> 96 == 0x20010000:  # Teredo, RFC 4380: server, and client inverted
        yield value >> 64 & _WORD
        yield low ^ _WORD
    if value >> 32 & _WORD in _ISATAP:
        yield low
    if value >> 80 == _LOCAL_NAT64:
        yield from _local_nat64(value)


def _local_nat64(value: int) -> Iterator[int]:
    """By every length that the prefix may have (RFC 6052 section 2.2), since the address does not tell which it is.

    A reading that is in 0.0.0.0/8, where no host is, is left out, for it comes of zeros after another's address; if all
    are, they stand. Translators do not look at what follows the address, so that zeros there decide nothing.
    """
    whole = value.to_bytes(16, "big")
    without_u = whole[:8] + whole[9:]  # bits 64 to 71, which no IPv4 address has a part in
    readings = (without_u[6:10], without_u[7:11], without_u[8:12], whole[12:])
    numbers = {int.from_bytes(reading, "big") for reading in readings}
    yield from {number for number in numbers if number >> 24} or numbers
