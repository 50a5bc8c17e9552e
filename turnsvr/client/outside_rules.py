"""What it means that others do or do not reach a relayed address: the cause, and what to do. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from turnsvr.client.transaction import ClientError
from turnsvr.stun.address import Address

_EXTERNAL = "relay.external (in coturn external-ip)"
_PORTS = "relay.ports (49152-65535 by default; in coturn min-port to max-port)"
_ELSEWHERE = (
    "its own packets pass no firewall, and it counts as no peer: run the probe on another machine, in another network"
)


class NotReached(ClientError):
    """Others cannot reach the relayed address; the text says what did not arrive, advice what to do."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen once packets had been sent for long enough."""

    relayed: Address
    server: str
    """IP address at which the server was asked."""
    mapped: str
    """IP address of this host, as the server sees it."""
    arrived: bool = False
    """Whether a packet of this host came through the relayed address."""
    relay_source: Address | None = None
    """Where packets of the relay come from, as far as one arrived here."""
    by_server_address: bool = False
    """Whether a packet to the same port of the server's own address came through, in place of the relayed one."""
    same_host: bool = False
    """Whether the server runs on this host."""

    @property
    def elsewhere(self) -> str | None:
        """The address that the relay has in truth, where it is another than clients are told."""
        if self.relay_source is not None and self.relay_source.host != self.relayed.host:
            return self.relay_source.host
        return self.server if self.by_server_address else None


def explain(seen: Evidence) -> NotReached:
    """What keeps others out, as far as it was seen: one of the two usual causes, or either."""
    relayed, elsewhere = seen.relayed, seen.elsewhere
    text = f"no packet from this host ({seen.mapped}) arrived at the relayed address {relayed}"
    if elsewhere is not None:
        if seen.arrived:
            text = f"packets of the relay come from {elsewhere}, and clients are told {relayed.host}"
        advice = f"correct {_EXTERNAL}: {relayed.host} is not where the relay is, {elsewhere} is"
        if seen.by_server_address:
            advice += f". The other usual cause, a firewall that drops UDP to {_PORTS}, it is not"
    elif seen.arrived:
        text = f"what this host ({seen.mapped}) sent to {relayed} arrived, and the answer was lost on its way back"
        advice = f"let UDP from {_PORTS} out of the server's firewall, and look whether {_EXTERNAL} is right"
    elif seen.relay_source is not None or relayed.host == seen.server:
        advice = (
            f"open UDP to {_PORTS} in the server's firewall or security group, and forward it where a router is in "
            f"front. The other usual cause, {_EXTERNAL}, is right: {relayed.host} is the server's address"
        )
    else:
        advice = (
            f"two usual causes: {_EXTERNAL} is wrong or missing, so that {relayed.host} is not the server's public "
            f"address; or a firewall or security group drops UDP to {_PORTS}, which have to be open"
        )
    return NotReached(text, advice + _reservation(seen))


def _reservation(seen: Evidence) -> str:
    """What would look the same from here although nothing is wrong."""
    inside = seen.same_host or is_private(seen.mapped)
    if not inside or seen.arrived or seen.relayed.host == seen.server:
        return ""
    return (
        f". This host is seen at {seen.mapped}: in a private network behind the same router as the server, a router "
        "that does not hairpin looks the same, and a probe from elsewhere tells"
    )


def tcp_ports(relayed: str, *, refused: bool) -> str:
    """What to do where no TCP connection comes to a relayed address."""
    if refused:
        return f"correct {_EXTERNAL} if {relayed} is another host's address, or look whether a router forwards {_PORTS}"
    return f"open TCP to {_PORTS} in the server's firewall or security group, as peers connect there (RFC 6062)"


def own_host() -> str:
    """Why nothing is told by packets that never left the server's host."""
    return f"this is the server's own host: {_ELSEWHERE}"


def own_address(mapped: str) -> str:
    """Why nothing is told from where the server sees one of its own addresses."""
    return f"this host is seen at {mapped}, an address of the server: {_ELSEWHERE}"


def forbidden(mapped: str) -> str:
    """Why the server refuses this host as a peer, and what would help."""
    if is_private(mapped):
        return (
            f"the server refuses {mapped}, the private address at which it sees this host, as a peer (403), as a "
            "public server should: run the probe from a public network, or allow it with "
            f'peers: {{allow: "{mapped}"}} (in coturn allowed-peer-ip)'
        )
    return (
        f"the server refuses {mapped}, the address at which it sees this host, as a peer (403): look at peers.deny "
        "(in coturn denied-peer-ip), or run the probe from another network"
    )


def no_udp() -> str:
    """Why nothing is told where neither the server nor the relay was heard of over UDP."""
    return (
        "the server answers no UDP of this host, which may be this network's doing: whether others reach a relayed "
        "address is told from a network that lets UDP out"
    )


def no_address(family: str) -> str:
    """family: IPv4 or IPv6, of the relayed address."""
    return (
        f"the relayed address is of {family}, and this host has no {family} address that the server could tell: name "
        f"the server by its {family} address"
    )


def is_private(host: str) -> bool:
    """Whether this IP address is private, or in another special-purpose range."""
    return not ipaddress.ip_address(host.partition("%")[0]).is_global
