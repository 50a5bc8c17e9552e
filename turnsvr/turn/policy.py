"""Which peers an allocation may reach, and at which ports.

Refused unless the operator allows it: everything that is not public (the ranges of special_purpose.py). Refused unless
the operator names exactly that address: this host (own.py), where an allowed range opens nothing. An IPv4 address
inside an IPv6 form (embedded.py) is judged as well, also where the form is allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from turnsvr.embedded import embedded
from turnsvr.own import LOOPBACK_ALONE, OwnHosts
from turnsvr.ranges import (
    EVERY_PORT,
    NO_PORT,
    IPAddress,
    Ports,
    Range,
    RangeSet,
    has_port,
    joined,
    network_range,
    shared,
)
from turnsvr.special_purpose import SPECIAL_PURPOSE_RANGES

__all__ = ["NOTHING", "SPECIAL_PURPOSE", "HostVerdict", "PeerPolicy", "Range", "RangeSet", "embedded", "network_range"]

NOTHING = RangeSet(())

SPECIAL_PURPOSE = RangeSet(map(network_range, SPECIAL_PURPOSE_RANGES.split()))
"""What is refused by default."""


class HostVerdict(NamedTuple):
    """What a policy says of a host: why it is refused, or None; and the ports at which it may be reached.

    Without any port and without a reason, only relayed transport addresses of this server may be reached there.
    """

    reason: str | None
    ports: Ports


@dataclass(frozen=True)
class PeerPolicy:
    """Judges peer addresses: allowed ranges win over denied ones, and both over the default refusals.

    named: the ports of single addresses that the operator names; these hold for this host too. own: this host, refused
    but for them. relays: hosts that are advertised as relayed transport addresses; a permission for one is granted,
    because two clients of this server meet there, and the pump lets packets through to live allocations only.
    relay_ports: where those are. An allowed range is allowed in its plain spelling: it opens no IPv6 form of an IPv4
    address.
    """

    allow: RangeSet = NOTHING
    deny: RangeSet = NOTHING
    named: Mapping[IPAddress, Ports] = field(default_factory=dict)
    own: OwnHosts = LOOPBACK_ALONE
    relays: frozenset[str] = frozenset()
    relay_ports: Ports = EVERY_PORT

    def refusal(self, host: str, port: int | None = None) -> str | None:
        """Why a peer at this canonical IP address is refused, and at this port, or None when it is allowed."""
        verdict = _verdict(self, host)
        if verdict.reason is not None or port is None or has_port(verdict.ports, port):
            return verdict.reason
        if host in self.relays and has_port(self.relay_ports, port):
            return None
        return "a port that peers.allow does not name"

    def ports(self, host: str) -> Ports:
        """The ports at which a peer at this canonical IP address may be reached over the network; none if refused."""
        return _verdict(self, host).ports

    # The cache below is keyed by the policy itself; one policy lives for long, and is compared by identity.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


@lru_cache(maxsize=4096)
def _verdict(policy: PeerPolicy, host: str) -> HostVerdict:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _refused("not an IP address")
    if address in policy.own:
        named = joined(*(policy.named.get(name, NO_PORT) for name in policy.own.names(address)))
        if named or host in policy.relays:
            return HostVerdict(None, named)
        return _refused("an address of this server")
    verdict = _elsewhere(policy, address)
    for inner in embedded(address):
        ports = NO_PORT if inner in policy.own else _elsewhere(policy, inner).ports
        verdict = HostVerdict(verdict.reason, shared(verdict.ports, ports))
        if not ports or not (verdict.ports or verdict.reason):
            return _refused(f"an IPv6 form of {inner}")
    return verdict


def _elsewhere(policy: PeerPolicy, address: IPAddress) -> HostVerdict:
    """The same for an address that is not this host's, without regard to what is inside."""
    if address in policy.allow:
        return HostVerdict(None, EVERY_PORT)
    if address in policy.deny:
        reason = "denied by peers.deny"
    elif address in SPECIAL_PURPOSE:
        reason = "a private or special-purpose range"
    else:
        return HostVerdict(None, EVERY_PORT)
    named = policy.named.get(address, NO_PORT)
    return HostVerdict(None, named) if named else _refused(reason)


def _refused(reason: str) -> HostVerdict:
    return HostVerdict(reason, NO_PORT)
