"""What the rules are told: limits, lifetimes, and what is served. Plain values with safe defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from turnsvr.stun.address import Address, Family, family_of
from turnsvr.stun.framing import CHANNEL_LAST_5766
from turnsvr.turn.policy import PeerPolicy


@dataclass(frozen=True, slots=True)
class Redirect:
    """300 Try Alternate on Allocate (RFC 8489 section 10).

    One address of the client's family is named, in turn. always: for every Allocate; else only when this server
    is full or draining.
    """

    to: tuple[Address, ...]
    domain: str | None = None
    always: bool = False


@dataclass(frozen=True, slots=True)
class OtherAddress:
    """The other IP address and port of a listener, for the tests of RFC 5780; no host where there is but one."""

    host: str | None
    port: int


class Listener(NamedTuple):
    """Where clients are served: over UDP or as a stream (TCP and TLS share a port), and where; a wildcard host too."""

    is_stream: bool
    address: Address


@dataclass(frozen=True, slots=True)
class RealmConfig:
    """One realm: which peers its users may reach, and how much they may take."""

    name: str
    policy: PeerPolicy = field(default_factory=PeerPolicy)
    allocations: int = 0
    """Of all its users, within those of the server; 0 for no bound of its own."""
    allocations_per_user: int = 12
    """0 for no limit."""
    bandwidth: float | None = None
    """Bytes a second each way of one allocation, 0 for no limit; None for what the data plane is set to.

    Another one holds for allocations that are made from then on.
    """


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What the rules go by."""

    realm: RealmConfig
    """The realm of clients for which no listener and no ORIGIN chooses another."""
    realms: Mapping[str, RealmConfig] = field(default_factory=dict)
    """Other realms by name."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Realm by ORIGIN in its normal form (turnsvr/origin.py)."""
    listeners: Mapping[Listener, str] = field(default_factory=dict)
    """Realm by listener; a packet that came in at a wildcard one carries the address that it was sent to."""
    families: frozenset[Family] = frozenset(Family)
    """Families with a relay address; empty where only STUN is served."""
    default_family: Family | None = Family.IPV4
    """What a client is given that names no family; None for that of its own address, where it is served."""
    allocations: int = 10_000
    """Of all realms."""
    allocation_rate_per_user: float = 100.0
    """Allocations a second that one user may make, and ten seconds' worth at once; 0 for no limit."""
    permissions_per_allocation: int = 256
    channels_per_allocation: int = 256
    reservations: int = 1024
    tcp: bool = False
    """Whether peers may be reached over TCP (RFC 6062)."""
    peer_connections: int = 2_000
    """To peers, of all allocations."""
    peer_connections_per_user: int = 256
    peer_connections_per_allocation: int = 64
    peer_connects_per_allocation: int = 8
    """Of these, those that are being made."""
    peer_attempts_per_allocation: int = 16
    """Of these, those that no connection of the client is bound to yet; half of them of one peer's host."""
    peer_connect_rate_per_user: float = 5.0
    """Connect requests a second of one user, and ten seconds' worth at once; 0 for no limit."""
    peer_connect_rate_per_address: float = 20.0
    """The same of one client address."""
    max_lifetime: int = 3600
    """Seconds."""
    nonce_lifetime: float = 3600.0
    """Seconds."""
    channel_last: int = CHANNEL_LAST_5766
    software: str | None = "turnsvr"
    rfc3489: bool = False
    icmp_indications: bool = False
    """Whether clients are told of ICMP errors (RFC 8656 section 11.5)."""
    anonymity: bool = False
    """Whether USERHASH can be resolved for every user of every realm."""
    md5_first: bool = False
    """Whether MD5 is offered before SHA-256: where MD5 keys alone are known of users."""
    access_tokens: str | None = None
    """This server's name in THIRD-PARTY-AUTHORIZATION, empty for that of the realm; None where no access tokens are
    taken (RFC 7635)."""
    mobility: bool = False
    """Whether allocations may go with their clients to other five-tuples (RFC 8016)."""
    redirect: Redirect | None = None
    other_addresses: Mapping[Address, OtherAddress] = field(default_factory=dict)
    """RFC 5780: by listener address."""

    @property
    def stun_only(self) -> bool:
        return not self.families

    def family_for(self, client: Address) -> Family:
        """The family of a relayed address for which a client has not asked by family."""
        if self.default_family is not None:
            return self.default_family
        own = family_of(client.host)
        return own if own in self.families else Family.IPV4

    def find(self, realm: str | None) -> RealmConfig | None:
        """The realm of this name; None when there is none."""
        if realm is None:
            return None
        return self.realm if realm == self.realm.name else self.realms.get(realm)

    def rules_of(self, realm: str) -> RealmConfig:
        """What an allocation of this realm goes by. Raises KeyError where there is no such realm."""
        return self.realm if realm == self.realm.name else self.realms[realm]
