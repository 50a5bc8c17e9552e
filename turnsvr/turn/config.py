"""What the rules are told: limits, lifetimes, and what is served. Plain values with safe defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from turnsvr.stun.address import Address, Family
from turnsvr.stun.framing import CHANNEL_LAST_5766
from turnsvr.turn.policy import PeerPolicy

DEFAULT_LIFETIME = 600
"""Seconds (RFC 8656 section 3.2)."""
PERMISSION_LIFETIME = 300
"""Seconds (RFC 8656 section 9)."""
CHANNEL_LIFETIME = 600
"""Seconds (RFC 8656 section 12)."""
RESERVATION_LIFETIME = 30
"""Seconds (RFC 8656 section 7.2)."""


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
class Alternate:
    """The other address and port of one listener for RFC 5780's tests; a single address has only other_port."""

    other_host: str | None
    other_port: int


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What the rules go by."""

    realm: str
    families: frozenset[Family] = frozenset(Family)
    """Families with a relay address; empty where only STUN is served."""
    policy: PeerPolicy = field(default_factory=PeerPolicy)
    allocations: int = 10_000
    allocations_per_user: int = 12
    """0 for no limit."""
    permissions_per_allocation: int = 256
    channels_per_allocation: int = 256
    reservations: int = 1024
    max_lifetime: int = 3600
    """Seconds."""
    nonce_lifetime: float = 3600.0
    """Seconds."""
    channel_last: int = CHANNEL_LAST_5766
    software: str | None = "turnsvr"
    rfc3489: bool = False
    anonymity: bool = False
    """Whether USERHASH can be resolved for every user."""
    redirect: Redirect | None = None
    alternates: Mapping[Address, Alternate] = field(default_factory=dict)
    """RFC 5780: by listener address."""

    @property
    def stun_only(self) -> bool:
        return not self.families
