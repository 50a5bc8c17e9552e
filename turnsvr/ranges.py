"""Ranges of IP addresses and of ports: what is in them. Imports nothing of ours."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable
from typing import TypeAlias

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Range: TypeAlias = tuple[IPAddress, IPAddress]
"""First and last address, inclusive, of one family."""

Ports: TypeAlias = tuple[tuple[int, int], ...]
"""Spans of ports, each its lowest and its highest, inclusive; in order, and apart from one another."""

EVERY_PORT: Ports = ((0, 65_535),)
NO_PORT: Ports = ()


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

    def overlaps(self, first: IPAddress, last: IPAddress) -> bool:
        """Whether any address from first to last is in it."""
        at = bisect_right(self._firsts[first.version], int(last)) - 1
        return at >= 0 and int(first) <= self._lasts[first.version][at]


def network_range(text: str) -> Range:
    """First and last address of a CIDR range, or of one address; raises ValueError."""
    network = ipaddress.ip_network(text)
    return network[0], network[-1]


def joined(*several: Ports) -> Ports:
    """The ports that are in any of them."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(span for ports in several for span in ports):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], high)
        else:
            merged.append((low, high))
    return tuple(merged)


def shared(one: Ports, other: Ports) -> Ports:
    """The ports that are in both."""
    spans = ((max(low, first), min(high, last)) for low, high in one for first, last in other)
    return joined(tuple(span for span in spans if span[0] <= span[1]))


def has_port(ports: Ports, port: int) -> bool:
    return any(low <= port <= high for low, high in ports)
