"""What a pump counts: of one session, of all it did, and why packets went nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Drop(Enum):
    """Why a packet went nowhere."""

    MALFORMED = "malformed"
    NO_SESSION = "no_session"
    NO_PERMISSION = "no_permission"
    NO_CHANNEL = "no_channel"
    EXPIRED = "expired"
    BANDWIDTH = "bandwidth"
    FENCED = "fenced"
    SLOW_CLIENT = "slow_client"
    RATE_LIMITED = "rate_limited"
    SEND_FAILED = "send_failed"
    OVERLOAD = "overload"


@dataclass(frozen=True, slots=True)
class Counters:
    """What a session relayed. Bytes of application data, without headers."""

    packets_from_client: int = 0
    bytes_from_client: int = 0
    packets_to_client: int = 0
    bytes_to_client: int = 0
    dropped: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.packets_from_client + other.packets_from_client,
            self.bytes_from_client + other.bytes_from_client,
            self.packets_to_client + other.packets_to_client,
            self.bytes_to_client + other.bytes_to_client,
            self.dropped + other.dropped,
        )

    def __sub__(self, other: Counters) -> Counters:
        return Counters(
            self.packets_from_client - other.packets_from_client,
            self.bytes_from_client - other.bytes_from_client,
            self.packets_to_client - other.packets_to_client,
            self.bytes_to_client - other.bytes_to_client,
            self.dropped - other.dropped,
        )


@dataclass(frozen=True, slots=True)
class Associations:
    """DTLS: what there is now, then what there was since the pump was made."""

    open: int = 0
    """Associations, handshakes among them."""
    shaking: int = 0
    """Handshakes."""
    cookies: int = 0
    """Hellos of strangers that were answered with a cookie."""
    handshakes: int = 0
    """Those that came to their end."""
    failures: int = 0
    """Those that did not."""
    evicted: int = 0
    """Associations that were ended to make room."""
    refused: int = 0
    """Hellos for which there was no room."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the whole pump did since it was made: relayed, drops by reason, Binding answers, and batching.

    Sessions that ended are included.
    """

    relayed: Counters
    drops: Mapping[Drop, int]
    binding_answers: int
    received: int
    """Packets that came from the network, of any kind."""
    sent_up: int
    """Messages for the Handler, those that wait and what repeats them among them."""
    batches: int
    """Receive calls that brought at least one packet."""
    sends: int
    """Send calls to the kernel."""
    segments: int
    """Packets that left in them."""
    waiting: int = 0
    """Messages that are yet to be handed to the Handler."""
    challenges: int = 0
    """Plain Allocate requests that were answered with a Challenge."""
    challenges_withheld: int = 0
    """Those that a limit kept from it; RATE_LIMITED counts them as well."""
