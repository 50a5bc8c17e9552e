"""Whether a host is this one: the only place that answers it.

This host is every address that its kernel delivers to it: prefixes of routes of type local, not only addresses of
interfaces. Besides them there are the unspecified addresses, by which Linux reaches itself, and the address that
one-to-one NAT puts in the place of one of them: both are names of one host then, and who means one means the other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from turnsvr.ranges import IPAddress, RangeSet, network_range

_ALWAYS = ("0.0.0.0", "::", "127.0.0.0/8", "::1")


class OwnHosts:
    """This host's addresses."""

    def __init__(self, delivered: Iterable[str] = (), external: Mapping[str, str] | None = None) -> None:
        """delivered: addresses and CIDR prefixes. external: by an address of this host, what stands for it elsewhere.

        An external address that is the address itself says nothing. Raises ValueError for what is no address.
        """
        pairs = {ipaddress.ip_address(inner): ipaddress.ip_address(outer) for inner, outer in (external or {}).items()}
        self._outside = {inner: outer for inner, outer in pairs.items() if inner != outer}
        self._inside = {outer: inner for inner, outer in self._outside.items()}
        self._delivered = RangeSet(map(network_range, (*_ALWAYS, *delivered)))

    def __contains__(self, address: IPAddress) -> bool:
        return address in self._delivered or address in self._inside

    def names(self, address: IPAddress) -> frozenset[IPAddress]:
        """The address, and the others that mean the same host."""
        others = (self._outside.get(address), self._inside.get(address))
        return frozenset((address, *(other for other in others if other is not None)))

    def overlaps(self, first: IPAddress, last: IPAddress) -> bool:
        """Whether any address from first to last is this host's."""
        outside = (each for each in self._inside if each.version == first.version)
        return self._delivered.overlaps(first, last) or any(int(first) <= int(each) <= int(last) for each in outside)


LOOPBACK_ALONE = OwnHosts()
"""A host that has loopback alone."""
