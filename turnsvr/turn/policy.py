"""Which peers an allocation may reach. Refused unless the operator allows it by name: everything that is not public.

The ranges are those of special.py; an IPv4 address inside an IPv6 form (mapped, compatible, translated, 6to4, NAT64,
Teredo) is judged by both.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from turnsvr.special import SPECIAL_RANGES

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Range = tuple[IPAddress, IPAddress]
"""First and last address, inclusive, of one family."""


class RangeSet:
    """Addresses in any of some ranges; a look-up is a binary search over merged ranges."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._firsts: dict[int, list[int]] = {4: [], 6: []}
        self._lasts: dict[int, list[int]] = {4: [], 6: []}
        for first, last in sorted(ranges, key=lambda pair: (pair[0].version, int(pair[0]))):
            firsts, lasts = self._firsts[first.version], self._lasts[first.version]
            if lasts and int(first) <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], int(last))
            else:
                firsts.append(int(first))
                lasts.append(int(last))

    def __contains__(self, address: IPAddress) -> bool:
        at = bisect_right(self._firsts[address.version], int(address)) - 1
        return at >= 0 and int(address) <= self._lasts[address.version][at]


def network_range(text: str) -> Range:
    """First and last address of a CIDR range; raises ValueError."""
    network = ipaddress.ip_network(text)
    return network[0], network[-1]


NOTHING = RangeSet(())

SPECIAL = RangeSet(map(network_range, SPECIAL_RANGES.split()))
"""What is refused by default."""


def embedded(address: IPAddress) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for, by any of the known forms."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    value = int(address)
    low = ipaddress.IPv4Address(value & 0xFFFFFFFF)
    if value >> 32 in _LOW_32_PREFIXES:
        yield low
    if value >> 112 == 0x2002:  # 6to4, RFC 3056
        yield ipaddress.IPv4Address(value >> 80 & 0xFFFFFFFF)
    if value >> 96 == 0x20010000:  # Teredo, RFC 4380: server, and client inverted
        yield ipaddress.IPv4Address(value >> 64 & 0xFFFFFFFF)
        yield ipaddress.IPv4Address(int(low) ^ 0xFFFFFFFF)


_LOW_32_PREFIXES = {
    0,  # compatible, ::/96
    0xFFFF,  # mapped, ::ffff:0:0/96
    0xFFFF << 16,  # translated, ::ffff:0:0:0/96, RFC 2765
    0x0064FF9B << 64,  # NAT64, 64:ff9b::/96, RFC 6052
}


@dataclass(frozen=True)
class PeerPolicy:
    """Judges peer addresses: allowed ranges win over denied ones, and both over the default refusals.

    own: this server's addresses, refused whatever is allowed. relays: those that are advertised as relayed transport
    addresses; a permission for one is granted, because two clients of this server meet there, and the pump lets
    packets through to live allocations only. An allowed range is allowed in its plain spelling: it opens no
    IPv6 form of an IPv4 address.
    """

    allow: RangeSet = NOTHING
    deny: RangeSet = NOTHING
    own: frozenset[str] = frozenset()
    relays: frozenset[str] = frozenset()

    def refusal(self, host: str) -> str | None:
        """Why a peer at this canonical IP address is refused, or None when it is allowed."""
        return _refusal(self, host)

    # The cache below is keyed by the policy itself; one policy lives for long, and is compared by identity.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


@lru_cache(maxsize=4096)
def _refusal(policy: PeerPolicy, host: str) -> str | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "not an IP address"
    if host in policy.relays:
        return None
    if host in policy.own:
        return "an address of this server"
    if address in policy.allow:
        return None
    if address in policy.deny:
        return "denied by peers.deny"
    for inner in embedded(address):
        if inner in policy.deny or inner in SPECIAL or str(inner) in policy.own:
            return f"an IPv6 form of {inner}"
    if address in SPECIAL:
        return "a private or special-purpose range"
    return None
